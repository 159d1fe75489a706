"""A run whose learner is two processes: one asks in vain, then it is killed, then the other is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.exceptions import GetTimeoutError
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from muzero_ray.actors.worker_handle import WorkerHandle
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.control.run_state import RunState
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.output import learner_state
from muzero_ray.training.build import build_learner
from muzero_ray.training.learner import Learner
from tests.actors.programs import messages, on_progress, pid_of, ray_config, running
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(1800),  # six processes that import torch start one after the other
    pytest.mark.usefixtures("ray_cluster", "places_given_back"),
]

STEPS, INTERVAL = 60, 15

ASKS_IN_VAIN, PEER_DIES, FIRST_DIES = 5, 20, 35
"""Learner steps at which these happen."""


@pytest.fixture
def places_given_back() -> Iterator[None]:
    """A driver's end would do it; this one goes on to the next test."""
    yield
    for name, group in placement_group_table().items():
        if group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(name)))


def config(steps: int, workers: int) -> Config:
    run = {"learner_steps": steps, "checkpoint_steps": INTERVAL}
    return ray_config(run=run, learner={"workers": workers}, reanalyze={"ratio": 0.0})


def in_peer(worker: WorkerHandle[Any], what: Any) -> Any:
    """The answer of the other rank to `what(worker)`."""
    asked = worker.actor.__ray_call__.remote(
        lambda first: ray.get(first._peers[0].__ray_call__.remote(what), timeout=PATIENCE)
    )
    return ray.get(asked, timeout=PATIENCE)


def processes(worker: WorkerHandle[Any]) -> tuple[psutil.Process, psutil.Process]:
    return psutil.Process(pid_of(worker)), psutil.Process(in_peer(worker, lambda _: os.getpid()))


def packed(learner: Learner) -> tuple[dict[str, bytes], dict[str, Any]]:
    arrays, info = learner.state()
    return {name: array.tobytes() for name, array in arrays.items()}, info


def ask_in_vain_once(worker: Any) -> None:
    """The next question of this rank to replay gets no answer in time."""
    ask = worker._ask

    def fail(_: Any) -> None:
        worker._ask = ask
        raise GetTimeoutError("no answer")

    worker._ask = fail


def test_ranks_train_as_one_are_replaced_as_one_and_leave_nobody_behind(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ranks: list[tuple[psutil.Process, psutil.Process]] = []
    """First and other rank, of each learner that there was."""
    with running(config(STEPS, workers=2), folder) as (supervisor, workers, _, output):
        said, worker = messages(output), workers.one("learner")
        blocked: list[str] = []
        died_at: dict[str, int] = {}
        workers._blocked = _noting(workers._blocked, blocked)  # type: ignore[method-assign]

        def harm(run_state: RunState) -> None:
            if run_state.learner_steps and worker.ready is None and not ranks:
                ranks.append(processes(worker))
            if run_state.learner_steps >= ASKS_IN_VAIN and not died_at:
                died_at["nobody"] = run_state.learner_steps
                in_peer(worker, ask_in_vain_once)
            for step, rank, who in ((PEER_DIES, 1, "peer"), (FIRST_DIES, 0, "first")):
                if run_state.learner_steps >= step and who not in died_at and len(ranks) == len(died_at) and blocked:
                    died_at[who] = run_state.learner_steps
                    ranks[-1][rank].kill()
            if worker.restarts == len(ranks) and worker.ready is None and not worker.fresh:
                ranks.append(processes(worker))

        on_progress(output, harm)
        assert supervisor.run()
        # Who asked in vain lives and tries again, and so does the other rank.
        assert blocked == ["no answer"]
        assert died_at.keys() == {"nobody", "peer", "first"}
        assert (worker.restarts, workers.restarts) == (2, 2)
        assert sum(text.startswith("learner lost (a worker of the learner is gone or hangs: ") for text in said) == 1
        restored = [int(match[1]) for text in said if (match := re.match(r"learner restored at step (\d+)", text))]
        for step, died in zip(restored, (died_at["peer"], died_at["first"]), strict=True):
            assert died - INTERVAL <= step < STEPS
        everyone = {process for pair in ranks for process in pair}
        assert len(everyone) == 6
        first = ray.get(worker.actor.__ray_call__.remote(lambda worker: packed(worker._learner)), timeout=PATIENCE)
        assert first == in_peer(worker, lambda worker: packed(worker._learner))
        assert first[1]["step"] == STEPS
    assert psutil.wait_procs(everyone, timeout=PATIENCE)[1] == []
    checkpoint = load_checkpoint(folder)
    assert checkpoint.step == STEPS
    assert checkpoint.state["book"]["limiter"]["sampled"] == STEPS * 16

    alone = config(STEPS, workers=1)
    learner = build_learner(alone, probe(alone))
    learner.load_state(*learner_state(checkpoint))
    assert packed(learner) == first


def _noting(blocked: Any, notes: list[str]) -> Any:
    def noting(worker: WorkerHandle[Any], error: Any) -> Any:
        notes.append(str(error))
        return blocked(worker, error)

    return noting
