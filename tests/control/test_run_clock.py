"""Which seconds `run.minutes` counts, and what is said of a run that had too few of them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muzero_ray.acting.rollout_stats import RolloutStats
from muzero_ray.acting.self_play import SelfPlay
from muzero_ray.config.schema import Config
from muzero_ray.control.limits import nothing_learned
from muzero_ray.control.run_state import RunState
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.types import WeightsVersion
from tests.small_runs import rows, run_serial, small_config

STATS = RolloutStats(40, 30, (), 5.0, 1.0, 160, 1.0, 0.5, 0.1, WeightsVersion(0, 0))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr("muzero_ray.control.run_state.time.monotonic", lambda: now[0])
    return now


def run_state_of(**run: Any) -> RunState:
    return RunState(Config.model_validate({"run": run}))


def test_seconds_count_from_the_first_move_to_the_end_of_training(clock: list[float]) -> None:
    run_state = run_state_of(minutes=1.0)
    clock[0] += 3_600.0  # workers start
    assert (run_state.seconds, run_state.stop_reason()) == (0.0, None)
    run_state.played(replace(STATS, playing_for=4.0))  # the answer to a call in which the first weights were waited for
    assert run_state.seconds == 4.0
    run_state.played(replace(STATS, playing_for=999.0))  # only the first answer says when it began
    clock[0] += 55.0
    assert (run_state.seconds, run_state.stop_reason()) == (59.0, None)
    clock[0] += 1.0
    assert (run_state.time_is_up, run_state.stop_reason()) == (True, "1 minutes")
    run_state.stop_clock()
    clock[0] += 500.0  # the final evaluation
    assert run_state.seconds == 60.0
    assert run_state.row()["wall_s"] == 60.0


def test_the_parts_of_a_resumed_run_add_up_without_their_start_ups(clock: list[float]) -> None:
    first = run_state_of(minutes=2.0)
    first.played(STATS)
    clock[0] += 70.0
    second = run_state_of(minutes=2.0)
    second.load_state(first.state())
    clock[0] += 600.0
    assert (second.seconds, second.stop_reason()) == (70.0, None)
    second.played(STATS)
    clock[0] += 50.0
    assert second.stop_reason() == "2 minutes"


def test_a_serial_run_starts_its_clock_with_the_first_move(
    clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every round of moves takes a second, the first ten more (something is compiled); then 7 make 6 seconds."""
    play = SelfPlay._round
    rounds: list[int] = []

    def slow(*arguments: Any) -> None:
        play(*arguments)
        clock[0] += 1.0 if rounds else 11.0
        rounds.append(len(rounds))

    monkeypatch.setattr(SelfPlay, "_round", slow)
    assert time.monotonic() == clock[0]
    assert run_serial(small_config(run={"minutes": 0.1, "learner_steps": 100_000}), tmp_path / "run")
    assert len(rounds) == 7
    assert load_checkpoint(tmp_path / "run").state["book"]["seconds"] == 6.0
    assert rows(tmp_path / "run")[-1]["wall_s"] == 6.0


def test_a_run_that_learned_nothing_says_so_at_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_serial(small_config(run={"minutes": 1e-6}), tmp_path / "run")
    said = capsys.readouterr().out
    assert "\nuntrained: return_mean=" in said
    last = said.rstrip().splitlines()[-1]
    assert last.startswith("warning: the run ended at 1e-06 minutes without a learner step: replay.min_size=48 ")
    assert last.endswith("Raise run.minutes (--minutes), or lower replay.min_size")


def test_what_to_raise_is_the_limit_that_ended_the_run() -> None:
    config = Config.model_validate({"run": {"episodes": 3}, "replay": {"min_size": 200}})
    run_state = RunState(config)
    run_state.played(STATS)
    run_state.episodes = 3
    note = nothing_learned(config, run_state)
    assert note is not None
    assert "ended at 3 episodes without a learner step" in note
    assert "replay.min_size=200 transitions must be in replay before the first, and 30 were" in note
    assert note.endswith("Raise run.episodes (--episodes), or lower replay.min_size")
    run_state.limiter.inserts(170)
    enough = nothing_learned(config, run_state)
    assert enough is not None
    assert "no learner step was finished in that time" in enough
    assert enough.endswith("Raise run.episodes (--episodes)")
    run_state.learner_steps = 1
    assert nothing_learned(config, run_state) is None


def test_nothing_is_to_be_raised_where_a_callback_ended_the_run() -> None:
    run_state = RunState(Config())
    run_state.ended_by = "Impatient.on_game returned STOP"
    assert nothing_learned(Config(), run_state) == (
        "the run ended before its first learner step: Impatient.on_game returned STOP. The score is that of an "
        "untrained network"
    )
