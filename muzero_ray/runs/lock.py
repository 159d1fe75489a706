"""One writer per run: a lock file in the run's folder, held for as long as a process may write there.

`lock.N` names its holder and is touched every `BEAT_SECONDS`. A holder counts as dead when its process is gone, if that
can be seen from here (same boot, same process namespace: a container's pid 1 says nothing elsewhere), and otherwise
after `STALE_SECONDS` without a touch. Ages are differences of modification times in that folder, so the clocks of
hosts do not matter.

To take over, a process makes the next number (O_EXCL, atomic on NFS too), and only then looks again: if anybody else
is alive it removes its file and starts over, else it removes the dead ones. Whoever makes a file later sees the earlier
one, so two can back off, but never both stay. A holder that was declared dead by mistake, say because its host was
suspended, finds its file gone and stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from muzero_ray.errors import ConfigError, MuZeroRayError
from muzero_ray.runs.processes import machine, start_time
from muzero_ray.standard_streams import print_message

BEAT_SECONDS = 10.0
"""Between two touches of a lock."""

STALE_SECONDS = 60.0
"""Without a touch, after which a holder that cannot be seen from here counts as dead."""

PATIENCE_SECONDS = 90.0
"""How long `train --resume` waits for a lock: a dead holder's becomes stale within that time."""

POLL_SECONDS = 1.0
"""Between two looks while waiting."""

LOCK_NAME = re.compile(r"lock\.([1-9][0-9]{0,8})")

_MAX_BYTES = 4096


class LockLost(MuZeroRayError):
    """Another process writes to the run now, or its folder is gone."""


@dataclass(frozen=True)
class Holder:
    """A process. machine: where its pid means something. started: its start time, in units of that machine.

    folder: what it holds, as that machine names it.
    """

    host: str
    pid: int
    machine: str
    started: str
    since: str
    folder: str
    token: str

    @staticmethod
    def this_process(folder: Path) -> Holder:
        pid, since = os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")
        started, held, token = start_time(pid) or "", str(folder.resolve()), secrets.token_hex(8)
        return Holder(platform.node(), pid, machine(), started, since, held, token)

    @staticmethod
    def parse(content: bytes) -> Holder | None:
        """None if it is not one: it is being written, or damaged."""
        try:
            value: Any = json.loads(content)
            return Holder(**{**value, "pid": int(value["pid"])})
        except (ValueError, TypeError, LookupError, RecursionError):
            return None

    def is_running(self) -> bool | None:
        """Whether the process is there; None if that cannot be seen from here."""
        if self.machine != machine():
            return None
        started = start_time(self.pid)
        if started is not None:
            return started == self.started
        return None if psutil.pid_exists(self.pid) else False  # other users' processes may be hidden

    def __str__(self) -> str:
        return f"pid {self.pid} on {str(self.host)[:100]}, since {str(self.since)[:40]}"


@dataclass(frozen=True)
class Seen:
    """A lock file as it was found. holder: None if the file does not say. beat: when it was touched last."""

    path: Path
    holder: Holder | None
    beat: float

    def is_live(self, now: float) -> bool:
        """now: of the clock that `beat` is of."""
        running = self.holder.is_running() if self.holder is not None else None
        # A touch that lies ahead of now is of a clock that was set back since: its holder would have touched it again.
        if running is None:
            return abs(now - self.beat) <= STALE_SECONDS
        return running and not self._is_copy()

    def _is_copy(self) -> bool:
        """Whether the folder was copied while its run went on: the run's own lock is elsewhere on this machine."""
        try:
            original = Path(self.holder.folder, self.path.name) if self.holder is not None else self.path
            return not original.samefile(self.path) and Holder.parse(original.read_bytes()) == self.holder
        except (OSError, TypeError, ValueError):
            return False

    def __str__(self) -> str:
        return str(self.holder) if self.holder is not None else f"see {self.path}"


class RunLock:
    """The lock of a run's folder, held by this process; made by `acquire`. A context manager that releases it."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        self._content = content
        self._lost: LockLost | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="run-lock", daemon=True)
        self._thread.start()

    @staticmethod
    def acquire(folder: Path, patience: float = 0.0, say: Callable[[str], None] = print_message) -> RunLock:
        """Become the one writer of `folder`, which exists.

        patience: seconds to wait if there is another one; `say` tells a person about it. Raises ConfigError if it is
        alive after that, OSError if the disk refuses.
        """
        deadline, told = time.monotonic() + patience, False
        while (other := live_lock(folder)) is not None or (lock := _claim(folder)) is None:
            if other is not None and time.monotonic() >= deadline:
                raise ConfigError(
                    f"another process writes to run {folder} ({other}). Stop that one first; if its host is lost, try "
                    f"again {STALE_SECONDS:g} s later; or choose another --run.name"
                )
            if other is not None and not told:
                told = True
                say(f"another process writes to run {folder} ({other}): waiting up to {patience:g} s for it to end")
            time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))  # two that backed off must not meet again
        return lock

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def check(self) -> None:
        """LockLost if the heartbeat found that the lock is gone; costs nothing."""
        if self._lost is not None:
            raise self._lost

    def confirm(self) -> None:
        """LockLost unless the lock is there now: to be asked before what would harm another writer."""
        self.check()
        with contextlib.suppress(OSError):  # a disk that fails now fails the write that follows, too
            if not self._is_there():
                self._lost = LockLost(
                    f"this process has lost the run {self.path.parent}: {self._reason()}. It stops, so that no two "
                    "processes write to one run; its last checkpoint is there"
                )
        self.check()

    def release(self) -> None:
        """Let others write. Harmless when repeated, or when the lock is lost."""
        if self._released.is_set():
            return
        self._released.set()
        self._thread.join(BEAT_SECONDS)
        with contextlib.suppress(OSError):  # what is left is taken over, since this process ends
            if self._is_there():
                self.path.unlink()

    def _is_there(self) -> bool:
        try:
            return self.path.read_bytes() == self._content
        except FileNotFoundError:
            return False

    def _reason(self) -> str:
        with contextlib.suppress(OSError):
            if (other := live_lock(self.path.parent)) is not None:
                return f"another one has taken it over ({other}), because this one gave no sign of life"
        return f"{self.path.name} is gone, so another one has taken it over, or the folder was moved or removed"

    def _keep(self) -> None:
        """Touch the lock until it is released or lost."""
        while not self._released.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the next touch may succeed; writes report what is wrong
                try:
                    self.confirm()
                except LockLost:
                    return
                os.utime(self.path)


def live_lock(folder: Path) -> Seen | None:
    """The lock of a process that may write to `folder` now. Raises OSError."""
    return _first_live(folder, _locks(folder))


def _first_live(folder: Path, locks: list[Path]) -> Seen | None:
    seen = [lock for path in locks if (lock := _read(path)) is not None]
    now = _now(folder) if seen else 0.0
    return next((lock for lock in seen if lock.is_live(now)), None)


def _claim(folder: Path) -> RunLock | None:
    """Make the next lock and, with nobody else alive, keep it. None if somebody was quicker."""
    old = _locks(folder)
    path = folder / f"lock.{1 + max(map(_number, old), default=0)}"
    content = json.dumps(asdict(Holder.this_process(folder))).encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return None
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        rival = _first_live(folder, [other for other in _locks(folder) if other != path])
        if rival is None:
            for dead in old:
                dead.unlink(missing_ok=True)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if rival is not None:
        path.unlink(missing_ok=True)
        return None
    return RunLock(path, content)


def _locks(folder: Path) -> list[Path]:
    try:
        return sorted((path for path in folder.iterdir() if LOCK_NAME.fullmatch(path.name)), key=_number)
    except FileNotFoundError:
        return []


def _number(path: Path) -> int:
    return int(path.name.removeprefix("lock."))


def _read(path: Path) -> Seen | None:
    """None if it is gone. Opened rather than asked for its status: NFS shows the server's state on opening."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return Seen(path, Holder.parse(os.read(descriptor, _MAX_BYTES)), os.fstat(descriptor).st_mtime)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError:  # no file that this program wrote, or not readable for this user: its age is known all the same
        with contextlib.suppress(FileNotFoundError):
            return Seen(path, None, path.lstat().st_mtime)
        return None


def _now(folder: Path) -> float:
    """By the clock of the file system that `folder` is on."""
    with _touched(folder / f".tmp-now-{secrets.token_hex(6)}") as descriptor:
        return os.fstat(descriptor).st_mtime


@contextlib.contextmanager
def _touched(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)
