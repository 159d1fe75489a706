"""Games that never end by themselves: evaluations have an end, whoever asked for moves stays in charge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import muzero_ray.evaluation.protocol as protocol_module
from muzero_ray.acting.build import build_self_play
from muzero_ray.acting.reanalyzer import Reanalyzer
from muzero_ray.acting.self_play import SelfPlay
from muzero_ray.config.schema import Config, EnvConfig
from muzero_ray.control.probe import probe
from muzero_ray.control.run_state import RunState
from muzero_ray.control.serial import SerialRunner
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.episodes import MAX_ENVIRONMENTS, Episodes
from muzero_ray.evaluation.evaluator import Evaluator, play_episodes
from muzero_ray.evaluation.protocol import (
    ADDED_LATER,
    MOVE_LIMIT,
    EvaluationProtocol,
    completed,
    evaluation_protocol,
    protocol_digest,
)
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.output import RunOutput
from muzero_ray.runs.scores import RunScore, compare, read_score
from muzero_ray.training.build import build_learner
from muzero_ray.training.learner import Learner
from muzero_ray.types import Array, BoolArray, IntArray, Weights, WeightsVersion
from tests.small_runs import assert_same_run, rows, run_serial, small_config

ENDLESS = {"id": "tests.odd_environments:Endless-v0", "max_moves": None}


def always(action: int) -> Callable[[Array, BoolArray], IntArray]:
    return lambda observations, _: np.full(len(observations), action, np.int32)


def limited(moves: int | None) -> EvaluationProtocol:
    return EvaluationProtocol({"id": "Game-v0"}, "gumbel", 4, False, None, moves)


def test_an_episode_without_end_is_cut_and_counts_with_its_return_so_far() -> None:
    """Action 0 never ends this game; action 1 ends it at once, for -1."""
    config = EnvConfig(id="tests.odd_environments:GoalOnly-v0")
    episodes = MAX_ENVIRONMENTS + 3

    def play(action: int) -> Any:
        return play_episodes(
            lambda _: make_environment(config),
            always(action),
            episodes=episodes,
            seed=0,
            frame_stack=1,
            protocol=limited(20),
        )

    cut, ended = play(0), play(1)
    assert (cut.cut, cut.lengths.tolist(), cut.returns.tolist()) == (episodes, [20] * episodes, [0.0] * episodes)
    assert cut.summary().endswith(f" episodes={episodes} env_steps={20 * episodes} episodes_cut={episodes}")
    note = cut.cut_note()
    assert "35 of 35 episodes" in note
    assert "after 20 moves" in note
    assert "Set env.max_moves" in note
    assert (ended.cut, ended.cut_note(), set(ended.returns.tolist())) == (0, None, {-1.0})
    assert ended.summary().endswith(f" env_steps={episodes}")


def test_a_game_that_ends_with_the_last_move_allowed_is_not_cut() -> None:
    for limit, cut in ((10, 0), (9, 4)):
        result = play_episodes(
            lambda _: make_environment(EnvConfig(id="tests.odd_environments:Bandit-v0")),
            always(0),
            episodes=4,
            seed=0,
            frame_stack=1,
            protocol=limited(limit),
        )
        assert (result.cut, result.lengths.tolist()) == (cut, [limit] * 4)


OWN = {
    "67baaf8d66e8": {},
    "c4c3d3379144": {"env": {"kind": "atari", "id": "Breakout"}, "network": {"kind": "resnet"}},
    "18acc60fefaa": {
        "env": {"kind": "openspiel", "id": "connect_four"},
        "network": {"kind": "resnet", "downsample": 1},
        "learner": {"discount": 1.0},
    },
    "b55ffa0d35e1": {"env": ENDLESS | {"max_moves": 100}},
}
"""Digests of protocols as the program gave them before there was a limit of moves (commit c5c48b1)."""


@pytest.mark.parametrize("digest", OWN)
def test_where_games_have_a_limit_scores_compare_with_those_made_before(digest: str) -> None:
    config = Config.model_validate(OWN[digest])
    protocol = evaluation_protocol(config, make_environment(config.env).spec)
    assert protocol.move_limit is None
    assert "move_limit" not in protocol.as_dict()
    before = {name: value for name, value in protocol.as_dict().items() if name not in ADDED_LATER}
    assert protocol_digest(before) == digest
    assert completed(before, config) == {**protocol.as_dict(), "precision": "float32"}


@pytest.mark.parametrize(
    "env",
    [
        ENDLESS,
        {"id": "CartPole-v1", "kwargs": {"max_episode_steps": -1}},
        {"kind": "atari", "id": "Breakout", "kwargs": {"max_num_frames_per_episode": 0}},
    ],
)
def test_without_one_the_limit_is_part_of_the_protocol(env: dict[str, Any]) -> None:
    config = Config.model_validate({"env": env, "network": {"kind": "resnet" if "kind" in env else "mlp"}})
    protocol = evaluation_protocol(config, make_environment(config.env).spec)
    assert protocol.move_limit == protocol.as_dict()["move_limit"] == MOVE_LIMIT == 27_000
    assert "cut after 27,000 moves" in protocol.describe()
    assert "27,000" in str(EnvConfig.model_fields["max_moves"].description)


def test_limits_that_environments_name() -> None:
    def moves(**env: Any) -> int | None:
        return make_environment(EnvConfig(**env)).spec.max_moves

    assert moves(id="CartPole-v1") == 500
    assert moves(id="CartPole-v1", kwargs={"max_episode_steps": 7}) == 7
    assert moves(kind="openspiel", id="tic_tac_toe") == 9
    assert moves(kind="atari", id="Pong", atari={"frame_skip": 5}) == 108_000 / 5
    assert moves(**ENDLESS) is None


def score(folder: Path, cut: int, **protocol: Any) -> RunScore:
    folder.mkdir()
    (folder / "config.yaml").write_text("{}")
    base = {"environment": {"id": "Game-v0", "kind": "gymnasium"}, "digest": "x", **protocol}
    entry = {"learner_step": 9, "env_steps": 90, "returns": [1.0], "return_mean": 1.0, "protocol": base, "cut": cut}
    lines = [json.dumps({**entry, "kind": kind}) for kind in ("final", "random")]
    (folder / "scores.jsonl").write_text("\n".join(lines) + "\n")
    return read_score(folder)


def test_a_limit_that_cut_no_episode_leaves_scores_comparable(tmp_path: Path) -> None:
    """Of two seeds of one run, one may have an episode that the limit cut."""
    before, same, cut, low, later = (
        score(tmp_path / "before", 0),
        score(tmp_path / "same", 0, move_limit=27_000),
        score(tmp_path / "cut", 1, move_limit=27_000),
        score(tmp_path / "low", 0, move_limit=9_000),
        score(tmp_path / "later", 1, move_limit=50_000),
    )
    assert compare([before, same, low])[0].runs == 3
    assert compare([same, cut, low])[0].runs == 3
    for one, other in ((before, cut), (cut, later)):
        limits = [found.protocol.get("move_limit") for found in (one, other)]
        with pytest.raises(ConfigError, match="move_limit is {} in one and {} in the other".format(*limits)):
            compare([one, other])


def test_self_play_keeps_only_a_segment_of_a_game_without_end() -> None:
    config = small_config(env=ENDLESS)
    learner, task = build_learner(config, probe(config)), probe(config)
    self_play = build_self_play(config, task, actor=0, num_envs=2)
    self_play.set_weights(Weights(WeightsVersion(0, 0), learner.weights()))
    segments: list[int] = []
    for _ in range(6):
        self_play.play(50, temperature=1.0, emit=lambda game: segments.append(game.owned))
        held = [len(recorder) for recorder in self_play._recorders]
        assert max(held) < config.replay.segment_length + config.learner.unroll_steps + config.learner.td_steps
    assert set(segments) == {config.replay.segment_length}
    assert sum(segments) + sum(held) == 300


class Interruption:
    """Asks `runner` to stop in its `at`-th call of one of its parts' inner steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, at: int) -> None:
        self.runner: SerialRunner | None = None
        self.calls = 0
        inner = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == at and self.runner is not None:
                self.runner.request_stop()
            return inner(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)


def run_until(interruption: Interruption, config: Config, folder: Path) -> SerialRunner:
    checkpoint = load_checkpoint(folder) if folder.exists() else None
    output = RunOutput.reopen(config, folder, checkpoint) if checkpoint else RunOutput.create(config, folder)
    with output:
        runner = SerialRunner(config, probe(config), output, checkpoint)
        interruption.runner = runner
        assert not runner.run()
    return runner


WHERE = {
    "a round of self-play": (SelfPlay, "_round", 25),
    "the first round of self-play": (SelfPlay, "_round", 1),
    "an update": (Learner, "train_step", 8),
    "the first update": (Learner, "train_step", 1),
    "a round of an evaluation": (Episodes, "_round", 4),
    "the evaluation at the last step": (Episodes, "_round", 14),
}


@pytest.mark.parametrize("where", WHERE)
def test_a_stop_is_obeyed_after_the_move_and_the_resumed_run_is_the_same(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(env={"id": "CartPole-v1", "max_moves": 20}, evaluation={"episodes": 2})
    owner, name, at = WHERE[where]
    with monkeypatch.context() as patched:
        interruption = Interruption(patched, owner, name, at)
        run_until(interruption, config, tmp_path / "parts")
        assert interruption.calls == at
    assert run_serial(config, tmp_path / "parts")
    assert load_checkpoint(tmp_path / "parts").state["book"]["resumes"] == 1
    assert run_serial(config, tmp_path / "whole")
    assert_same_run(config, tmp_path / "parts", tmp_path / "whole")


def test_a_stop_is_obeyed_between_two_games_that_are_searched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(env={"id": "CartPole-v1", "max_moves": 20}, reanalyze={"ratio": 1.0, "simulations": 3})
    with monkeypatch.context() as patched:
        interruption = Interruption(patched, Reanalyzer, "refresh", 7)
        run_until(interruption, config, tmp_path / "parts")
        assert interruption.calls == 7
    assert run_serial(config, tmp_path / "parts")
    assert run_serial(config, tmp_path / "whole")
    assert_same_run(config, tmp_path / "parts", tmp_path / "whole")


def test_the_limit_of_minutes_ends_a_turn_and_an_evaluation_between_two_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a clock that stands still until the evaluation at step 20 has made three moves, then is over the limit."""
    monkeypatch.setattr(protocol_module, "MOVE_LIMIT", 30)  # of the final evaluation
    config = small_config(env=ENDLESS, run={"minutes": 1.0, "learner_steps": 100_000})
    rounds: list[int] = []
    play = Episodes._round

    def counted(games: Episodes) -> None:
        rounds.append(len(rounds))
        play(games)

    monkeypatch.setattr(Episodes, "_round", counted)
    monkeypatch.setattr(RunState, "seconds", property(lambda _: 61.0 if len(rounds) >= 3 else 1.0))
    assert run_serial(config, tmp_path / "run")
    assert len(rounds) == 3 + 30 + 30  # the one on the way; the final one, and random play
    run_state = load_checkpoint(tmp_path / "run").state["book"]
    assert (run_state["learner_steps"], run_state["episodes"]) == (20, 0)
    said = capsys.readouterr().out
    assert "the evaluation at learner step 20 was left unfinished and does not count: the run ends at 1 minutes" in said
    assert said.count("Set env.max_moves") == 1
    assert "episodes_cut=3" in said
    assert rows(tmp_path / "run")[-1]["eval/episodes"] == 3
    kinds = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    assert [(one["kind"], one["cut"], one["protocol"]["move_limit"]) for one in kinds] == [
        ("final", 3, 30),
        ("random", 3, 30),
    ]


def test_evaluate_is_told_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol_module, "MOVE_LIMIT", 5)
    config = small_config(env=ENDLESS)
    evaluator = Evaluator(config, probe(config))
    evaluator.load(build_learner(config, probe(config)).weights())
    said: list[str] = []
    evaluator.evaluate(episodes=40, seed=0, watch=lambda progress: said.append(str(progress)))
    assert said[0] == "0 of 40 episodes, 0 moves"
    assert said[5] == "32 of 40 episodes, 160 moves"
    assert len(said) == 10
