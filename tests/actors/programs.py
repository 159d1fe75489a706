"""Small distributed runs on the shared cluster, and the means to kill their processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray

from muzero_ray.actors.supervisor import Supervisor
from muzero_ray.actors.worker_handle import WorkerHandle
from muzero_ray.actors.workers import Workers
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.control.run_state import RunState
from muzero_ray.launch import build_program
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.output import RunOutput
from tests.patience import PATIENCE
from tests.small_runs import small_config


def ray_config(**sections: dict[str, Any]) -> Config:
    """Every kind of worker, and one self-play actor, so that a run cannot end without it."""
    run = {"serial": False, "learner_steps": 30, "log_steps": 10, "checkpoint_steps": 15}
    base: dict[str, dict[str, Any]] = {
        "run": small_config().run.model_dump() | run,
        "actors": {"count": 1, "envs_per_actor": 4, "rollout_steps": 40, "num_cpus": 0.2},
        "learner": {"cpus": 0.2},
        "reanalyze": {"ratio": 0.5, "simulations": 2},
        "replay": {"capacity": 2000},
    }
    return small_config(**{name: base.get(name, {}) | sections.get(name, {}) for name in base | sections})


@contextlib.contextmanager
def running(config: Config, folder: Path) -> Iterator[tuple[Supervisor, Workers, RunState, RunOutput]]:
    """A started program in `folder`, a new run or the next part of one; its processes are killed in the end."""
    checkpoint = load_checkpoint(folder) if folder.exists() else None
    output = RunOutput.reopen(config, folder, checkpoint) if checkpoint else RunOutput.create(config, folder)
    run_state = RunState(config)
    if checkpoint:
        run_state.load_state(checkpoint.state["book"])
    with output:
        workers = build_program(config, probe(config), run_state, output)
        supervisor = Supervisor(workers, run_state, config, output, checkpoint.files if checkpoint else None)
        try:
            yield supervisor, workers, run_state, output
        finally:
            for worker in workers.handles:
                ray.kill(worker.actor)


def pid_of(worker: WorkerHandle[Any]) -> int:
    pid: int = ray.get(worker.actor.__ray_call__.remote(lambda _: os.getpid()), timeout=PATIENCE)
    return pid


def on_progress(output: RunOutput, action: Callable[[RunState], None]) -> None:
    """Call `action` whenever the supervisor shows how far it is."""
    show = output.show

    def show_and_act(run_state: RunState) -> None:
        show(run_state)
        action(run_state)

    output.show = show_and_act  # type: ignore[method-assign]


def messages(output: RunOutput) -> list[str]:
    """Filled, from now on, with what a person would be told."""
    said: list[str] = []
    output.message = said.append  # type: ignore[method-assign]
    return said
