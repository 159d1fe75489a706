"""A node joins, leaves and joins again: real raylets on this machine, beside the shared cluster's own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from muzero_ray.actors.worker_handle import ProcessLost, WorkerHandle
from muzero_ray.actors.workers import Workers
from tests.actors.small_worker import Worker
from tests.actors.test_workers import WAIT, Output
from tests.patience import PATIENCE, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ELSEWHERE = "elsewhere"
"""A resource that only the second node has."""


def spawn(kind: Any, index: int, restarts: int) -> Any:
    del kind, index
    return ray.remote(Worker).options(num_cpus=0, resources={ELSEWHERE: 1}).remote(restarts)


def raylets_of(starter: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [child for child in psutil.Process(starter.pid).children() if child.name() == "raylet"]


@contextlib.contextmanager
def second_node() -> Iterator[psutil.Process]:
    """A raylet of its own that has joined; yields its process."""
    address = ray.get_runtime_context().gcs_address
    options = [f"--address={address}", "--num-cpus=0", f"--resources={json.dumps({ELSEWHERE: 1})}", "--block"]
    command = [str(Path(sys.executable).parent / "ray"), "start", *options, "--object-store-memory=80000000"]
    starter = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:

        def joined() -> bool:
            assert starter.poll() is None
            return any(ELSEWHERE in node["Resources"] for node in ray.nodes() if node["Alive"])

        until(joined)
        yield raylets_of(starter)[0]
    finally:
        # SIGKILL: Ray's handler of SIGTERM waits for its processes inside the signal and did not end once.
        processes = [psutil.Process(starter.pid), *psutil.Process(starter.pid).children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        starter.wait(PATIENCE)


def collected(workers: Workers, condition: Any) -> list[Any]:
    """Collect until `condition()`; returns the results of calls."""
    results: list[Any] = []

    def holds() -> bool:
        results.extend(result for _, result in workers.collect(WAIT))
        return bool(condition())

    if not condition():
        until(holds, pause=0.0)
    return results


def test_actors_wait_for_a_node_and_again_when_it_has_left_which_is_no_failure() -> None:
    workers = Workers([WorkerHandle("self_play", 0, spawn("self_play", 0, 0))], spawn, Output())  # type: ignore[arg-type]
    worker = workers.one("self_play")
    try:
        assert list(workers.collect(WAIT)) == []
        assert worker.ready is not None
        with second_node() as raylet:
            assert collected(workers, lambda: worker.ready is None) == []
            assert worker.node != ray.get_runtime_context().get_node_id()
            worker.send(Worker.hang)
            raylet.terminate()
            (lost,) = collected(workers, lambda: worker.restarts)
            assert isinstance(lost, ProcessLost)
            assert str(lost) == "its node left"
        assert list(workers.collect(WAIT)) == []
        assert worker.ready is not None
        assert (worker.restarts, worker.failures, worker.node) == (1, 0, None)
        with second_node():
            assert collected(workers, lambda: worker.ready is None) == []
            time.sleep(max(0.0, worker.retry_at - time.monotonic()))
            worker.send(Worker.work)
            assert collected(workers, lambda: worker.call is None) == [1]
    finally:
        ray.kill(worker.actor)
