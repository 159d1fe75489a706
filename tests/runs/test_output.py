"""A run's folder: each score belongs to the weights it was measured with, each learner step has one row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muzero_ray.config.schema import Config
from muzero_ray.control.run_state import RunState
from muzero_ray.evaluation.protocol import EvaluationProtocol
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.printed import launch_line
from muzero_ray.runs.checkpoint import Checkpoint, load_checkpoint
from muzero_ray.runs.output import RunOutput
from muzero_ray.runs.replay_archive import INDEX_FILE
from tests.small_runs import rows, small_config

REPLAY = {INDEX_FILE: json.dumps({"chunks": [], "next_chunk": 0}).encode()}


@pytest.fixture
def config() -> Config:
    return small_config()


@pytest.fixture
def output(config: Config, tmp_path: Path) -> Iterator[RunOutput]:
    with RunOutput.create(config, tmp_path / "run") as result:
        yield result


def evaluation(score: float) -> Evaluation:
    protocol = EvaluationProtocol({"id": "test"}, "gumbel", 4, False, None)
    return Evaluation(np.array([score], np.float32), np.array([7], np.int32), protocol, 0)


def save(output: RunOutput, run_state: RunState, step: int) -> None:
    run_state.learner_steps = step
    output.checkpoint(run_state, ({}, {}), REPLAY)


def checkpoint(output: RunOutput, step: int) -> Checkpoint:
    return load_checkpoint(output.folder / "checkpoints" / str(step))


def scores(output: RunOutput) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output.folder / "scores.jsonl").read_text().splitlines()]


def test_a_checkpoint_carries_its_own_score_or_none(config: Config, output: RunOutput) -> None:
    run_state = RunState(config)
    save(output, run_state, 10)
    save(output, run_state, 20)
    output.scored(run_state, evaluation(5.0), 10)  # it took a while
    output.scored(run_state, evaluation(7.0), 30)  # before its checkpoint
    save(output, run_state, 30)
    save(output, run_state, 40)
    found = {path.name: checkpoint(output, int(path.name)).score for path in (output.folder / "checkpoints").iterdir()}
    assert found == {"40": None, "30": 7.0, "20": None}  # 10 was neither new nor the best any more
    # Resuming from 30 and saving it again, as each part of a run does first, keeps its score.
    output.__exit__()
    with RunOutput.reopen(config, output.folder, checkpoint(output, 30)) as again:
        assert (output.folder / "checkpoints" / "40.abandoned").is_dir()
        last = again.last_checkpoint()
        assert last is not None
        assert last.step == 30
        save(again, run_state, 30)
        assert checkpoint(output, 30).score == 7.0


def test_a_score_is_stamped_with_the_time_of_its_weights(config: Config, output: RunOutput) -> None:
    run_state = RunState(config)
    run_state.env_steps, run_state.learner_steps = 900, 30
    output.scored(run_state, evaluation(5.0), 20, 600)
    output.scored(run_state, evaluation(6.0), 30)
    assert [(s["learner_step"], s["env_steps"]) for s in scores(output)] == [(20, 600), (30, 900)]


def test_each_step_has_one_row_and_the_last_one_holds_the_final_score(config: Config, output: RunOutput) -> None:
    run_state = RunState(config)
    for step, loss in ((10, 1.0), (20, 2.0)):
        run_state.learner_steps = step
        run_state.metrics.add("loss/total", loss)
        output.write_row(run_state)
    run_state.metrics.add("loss/total", 99.0)
    output.write_row(run_state)
    save(output, run_state, 20)
    output.finished(run_state, evaluation(8.0), evaluation(1.0), 20)
    first, last = rows(output.folder)
    assert (first["learner_steps"], first["loss/total"]) == (10, 1.0)
    assert (last["learner_steps"], last["loss/total"], last["eval/return_mean"]) == (20, 2.0, 8.0)
    assert checkpoint(output, 20).score == 8.0
    assert checkpoint(output, 20).state["metrics_rows"] == 2
    # A run that was finished and is finished again: still one row.
    output.__exit__()
    with RunOutput.reopen(config, output.folder, checkpoint(output, 20)) as again:
        again.write_row(run_state)
        again.finished(run_state, evaluation(9.0), evaluation(1.0), 20)
    assert [row["learner_steps"] for row in rows(output.folder)] == [10, 20]
    assert rows(output.folder)[-1]["eval/return_mean"] == 9.0


def test_a_run_without_a_checkpoint_does_not_promise_one(config: Config, output: RunOutput) -> None:
    assert output.last_checkpoint() is None
    assert "resume" not in output.resume_hint
    save(output, RunState(config), 0)
    assert output.resume_hint == f"go on with: {launch_line('resume', output.folder)}"
