"""A running job to break: the program of `launch.build_program` in this process, and a second thread that harms it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import ray

from chaos.witness import witnessed
from muzero_ray.acting.rollout_stats import RolloutStats
from muzero_ray.actors.cluster import connect
from muzero_ray.actors.supervisor import Supervisor
from muzero_ray.actors.worker_handle import Kind, WorkerHandle
from muzero_ray.actors.workers import Workers
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.control.run_state import RunState
from muzero_ray.launch import build_program
from muzero_ray.runs.output import RunOutput
from muzero_ray.types import WeightsVersion

CLASSES: dict[Kind, str] = {
    "self_play": "SelfPlay",
    "reanalyze": "Reanalyze",
    "evaluator": "Evaluator",
    "params": "ParameterServer",
    "replay": "Replay",
    "learner": "Learner",
}
"""What the title of a process, which Ray makes of its class, contains."""

INTERVAL = 100
"""Learner steps between two checkpoints."""

LONG = 10**8
"""Learner steps that no experiment reaches: its run state sets the target when the harm is done."""


class Broken(Exception):
    """The program did not do what it was waited for."""


def small_config(folder: Path, **run: Any) -> Config:
    """CartPole with every kind of worker, one of each, and room for all games: what is missing in the end was lost."""
    heads = {"head_layers": (16,), "value": {"max": 10.0, "bins": 11}, "reward": {"max": 2.0, "bins": 5}}
    steps = {"learner_steps": LONG, "log_steps": 50, "checkpoint_steps": INTERVAL}
    data: dict[str, Any] = {
        "run": {**steps, "runs_dir": str(folder), "wandb": "disabled", "seed": 3, **run},
        "env": {"id": "CartPole-v1", "max_moves": 100},
        "network": {"kind": "mlp", "hidden": 16, "layers": (16,), **heads},
        "search": {"simulations": 8},
        "replay": {"min_size": 64, "samples_per_insert": 16.0, "segment_length": 50},
        "learner": {
            "batch_size": 32,
            "unroll_steps": 3,
            "td_steps": 4,
            "lr": 1e-3,
            "lr_schedule": "constant",
            "cpus": 0.2,
        },
        "reanalyze": {"ratio": 0.3, "simulations": 2},
        "actors": {"count": 1, "envs_per_actor": 4, "rollout_steps": 40, "num_cpus": 0.2},
        # An evaluator is missed when it is asked: ask often.
        "evaluation": {"interval_steps": 25, "episodes": 2, "final_episodes": 2, "video": False},
    }
    return Config.model_validate(data)


class WatchedRunState(RunState):
    """Runs until `target` learner steps, once there is one; remembers who acts with which weights."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.target = LONG
        self.acting = WeightsVersion(0, 0)

    def stop_reason(self) -> str | None:
        return f"{self.target} learner steps" if self.learner_steps >= self.target else super().stop_reason()

    def train_budget(self) -> int:
        return min(super().train_budget(), max(self.target - self.learner_steps, 0))

    def played(self, stats: RolloutStats) -> None:
        self.acting = stats.version
        super().played(stats)


@dataclass
class Job:
    """A run in `folder`, as its second thread sees it."""

    supervisor: Supervisor
    workers: Workers
    run_state: WatchedRunState
    output: RunOutput
    over: threading.Event = field(default_factory=threading.Event)
    problems: list[str] = field(default_factory=list)
    """What it was waited for in vain: no more harm was done then."""
    _samples: list[tuple[float, int]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.output.folder

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 120.0) -> float:
        """Until it holds; returns how long that took. Broken if it never does, or the run ends before."""
        begin = time.monotonic()
        while not condition():
            if self.over.is_set() or time.monotonic() - begin > seconds:
                raise Broken(f"{what}: not within {time.monotonic() - begin:.0f} s")
            time.sleep(0.02)
        return time.monotonic() - begin

    def sleep(self, seconds: float) -> None:
        if self.over.wait(seconds):
            raise Broken("the run ended")

    def settle(self, worker: WorkerHandle) -> None:
        """Wait until it has done something useful since it was harmed last: what comes then is another fault."""
        self.wait(
            lambda: worker.ready is None and worker.failures == 0 and worker.call is not None, f"{worker.name} at work"
        )

    def replaced(self, worker: WorkerHandle, restarts: int, since: float) -> float:
        """Wait until a new process has answered in its place; returns how long after `since` that was."""
        self.wait(lambda: worker.restarts > restarts, f"{worker.name} found lost")
        self.wait(lambda: worker.ready is None and (worker.answered or 0.0) > since, f"{worker.name} replaced")
        return (worker.answered or 0.0) - since

    def rate(self, begin: float, end: float) -> float:
        """Env steps per second between two moments of the past."""
        inside = [(at, steps) for at, steps in list(self._samples) if begin <= at <= end]
        if len(inside) < 2:
            return 0.0
        (first, low), (last, high) = inside[0], inside[-1]
        return (high - low) / (last - first)

    def watch(self) -> None:
        """Note how far the run is, until it is over."""
        while not self.over.wait(0.1):
            self._samples.append((time.monotonic(), self.run_state.env_steps))


def pid_of(kind: Kind) -> int:
    """The id of the one process of this program that does it, whatever it is busy with. Broken if there is none."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, IndexError):
            title = process.cmdline()[0]
            if title.startswith("ray::") and CLASSES[kind] in title and process.status() != psutil.STATUS_ZOMBIE:
                return process.pid
    raise Broken(f"there is no process of {kind}")


@contextlib.contextmanager
def private_ray() -> Iterator[None]:
    connect(None, "chaos")
    try:
        yield
    finally:
        ray.shutdown()


def run_job(folder: Path, harm: Callable[[Job], None], config: Config | None = None) -> Job:
    """A whole run below `folder`, of the small config if none, with `harm` done to it. It ends soon after."""
    config = config or small_config(folder)
    output = RunOutput.create(config, folder / "run")
    run_state = WatchedRunState(config)
    errors: list[Exception] = []
    with private_ray(), witnessed(), output:
        workers = build_program(config, probe(config), run_state, output)
        supervisor = Supervisor(workers, run_state, config, output)
        job = Job(supervisor, workers, run_state, output)

        def body() -> None:
            try:
                harm(job)
            except Broken as error:
                job.problems.append(str(error))
            except Exception as error:  # handed to the thread that reports it
                errors.append(error)
            finally:
                run_state.target = (run_state.learner_steps // INTERVAL + 2) * INTERVAL

        threads = [threading.Thread(target=body), threading.Thread(target=job.watch)]
        for thread in threads:
            thread.start()
        try:
            supervisor.run()
            supervisor.final_evaluation()
        finally:
            job.over.set()
            for thread in threads:
                thread.join()
    if errors:
        raise errors[0]
    return job
