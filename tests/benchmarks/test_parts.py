"""The parts run and compare what they mean to; how fast anything is depends on the machine and is not tested."""

from __future__ import annotations

from dataclasses import replace

import gymnasium

from benchmarks import slow_env
from benchmarks.engines import CONV_ENGINES, MLP_ENGINES
from benchmarks.learner import learner
from benchmarks.replay import replay
from benchmarks.search import searches, tree
from benchmarks.self_play import self_play
from benchmarks.weights import weights
from tests.benchmarks.rows import SMALL, check


def test_tree_compares_gumbel_with_puct() -> None:
    rows = check(list(tree(SMALL)))
    assert len(rows) == 16
    assert rows["tree/gumbel/B64/A18"].baseline == "tree/puct"
    assert all(row.figure >= 1 for row in rows.values() if row.unit == "edges")  # each simulation leaves the root


def test_searches_are_compared_with_their_network_and_engines_with_the_first() -> None:
    rows = check(list(searches(SMALL)))
    engines = [f"mlp/{label}" for label in MLP_ENGINES] + [f"conv/{label}" for label in CONV_ENGINES]
    assert len(rows) == 2 * (3 * len(engines) + len(engines) - 2)
    for engine in engines:
        outside = rows[f"search-outside/{engine}/B1/S16"]
        assert outside.ratio is not None
        assert 0 < outside.ratio < 1
        assert rows[f"network/{engine}/B1/S16"].baseline is None
    assert rows["search-gain/mlp/compiled-fp32/B1/S50"].baseline == "search with torch-fp32"
    assert "search-gain/conv/torch-fp32/B1/S50" not in rows


def test_self_play_with_every_engine() -> None:
    rows = check(list(self_play(SMALL)))
    for label in MLP_ENGINES:
        share = rows[f"selfplay/cartpole/{label}/S50"].ratio
        assert share is not None
        assert share < 1  # searches are part of self-play
    for label in list(CONV_ENGINES)[1:]:
        assert rows[f"selfplay-gain/breakout/{label}/S16"].baseline == "with torch-fp32"
    assert rows["environment/atari-reset/Breakout"].baseline == "loading the ROM"
    assert rows["selfplay-gain/breakout/atari-reset"].baseline == "loading the ROM for each game"


def test_weights_are_refreshed_while_moves_are_made() -> None:
    rows = check(list(weights(SMALL)))
    assert len(rows) == 2 + 6 * (len(MLP_ENGINES) + len(CONV_ENGINES))
    for row in rows.values():
        if row.name.startswith("weights-interval"):
            assert row.ratio is not None
            assert row.ratio >= 1  # actors look for weights once a second at most
        if row.name.startswith("weights-gap-without"):
            assert row.ratio is not None
            assert row.ratio > 0


def test_the_learner_in_both_precisions() -> None:
    effort = replace(SMALL, curve_steps=5)  # the first losses of two seeds may be equal
    rows = check(list(learner(effort)), may_be_zero=("learner-curve/",))
    assert [name.rpartition("/")[2] for name in rows] == ["float32", "bf16", "batch", "bf16"]
    curve = rows["learner-curve/breakout/bf16"]
    assert len(curve.samples) == effort.curve_steps
    assert 0 < curve.high < 0.5  # it is rounded otherwise, and it is the same loss


def test_replay_sizes_are_compared_with_the_smallest() -> None:
    rows = check(list(replay(SMALL)))
    assert rows["replay/insert+sample/1000"].baseline == "the same at 500"
    assert "replay/insert+sample/500" not in rows
    assert [str(row.baseline)[:13] for name, row in rows.items() if "searched-again" in name] == ["the same with"]
    assert "replay/resident/1000" not in rows  # too small to tell from the allocator's own needs
    compressed = rows["replay/bytes/1000"].ratio
    assert compressed is not None
    assert compressed < 0.5


def test_the_slow_environment_keeps_gymnasiums_contract() -> None:
    assert slow_env.SIDE == 96
    environment = gymnasium.make("Slow-v0", latency=0.0, length=3)
    frame, _ = environment.reset(seed=0)
    assert environment.observation_space.contains(frame)
    moved, reward, terminated, truncated, _ = environment.step(0)
    assert environment.observation_space.contains(moved)
    assert (moved != frame).any()
    assert (reward, terminated, truncated) == (1.0, False, False)
    assert [environment.step(1)[3] for _ in range(2)] == [False, True]
