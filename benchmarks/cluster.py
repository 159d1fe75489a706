"""The distributed program on a private Ray of this machine, and what its processes use of the CPUs."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import ray

from muzero_ray.actors.cluster import disconnect, start_private
from muzero_ray.actors.supervisor import Supervisor
from muzero_ray.actors.workers import Workers
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.control.run_state import RunState
from muzero_ray.launch import build_program
from muzero_ray.runs.output import RunOutput
from muzero_ray.training.results import TrainStats

START_TIMEOUT = 600.0
"""Seconds for all processes to start: each imports torch, a few at a time."""


@contextlib.contextmanager
def private_ray() -> Iterator[None]:
    """The Ray of a run; it ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    start_private("benchmarks")
    try:
        yield
    finally:
        disconnect()


class WatchedRunState(RunState):
    """Adds up how long the learner's calls took."""

    train_seconds = 0.0

    def trained(self, stats: TrainStats) -> None:
        super().trained(stats)
        self.train_seconds += stats.seconds


class RunningWorkers:
    """The processes of a run of `config`, all of them up, and supervisors to drive them."""

    def __init__(self, config: Config, workers: Workers, output: RunOutput) -> None:
        self.config = config
        self.workers = workers
        self._output = output
        ray.get([worker.actor.__ray_ready__.remote() for worker in workers.handles], timeout=START_TIMEOUT)

    def run(self, run_state: RunState, watch: Callable[[], None]) -> None:
        """Train until `watch`, in a thread beside the supervisor, returns; calls in flight end, a checkpoint follows.

        What `watch` raises is raised here.
        """
        supervisor = Supervisor(self.workers, run_state, self.config, self._output)
        errors: list[BaseException] = []

        def watch_then_stop() -> None:
            try:
                watch()
            except BaseException as error:
                errors.append(error)
            finally:
                supervisor.request_stop()

        thread = threading.Thread(target=watch_then_stop, daemon=True)
        thread.start()
        supervisor.run()
        thread.join()
        if errors:
            raise errors[0]

    def processes(self) -> dict[str, list[psutil.Process]]:
        """By kind of worker; `driver` is this process, `ray` all else that it has started."""
        found: dict[str, list[psutil.Process]] = {"driver": [psutil.Process()]}
        for worker in self.workers.handles:
            pid: Any = ray.get(worker.actor.__ray_call__.remote(lambda _worker: os.getpid()), timeout=START_TIMEOUT)
            found.setdefault(worker.kind, []).append(psutil.Process(int(pid)))
        known = {process.pid for processes in found.values() for process in processes}
        found["ray"] = [child for child in psutil.Process().children(recursive=True) if child.pid not in known]
        return found


@contextlib.contextmanager
def running_program(config: Config) -> Iterator[RunningWorkers]:
    """Start the program of a new run, in a folder that is deleted afterwards; what it says goes to stderr."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        output = RunOutput.create(config, Path(folder) / "run")
        with output:
            workers = build_program(config, probe(config), RunState(config), output)
            try:
                yield RunningWorkers(config, workers, output)
            finally:
                for worker in workers.handles:
                    ray.kill(worker.actor)


def cpu_seconds(processes: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """CPU time of each kind so far, all threads, user and system."""
    return {kind: sum(_times(process) for process in held) for kind, held in processes.items()}


def _times(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # an idle worker that Ray has let go
        return 0.0
    return float(times.user + times.system)


def sleep_until(moment: float) -> float:
    """Until `moment` of `time.monotonic()`; returns when it really was."""
    time.sleep(max(0.0, moment - time.monotonic()))
    return time.monotonic()
