"""The benchmarks run and say what they mean to; how fast anything is depends on the machine and is not tested."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.learner import learner, self_play
from benchmarks.measure import Effort, Row, make_row, rate, table, take_turns
from benchmarks.replay import replay
from benchmarks.search import searches, tree

SMALL = Effort(repeats=1, seconds=0.001, replay_sizes=(500, 1_000), recorded=500, batch_sizes=(1, 8))


def check(rows: list[Row]) -> None:
    """Every figure is a positive number; all but the baselines are compared with something named."""
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert 0 < row.low <= row.figure <= row.high < math.inf, row
        assert (row.ratio is None) == (row.baseline is None)
        assert row.ratio is None or 0 < row.ratio < math.inf, row


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


def test_trials_take_turns_and_warm_up_is_not_counted() -> None:
    order: list[str] = []

    def trial(name: str) -> dict[str, float]:
        order.append(name)
        return {name: float(len(order))}

    samples = take_turns([lambda: trial("a"), lambda: trial("b"), lambda: trial("c")], 3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert samples == {"a": [4.0, 9.0, 11.0], "b": [5.0, 7.0, 12.0], "c": [6.0, 8.0, 10.0]}


def test_ratios_are_of_the_same_turn() -> None:
    # The machine is twice as slow in the second turn and three times in the third: the ratio does not show it.
    samples = {"new": [60.0, 30.0, 20.0], "old": [30.0, 15.0, 10.0]}
    row = make_row("x", "steps/s", samples, "new", "old", "the old one")
    assert (row.figure, row.low, row.high) == (30.0, 20.0, 60.0)
    assert (row.ratio, row.ratio_low, row.ratio_high, row.baseline) == (2.0, 2.0, 2.0, "the old one")
    assert make_row("y", "ms", samples, "old").ratio is None


def test_rate_counts_work_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("benchmarks.measure.time.perf_counter", lambda: now[0])

    def quarter_of_a_second() -> None:
        now[0] += 0.25

    assert rate(quarter_of_a_second, 7, seconds=1.1) == 28.0  # five calls of 7 in 1.25 s


def test_tree_compares_gumbel_with_puct() -> None:
    rows = list(tree(SMALL))
    check(rows)
    assert len(rows) == 16
    assert by_name(rows)["tree/gumbel/B64/A18"].baseline == "tree/puct"
    assert all(row.figure >= 1 for row in rows if row.unit == "edges")  # each simulation leaves the root


def test_searches_are_compared_with_their_network_and_engines_with_the_first() -> None:
    rows = list(searches(Effort(**{**vars(SMALL), "batch_sizes": (1,)})))
    check(rows)
    names = by_name(rows)
    assert len(rows) == 2 * (3 + 7)
    for engine in ("mlp/torch-fp32", "conv/torch-fp32", "conv/torch-bf16"):
        outside = names[f"search-outside/{engine}/B1/S16"]
        assert outside.ratio is not None
        assert 0 < outside.ratio < 1
        assert names[f"network/{engine}/B1/S16"].baseline is None
    assert names["search-gain/conv/torch-bf16/B1/S50"].baseline == "search with torch-fp32"


def test_self_play_and_learner() -> None:
    played = list(self_play(SMALL))
    check(played)
    share = by_name(played)["selfplay/cartpole/S50"].ratio
    assert share is not None
    assert share < 1  # searches are part of self-play
    learnt = list(learner(SMALL))
    check(learnt)
    assert [row.name.rpartition("/")[2] for row in learnt] == ["float32", "bf16", "batch"]


def test_replay_sizes_are_compared_with_the_smallest() -> None:
    rows = list(replay(SMALL))
    check(rows)
    names = by_name(rows)
    assert names["replay/insert+sample/1000"].baseline == "the same at 500"
    assert "replay/insert+sample/500" not in names
    assert "replay/resident/1000" not in names  # too small to tell from the allocator's own needs
    compressed = names["replay/bytes/1000"].ratio
    assert compressed is not None
    assert compressed < 0.5


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out" / "figures.json"
    benchmarks.run(["selfplay"], SMALL, file)
    written = json.loads(file.read_text())
    printed = capsys.readouterr().out
    assert set(written) == {"date", "machine", "versions", "effort", "rows"}
    assert {"cpu", "cores", "flags"} <= set(written["machine"])
    assert {"python", "torch", "numpy", "numba"} <= set(written["versions"])
    for row in written["rows"]:
        assert row["name"] in printed
        assert len(row["samples"]) == SMALL.repeats
    restored = [Row(**{**row, "samples": tuple(row["samples"])}) for row in written["rows"]]
    assert table(restored) in printed


def test_unknown_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmarks.main(["--only", "treee"])
    assert "treee" in capsys.readouterr().err
