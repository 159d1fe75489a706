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

from actors.program import Program
from actors.slots import ProcessLost, Slot
from tests.actors.test_program import WAIT, Output, Worker

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ELSEWHERE = "elsewhere"
"""A resource that only the second node has."""


def spawn(kind: Any, index: int, restarts: int) -> Any:
    del kind, index
    return ray.remote(Worker).options(num_cpus=0, resources={ELSEWHERE: 1}).remote(restarts)


@contextlib.contextmanager
def second_node() -> Iterator[psutil.Process]:
    """A raylet of its own that has joined; yields its process."""
    address = ray.get_runtime_context().gcs_address
    options = [f"--address={address}", "--num-cpus=0", f"--resources={json.dumps({ELSEWHERE: 1})}", "--block"]
    command = [str(Path(sys.executable).parent / "ray"), "start", *options, "--object-store-memory=80000000"]
    starter = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            raylets = [child for child in psutil.Process(starter.pid).children() if child.name() == "raylet"]
            if raylets and any(ELSEWHERE in node["Resources"] for node in ray.nodes() if node["Alive"]):
                break
            assert time.monotonic() < deadline
            assert starter.poll() is None
            time.sleep(0.1)
        yield raylets[0]
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            raylets = [child for child in psutil.Process(starter.pid).children() if child.name() == "raylet"]
            for raylet in raylets:
                raylet.terminate()
            psutil.wait_procs(raylets, timeout=30)
        starter.terminate()  # with its raylet alive it would drain that for 30 s first
        with contextlib.suppress(subprocess.TimeoutExpired):
            starter.wait(60)
        starter.kill()


def until(program: Program, condition: Any) -> list[Any]:
    """Collect until `condition()`; returns the results of calls."""
    results: list[Any] = []
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        results += [result for _, result in program.collect(WAIT)]
    return results


def test_actors_wait_for_a_node_and_again_when_it_has_left_which_is_no_failure() -> None:
    program = Program([Slot("self_play", 0, spawn("self_play", 0, 0))], spawn, Output())  # type: ignore[arg-type]
    slot = program.one("self_play")
    try:
        assert list(program.collect(WAIT)) == []
        assert slot.ready is not None
        with second_node() as raylet:
            assert until(program, lambda: slot.ready is None) == []
            assert slot.node != ray.get_runtime_context().get_node_id()
            slot.send("hang")
            raylet.terminate()
            (lost,) = until(program, lambda: slot.restarts)
            assert isinstance(lost, ProcessLost)
            assert str(lost) == "its node left"
        assert list(program.collect(WAIT)) == []
        assert slot.ready is not None
        assert (slot.restarts, slot.failures, slot.node) == (1, 0, None)
        with second_node():
            assert until(program, lambda: slot.ready is None) == []
            time.sleep(max(0.0, slot.retry_at - time.monotonic()))
            slot.send("work")
            assert until(program, lambda: slot.call is None) == [1]
    finally:
        ray.kill(slot.handle)
