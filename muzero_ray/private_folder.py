"""Temporary folders that no other user of the machine can enter, and that do not pile up when processes are killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from muzero_ray.errors import ConfigError

PREFIX = "muzero-"

OWNER = "owner"
"""The file in each folder that its process keeps locked. It names the host, since a lock may hold on one host only."""

OTHERS = ("/tmp", "/var/tmp")
"""Where else everybody can have temporary files."""

NAME_BYTES = len(f"/{PREFIX}12345678")
"""What the folder adds to the path of the temporary folder."""

REMOVE_SECONDS = 2.0
"""How long removing is repeated: processes that are just ending still write."""


class PrivateFolder:
    """A new folder of mode 0700 in the temporary folder, at `path`.

    It is removed by `remove`, at the end of the block, or with this process. If the process is killed, the next one
    that makes such a folder removes it: no file in it may be worth keeping.

    parent: where to make it; `temporary_folder()` if None. Raises ConfigError if it cannot be made there.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = temporary_folder() if parent is None else parent
        remove_leftovers(parent)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            lock = _own(self.path)
        except OSError as error:
            raise ConfigError(
                f"TMPDIR={parent}: no folder can be made there ({error.strerror}). Set TMPDIR to a folder that has "
                "room and that you may write to"
            ) from error
        self._remove = weakref.finalize(self, _remove, self.path, lock)

    def remove(self) -> None:
        """Remove it with all that is in it; a second call does nothing."""
        self._remove()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self.remove()


@contextlib.contextmanager
def private_temporary_files() -> Iterator[None]:
    """In the block, temporary files of this process, and of those it starts, go into a private folder.

    Libraries have names there that another user can foresee and take first (torch: `torchinductor_NAME`), and leave
    files behind when they are killed (W&B).
    """
    before = os.environ.get("TMPDIR")
    with PrivateFolder() as folder:
        _use(str(folder))
        try:
            yield
        finally:
            _use(before)


def _use(folder: str | None) -> None:
    if folder is None:
        os.environ.pop("TMPDIR", None)
    else:
        os.environ["TMPDIR"] = folder
    tempfile.tempdir = None  # it is found anew


def temporary_folder() -> Path:
    """Where private folders are made: the shared folder for temporary files, if it can be used.

    Raises ConfigError as `usable_folder` does.
    """
    return usable_folder("TMPDIR", shared_folder())[0]


def shared_folder() -> Path:
    """Where everybody's temporary files go (TMPDIR, or else /tmp), also while those of this process go elsewhere."""
    try:
        folder = Path(tempfile.gettempdir()).resolve()
    except OSError:  # nothing can be written there
        return Path(os.environ.get("TMPDIR", OTHERS[0]))
    private = folder.name.startswith(PREFIX) and (folder / OWNER).is_file()
    return folder.parent if private else folder


def usable_folder(setting: str, wanted: Path, longest: int = 4096) -> tuple[Path, str | None]:
    """`wanted`, or another place for temporary files if it cannot be used; and why it cannot.

    setting: what names it. longest: bytes that its path may have. Raises ConfigError if there is no such place.
    """
    if (reason := _unusable(wanted, longest)) is None:
        return wanted, None
    for other in (Path(place).resolve() for place in OTHERS):
        if _unusable(other, longest) is None:
            return other, f"{setting}={wanted}: {reason}"
    raise ConfigError(f"{setting}={wanted}: {reason}. Set TMPDIR to another folder")


def _unusable(folder: Path, longest: int) -> str | None:
    """Why no private folder can be made there: one that every user may rename could be replaced, for example."""
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return "that is not a folder that can be written to"
    if (length := len(os.fsencode(folder))) > longest:
        return f"its path of {length} bytes is too long for sockets in it (at most {longest})"
    for place in (folder, *folder.parents):
        mode = place.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"every user may rename what is in {place} (mode {stat.S_IMODE(mode):04o}; chmod +t forbids it)"
    return None


def remove_leftovers(parent: Path) -> None:
    """Remove the private folders in `parent` that processes of this user and host left behind when they were killed."""
    for folder in parent.glob(f"{PREFIX}*"):
        if (lock := _lock_of_the_dead(folder)) is not None:
            _remove(folder, lock)


def _own(folder: Path) -> int:
    """Lock the owner file of a new folder; returns its descriptor. It gets its name once it is locked."""
    unnamed = folder / f"{OWNER}.new"
    lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    # A file system without locks keeps leftovers: there, nobody can tell that the owner is gone.
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(lock, f"{socket.gethostname()}\nof process {os.getpid()}; removed once that has ended\n".encode())
    unnamed.rename(folder / OWNER)
    return lock


def _lock_of_the_dead(folder: Path) -> int | None:
    """Descriptor of the owner file if `folder` is this user's, made on this host, and its process is gone."""
    try:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            return None
        lock = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # not one of ours, or gone since
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.read(lock, 300).split(b"\n")[0] == socket.gethostname().encode():
            return lock
    except OSError:  # its process lives
        pass
    os.close(lock)
    return None


def _remove(folder: Path, lock: int) -> None:
    """The owner file goes last: what cannot be removed now, the next process removes."""
    end = time.monotonic() + REMOVE_SECONDS
    while not _emptied(folder) and time.monotonic() < end:
        time.sleep(0.05)
    with contextlib.suppress(OSError):
        if _emptied(folder):
            (folder / OWNER).unlink()
            folder.rmdir()
    os.close(lock)


def _emptied(folder: Path) -> bool:
    """Whether nothing but the owner file is left, after trying to remove all else."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name != OWNER and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != OWNER:
                os.unlink(entry)
        return {entry.name for entry in os.scandir(folder)} <= {OWNER}
    return not folder.exists()
