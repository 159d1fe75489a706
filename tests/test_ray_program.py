"""The distributed program on a private local cluster: real processes, real kills."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from muzero_ray.control.probe import probe
from muzero_ray.control.run_state import RunState
from muzero_ray.errors import EnvironmentFault
from muzero_ray.runs.checkpoint import Checkpoint, load_checkpoint
from muzero_ray.runs.output import learner_state
from muzero_ray.runs.replay_archive import ARRAYS_FILE, INDEX_FILE
from muzero_ray.training.build import build_learner
from tests.actors.programs import on_progress, pid_of, ray_config, running
from tests.small_runs import rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

KILL_AT = 60
"""Env steps after which the self-play actor is killed: within its second or third rollout."""


@pytest.fixture(scope="module")
def killed_run(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: its self-play process was killed -9 in the middle, its evaluator before the final score."""
    del ray_cluster
    folder = tmp_path_factory.mktemp("ray") / "run"
    with running(ray_config(), folder) as (supervisor, workers, _, output):
        victims = [pid_of(workers.of("self_play")[0])]

        def kill(run_state: RunState) -> None:
            if run_state.env_steps >= KILL_AT and victims:
                os.kill(victims.pop(), signal.SIGKILL)

        on_progress(output, kill)
        assert supervisor.run()
        assert not victims
        os.kill(pid_of(workers.one("evaluator")), signal.SIGKILL)
        supervisor.final_evaluation()
        assert (workers.restarts, workers.one("evaluator").restarts) == (2, 1)
    return folder


def test_a_run_reaches_its_target_and_leaves_a_checkpoint_metrics_and_scores(killed_run: Path) -> None:
    config = ray_config()
    checkpoint = load_checkpoint(killed_run)
    assert checkpoint.step == checkpoint.state["learner"]["step"] == 30
    task = probe(config)
    learner, fresh = build_learner(config, task), build_learner(config, task)
    learner.load_state(*learner_state(checkpoint))
    assert not np.array_equal(learner.weights(), fresh.weights())
    written = rows(killed_run)
    assert [row["learner_steps"] for row in written] == [10, 20, 30]
    assert all(np.isfinite(row["loss/total"]) for row in written)
    assert written[-1]["eval/episodes"] == 3
    assert all(np.isfinite(written[-1][f"model/{name}"]) for name in ("value_error_first", "policy_kl"))
    assert all(row.get("actors/weights_lag", 0) >= 0 for row in written)
    run_state = checkpoint.state["book"]
    # Every transition trained on twice: 30 updates of 16, after a warm-up of 48.
    assert run_state["limiter"]["sampled"] == 30 * 16
    assert run_state["limiter"]["inserted"] >= 48 + 30 * 16 / 2
    assert run_state["env_steps"] >= run_state["limiter"]["inserted"]
    index = safetensors.numpy.load(checkpoint.files[ARRAYS_FILE])["index"]
    assert run_state["reanalyzed"] > 0
    assert index[:, 6].any()  # games whose targets were replaced
    scores = [json.loads(line) for line in (killed_run / "scores.jsonl").read_text().splitlines()]
    assert [score["kind"] for score in scores][-2:] == ["final", "random"]
    assert scores[-2]["learner_step"] == 30
    assert len(scores[-2]["returns"]) == 3


def test_a_killed_self_play_process_is_replaced_and_counted(killed_run: Path) -> None:
    assert rows(killed_run)[-1]["actors/restarts"] == 1
    assert rows(killed_run)[-1]["actors/alive"] == 1
    # Its games are there, and those of its replacement, under an incarnation of its own.
    ids = [tuple(i) for c in json.loads(load_checkpoint(killed_run).files[INDEX_FILE])["chunks"] for i in c["ids"]]
    assert {incarnation for _, incarnation, _ in ids} == {0, 1}
    assert len(set(ids)) == len(ids)


def test_a_resumed_run_holds_what_was_saved_and_goes_on_counting(killed_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(killed_run, folder)
    before: Checkpoint = load_checkpoint(folder)
    rows_before = before.state["metrics_rows"]
    lines_before = (folder / "metrics.jsonl").read_text().splitlines()[:rows_before]
    config = ray_config(run={"learner_steps": 45})
    with running(config, folder) as (supervisor, _, _, output):
        restored: list[Any] = []

        def at_the_first_checkpoint(run_state: RunState, learner: Any, replay: dict[str, bytes]) -> None:
            restored.append((learner, replay, run_state.learner_steps, run_state.env_steps))
            del output.checkpoint

        output.checkpoint = at_the_first_checkpoint
        assert supervisor.run()
        (arrays, info), replay_files, *steps = restored[0]
        expected, expected_info = learner_state(before)
        assert info == expected_info
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            assert array.dtype == expected[name].dtype
            assert array.tobytes() == expected[name].tobytes(), name
        assert replay_files[ARRAYS_FILE] == before.files[ARRAYS_FILE]
        assert steps == [30, before.state["book"]["env_steps"]]
    after = load_checkpoint(folder)
    assert after.step == 45
    assert after.state["book"]["resumes"] == 1
    for counter in ("env_steps", "episodes", "seconds"):
        assert after.state["book"][counter] > before.state["book"][counter]
    assert (folder / "metrics.jsonl").read_text().splitlines()[:rows_before] == lines_before
    assert [row["learner_steps"] for row in rows(folder)][rows_before:] == [40, 45]
    incarnations = safetensors.numpy.load(after.files[ARRAYS_FILE])["index"][:, 1].tolist()
    assert max(incarnations) == 1 << 16
    assert min(incarnations) <= 1  # games from before are still there


def test_a_broken_environment_ends_the_run_with_its_name(tmp_path: Path) -> None:
    config = ray_config(env={"id": "tests.faulty_environment:Breaks-v0"})
    with (
        running(config, tmp_path / "run") as (supervisor, _, run_state, _),
        pytest.raises(EnvironmentFault) as caught,
    ):
        supervisor.run()
    # The fault as it was raised in the actor, without Ray's wrapping.
    message = r"environment \S*Breaks-v0 \(seed \d+, step \d+\): observation is not finite: .* got nan at \[0\]\. "
    message += "That was fault number 6 in a row"
    assert re.fullmatch(message, str(caught.value))
    assert 0 < run_state.env_steps <= 90
