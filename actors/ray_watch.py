"""Notices that Ray has lost a process or its cluster, and shuts Ray down, also after that."""

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
"""Processes without which a private Ray does not work. If an agent of the raylet dies, the raylet dies at once. A run
does not need the others (log monitor, autoscaler's monitor, dashboard)."""

CHECK_SECONDS = 5.0
"""Seconds between two checks of a cluster."""

SILENT_SECONDS = 30.0
"""Seconds for which the head of a cluster may be silent. After 60 s Ray would end the program without a hint."""

CONNECT_SECONDS = 2.0
"""Seconds to wait for a connection to the head of a cluster."""

GONE_SECONDS = 30.0
"""Seconds to wait until a killed process is gone."""


class RayLost(Exception):
    """Ray has lost a process that it needs."""


class RayWatch:
    """Checks the Ray that this process is connected to, a private one or a cluster."""

    def __init__(self) -> None:
        self._checked = self._answered = time.monotonic()

    def check(self) -> None:
        """Raises RayLost if Ray was lost. Cheap: it may be called several times a second."""
        if dead := dead_processes():
            raise RayLost(dead)
        now = time.monotonic()
        if is_private() or now - self._checked < CHECK_SECONDS:
            return
        self._checked = now
        address = ray.get_runtime_context().gcs_address
        if answers(address):
            self._answered = time.monotonic()
            if left := left_cluster():
                raise RayLost(left)
        elif now - self._answered > SILENT_SECONDS:
            raise RayLost(f"the head of the cluster at {address} has not answered for {now - self._answered:.0f} s")


def dead_processes() -> str | None:
    """Which of the ESSENTIAL processes of a private Ray are dead, in words, or None."""
    dead = [name for name in ray_internals.dead_processes() if name in ESSENTIAL]
    return f"Ray's own {' and '.join(dead)} died" if dead else None


def left_cluster() -> str | None:
    """A message if this machine is no longer part of the cluster, else None.

    Ray's processes on it may live on for a while.
    """
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
    """End Ray with all its processes, even if some are dead or not all had started.

    `ray.shutdown` alone may leave workers, which live on without a raylet for a while and write what nobody counts, and
    agents, which recreate a folder that was removed. folders: in which a private Ray of this process works.
    """
    known = ray_internals.raylet_pids()
    started = processes_in(folders)  # `ray.shutdown` does not know those of a `ray.init` that a signal interrupted
    if dead_processes():
        # `ray.shutdown` would kill them, too, but only after it has reset SIGTERM to end this program.
        ray_internals.kill_processes()
    ray.shutdown()
    restore_sigterm_handler()
    _kill(started)
    raylets = {str(pid) for pid in (*known, *(process.pid for process in started))}
    if raylets:  # workers last, when no raylet can start more
        _kill([process for process in psutil.process_iter() if _raylet_of(process) in raylets])


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=GONE_SECONDS)


def processes_in(folders: Sequence[Path]) -> list[psutil.Process]:
    """Descendants of this process that have one of `folders` in their command line."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in " ".join(process.cmdline()) for folder in folders):
                found.append(process)
    return found


@contextlib.contextmanager
def keep_sigterm_handler() -> Iterator[None]:
    """In this context `ray.init` leaves SIGTERM to its handler, which it would replace twice, in Python and in C++."""
    try:
        with ray_internals.without_sigterm_handler():
            yield
    finally:
        restore_sigterm_handler()


def restore_sigterm_handler() -> None:
    """Give SIGTERM back to its handler in Python: Ray's C++ replaces it in `ray.init`, and resets it at the end."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _raylet_of(process: psutil.Process) -> str | None:
    """Pid of the raylet that started this worker; None if it is not a worker, or belongs to another user."""
    try:
        return process.environ().get("RAY_RAYLET_PID")
    except psutil.Error:
        return None
