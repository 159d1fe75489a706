"""Real kills in a running job. It reaches its target; what was acknowledged is there, and there once."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import safetensors.numpy

import muzero_ray.actors.workers
from muzero_ray.actors.replay import ReplayWorker
from muzero_ray.actors.worker_handle import WorkerHandle
from muzero_ray.control.probe import probe
from muzero_ray.control.run_state import RunState
from muzero_ray.printed import launch_line
from muzero_ray.replay.encoding import encode_game
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.replay_archive import ARRAYS_FILE, INDEX_FILE
from muzero_ray.training.build import build_learner
from muzero_ray.types import GameHistory, GameId
from tests.actors.programs import messages, on_progress, pid_of, ray_config, running
from tests.patience import PATIENCE
from tests.replay.games import make_game
from tests.small_runs import rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

STEPS, INTERVAL = 120, 20

KILLS = {10: "evaluator", 25: "replay", 45: "params", 65: "learner", 85: "self_play"}
"""Learner step -> who is killed once it is reached. No evaluation is due that would miss the evaluator."""


def test_each_process_once_and_the_run_reaches_its_target(tmp_path: Path) -> None:
    config = ray_config(
        run={"learner_steps": STEPS, "checkpoint_steps": INTERVAL}, evaluation={"interval_steps": 10 * STEPS}
    )
    folder = tmp_path / "run"
    died_at: dict[str, int] = {}
    with running(config, folder) as (supervisor, workers, _, output):
        said = messages(output)
        pids: dict[str, int] = {}

        def kill(run_state: RunState) -> None:
            if run_state.learner_steps and not pids:
                pids.update({kind: pid_of(workers.of(kind)[0]) for kind in KILLS.values()})  # type: ignore[arg-type]
            for step, kind in KILLS.items():
                if run_state.learner_steps >= step and kind not in died_at:
                    died_at[kind] = run_state.learner_steps
                    os.kill(pids[kind], signal.SIGKILL)

        on_progress(output, kill)
        assert supervisor.run()
        assert died_at.keys() == set(KILLS.values())
        assert {kind: workers.of(kind)[0].restarts for kind in died_at} == dict.fromkeys(died_at, 1)  # type: ignore[arg-type]
        assert workers.restarts == len(KILLS)
        replay_size = ray.get(workers.one("replay").actor.metrics.remote(0), timeout=PATIENCE)["replay/size"]
        (restored,) = [match for text in said if (match := re.match(r"learner restored at step (\d+)", text))]
        supervisor.final_evaluation()
    # The learner repeated one interval at most.
    assert died_at["learner"] - INTERVAL <= int(restored[1]) <= died_at["learner"]
    checkpoint = load_checkpoint(folder)
    assert checkpoint.step == STEPS
    steps = [row["learner_steps"] for row in rows(folder)]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
    # Every acknowledged game is there once: nothing was evicted, and the run's state counts what was acknowledged.
    index = safetensors.numpy.load(checkpoint.files[ARRAYS_FILE])["index"]
    ids = [tuple(row) for row in index[:, :3].tolist()]
    assert len(set(ids)) == len(ids)
    written = [tuple(i) for c in json.loads(checkpoint.files[INDEX_FILE])["chunks"] for i in c["ids"]]
    assert sorted(written) == sorted(ids)
    run_state = checkpoint.state["book"]
    assert run_state["limiter"]["inserted"] <= replay_size
    assert run_state["limiter"]["sampled"] == STEPS * config.learner.batch_size
    # Weights of the restored learner were taken, though its step was lower.
    assert index[:, 3].max() == 1
    assert (folder / "scores.jsonl").read_text().count('"final"') == 1


def test_a_stopped_process_of_each_way_to_come_back_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: it lives, holds its connections, and never answers."""
    monkeypatch.setattr(muzero_ray.actors.workers, "CALL_TIMEOUT", 20.0)
    config = ray_config(run={"learner_steps": 60, "checkpoint_steps": INTERVAL}, reanalyze={"ratio": 0.0})
    with running(config, tmp_path / "run") as (supervisor, workers, _, output):
        stopped: dict[str, int] = {}

        def stop(run_state: RunState) -> None:
            for step, worker in ((5, workers.one("replay")), (25, workers.one("learner"))):
                if run_state.learner_steps >= step and worker.kind not in stopped:
                    stopped[worker.kind] = pid_of(worker)
                    os.kill(stopped[worker.kind], signal.SIGSTOP)

        on_progress(output, stop)
        assert supervisor.run()
        assert stopped.keys() == {"replay", "learner"}
        assert workers.one("replay").restarts >= 1
        assert workers.one("learner").restarts >= 1
        assert pid_of(workers.one("replay")) != stopped["replay"]
    assert load_checkpoint(tmp_path / "run").step == 60


def test_a_learner_that_dies_at_once_starts_again_and_step_0_can_be_resumed(tmp_path: Path) -> None:
    config = ray_config(reanalyze={"ratio": 0.0})
    zero = tmp_path / "run" / "checkpoints" / "0"
    with running(config, tmp_path / "run") as (supervisor, workers, run_state, output):
        learner, victims = workers.one("learner"), list[int]()

        def kill_then_stop(_: RunState) -> None:
            if not victims and learner.ready is None:
                victims.append(pid_of(learner))
                os.kill(victims[0], signal.SIGKILL)
            elif zero.exists():
                supervisor.request_stop()

        on_progress(output, kill_then_stop)
        assert "there is no checkpoint yet" in output.resume_hint
        assert not supervisor.run()
        assert (len(victims), run_state.learner_steps) == (1, 0)
        assert output.resume_hint == f"go on with: {launch_line('resume', output.folder)}"
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint.step == 0
    fresh = build_learner(config, probe(config)).state()[0]
    for name, array in checkpoint.model.items():
        np.testing.assert_array_equal(array, fresh[name])


def test_weights_that_are_not_finite_are_rolled_back(tmp_path: Path) -> None:
    config = ray_config(run={"learner_steps": 60, "checkpoint_steps": INTERVAL})
    folder = tmp_path / "run"
    with running(config, folder) as (supervisor, workers, _, output):
        said = messages(output)
        poisoned: list[ray.ObjectRef] = []

        def poison(run_state: RunState) -> None:
            if run_state.learner_steps >= 30 and not poisoned:
                poisoned.append(workers.one("learner").actor.__ray_call__.remote(_spoil_weights))

        on_progress(output, poison)
        assert supervisor.run()
        assert ray.get(poisoned, timeout=PATIENCE)
        assert workers.one("learner").restarts == 1
        final = ray.get(
            ray.get(workers.one("params").actor.latest.remote("online", None), timeout=PATIENCE)[0], timeout=PATIENCE
        )
        assert np.isfinite(final.flat).all()
    assert any("not finite" in text for text in said)
    assert any(text.startswith("learner restored at step") for text in said)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.step == 60
    assert all(np.isfinite(array).all() for array in checkpoint.model.values())


def _spoil_weights(worker: Any) -> bool:
    next(iter(worker._learner._parameters.values())).data.fill_(float("nan"))
    return True


def test_replay_refuses_the_games_of_who_was_replaced_and_comes_back_whole(tmp_path: Path) -> None:
    config = ray_config()
    rng = np.random.default_rng(0)

    def game(incarnation: int, seq: int) -> GameHistory:
        return replace(make_game(rng, 6), id=GameId(0, incarnation, seq))

    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    worker = WorkerHandle(
        "replay", 0, ray.remote(ReplayWorker).options(**options).remote(config, probe(config), 0, tmp_path)
    )

    def add(*games: GameHistory) -> list[bool]:
        return ray.get([worker.actor.add.remote(encode_game(one)) for one in games], timeout=PATIENCE)  # type: ignore[no-any-return]

    try:
        late = game(0, 1)
        assert add(game(0, 0), game(1, 0)) == [True, True]
        assert add(late) == [False]
        before = ray.get(worker.actor.metrics.remote(0), timeout=PATIENCE)
        os.kill(pid_of(worker), signal.SIGKILL)
        assert ray.get(worker.actor.metrics.remote(0), timeout=PATIENCE) == before
        assert add(late, game(1, 0), game(1, 1)) == [False, False, True]
    finally:
        ray.kill(worker.actor)
