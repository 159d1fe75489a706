"""Whether the processes that Ray needs are still there."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import ray

from muzero_ray.actors import ray_internals
from muzero_ray.actors.ray_internals import is_private
from muzero_ray.actors.worker_handle import is_gone
from muzero_ray.errors import ConfigError, in_one_line

ESSENTIAL = ("gcs_server", "raylet")
"""Processes of a private Ray whose death ends it; when one of its agents dies, the raylet dies at once. A run does not
need the others (log monitor, autoscaler's monitor, dashboard)."""

LOOK_SECONDS = 5.0
"""Seconds between two looks at a cluster."""

SILENT_SECONDS = 30.0
"""Seconds for which the head of a cluster may be silent. After 60 s Ray would end the program without a hint."""

CONNECT_SECONDS = 2.0

GONE_SECONDS = 30.0
"""Seconds to wait until a killed process is gone."""


class RayLost(Exception):
    """Ray has lost a process that it needs."""


class RayWatch:
    """Looks after the Ray that this process is connected to, a private one or a cluster."""

    def __init__(self) -> None:
        self._looked = self._answered = time.monotonic()

    def check(self) -> None:
        """Raises RayLost. Cheap: it may be called several times a second."""
        if dead := dead_processes():
            raise RayLost(dead)
        now = time.monotonic()
        if is_private() or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        address = ray.get_runtime_context().gcs_address
        if answers(address):
            self._answered = time.monotonic()
            if left := left_cluster():
                raise RayLost(left)
        elif now - self._answered > SILENT_SECONDS:
            raise RayLost(f"the head of the cluster at {address} has not answered for {now - self._answered:.0f} s")


def dead_processes() -> str | None:
    """Which of the ESSENTIAL processes of a private Ray are dead, in words."""
    dead = [name for name in ray_internals.dead_processes() if name in ESSENTIAL]
    return f"Ray's own {' and '.join(dead)} died" if dead else None


def left_cluster() -> str | None:
    """Whether Ray on this machine is no longer part of the cluster, in words; it may stay like that for a while."""
    return "Ray on this machine has ended" if is_gone(ray.get_runtime_context().get_node_id()) else None


def loss() -> str | None:
    """What Ray has lost, in words, or None."""
    if not ray.is_initialized():
        return None
    return dead_processes() or left_cluster()


def answers(address: str) -> bool:
    """Whether anything listens at `HOST:PORT`."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        return True
    return False


def refuse_unreachable(address: str) -> None:
    """Raises ConfigError within seconds if there is no cluster; Ray would try for minutes.

    A cluster that is gone leaves its address behind, in RAY_ADDRESS or in a file that `auto` reads.
    """
    try:
        where = ray_internals.cluster_address(address)
    except (ConnectionError, OSError, ValueError) as error:
        reason = in_one_line(error)
    else:
        if where is not None and answers(where):
            return
        reason = f"nothing answers at {where}"
    raise ConfigError(
        f"run.address={address}: there is no Ray cluster to join ({reason}). Start it first, with `ray start` "
        "(docs/cluster.md), or give the HOST:PORT of its head; without --address a private Ray is used"
    )


def shut_down(folders: Sequence[Path]) -> None:
    """`ray.shutdown` of a Ray that may have lost processes, or is not complete: in the end none of them runs any more.

    Without their raylet workers live on for a while, and what they still wrote would not be counted. An agent
    would recreate the folder that was removed. folders: in which a private Ray of this process works.
    """
    known = ray_internals.raylet_pids()
    started = processes_in(folders)  # `ray.shutdown` does not know those of a `ray.init` that a signal ended
    if dead_processes():
        # Or `ray.shutdown` would do so only after it has put SIGTERM back to what ends the program.
        ray_internals.kill_processes()
    ray.shutdown()
    retake_sigterm()
    _kill(started)
    raylets = {str(pid) for pid in (*known, *(process.pid for process in started))}
    if raylets:  # looked for only now: no raylet starts any more of them
        _kill([process for process in psutil.process_iter() if _raylet_of(process) in raylets])


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=GONE_SECONDS)


def processes_in(folders: Sequence[Path]) -> list[psutil.Process]:
    """What this process, or a process that it started, has started with one of `folders` on its command line."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in " ".join(process.cmdline()) for folder in folders):
                found.append(process)
    return found


@contextlib.contextmanager
def own_sigterm() -> Iterator[None]:
    """Leave SIGTERM to its present handler: `ray.init` takes it twice, at its beginning and inside its C++."""
    try:
        with ray_internals.without_sigterm_handler():
            yield
    finally:
        retake_sigterm()


def retake_sigterm() -> None:
    """Give SIGTERM back to its handler in Python: Ray's C++ takes it in `ray.init`, and resets it at the end."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _raylet_of(process: psutil.Process) -> str | None:
    """Pid of the raylet that started it, None if it is not a worker, or another user's."""
    try:
        return process.environ().get("RAY_RAYLET_PID")
    except psutil.Error:
        return None
