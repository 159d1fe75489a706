"""Reading files with checks of type, size and SHA-256, and writing files and lines that survive a crash."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil

from muzero_ray.errors import CheckpointError

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
"""Names of files in a checkpoint or replay: no `/`, so that none leads out of the folder, and none hidden."""
MAX_FILE_BYTES = 1 << 36
"""The largest size of a file in a checkpoint or replay: 64 GiB."""
_BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_entry(name: object, sha256: object, size: object, source: str) -> None:
    """CheckpointError unless these are a PLAIN_NAME, a SHA-256 in hex and a size in bytes. source: what names them."""
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
        raise CheckpointError(f"{source}: {str(name)[:200]!r} is not a plain file name")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or type(size) is not int or size < 0:
        raise CheckpointError(f"{source}: {name} has no valid size or SHA-256")


def parse_object(content: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in `content`, which was read from `path`. Raises CheckpointError if it is anything else."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file (no link, pipe or device) for reading. CheckpointError if it cannot be opened or read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CheckpointError(f"{path} is not a regular file")
            yield file
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file. Raises CheckpointError, also if it has more than `limit` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise CheckpointError(f"{path} has {size} bytes, more than the {limit} allowed")
        return file.read(limit + 1)


def verify(path: Path, size: int, sha256: str) -> None:
    """CheckpointError unless `path` is a regular file of that size (bytes) and SHA-256. Reads it in small blocks."""
    with open_regular(path) as file:
        _verify(file, path, size, sha256)


def read_verified(path: Path, size: int, sha256: str) -> bytes:
    """The content of a regular file that passes `verify`. Raises CheckpointError, also if memory is short for it.

    The hash is checked in small blocks first: a forged size must not fill the memory.
    """
    with open_regular(path) as file:
        _verify(file, path, size, sha256)
        free = psutil.virtual_memory().available
        if size > free:
            raise CheckpointError(f"{path} has {size} bytes, and only {free} bytes of memory are free")
        file.seek(0)
        return file.read(size)


def _verify(file: IO[bytes], path: Path, size: int, sha256: str) -> None:
    found = os.fstat(file.fileno()).st_size
    if found != size:
        reason = "it is truncated" if found < size else "it is damaged"
        raise CheckpointError(f"{path} has {found} bytes, its manifest says {size}: {reason}")
    if size > MAX_FILE_BYTES:
        raise CheckpointError(f"{path} has {size} bytes, more than the {MAX_FILE_BYTES} allowed")
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(_BLOCK), b""):
        digest.update(block)
    if digest.hexdigest() != sha256:
        raise CheckpointError(f"{path} does not match its SHA-256: it is damaged")


def write_synced(path: Path, content: bytes) -> None:
    """Make a new file whose content is on the disk on return. Raises OSError, also if `path` exists already."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_text(path: Path, text: str) -> None:
    """Replace the content of `path`. The old content stays until the new one is on the disk. Raises OSError."""
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.unlink(missing_ok=True)
    try:
        write_synced(temporary, text.encode())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def append_line(file: IO[bytes], line: str) -> None:
    """Append `line` to an unbuffered file. If that fails, OSError, and the file is as before."""
    data, size = line.encode() + b"\n", os.fstat(file.fileno()).st_size
    try:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, "only a part of it was written")
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise


def open_for_lines(path: Path) -> tuple[IO[bytes], int, int]:
    """Open or make a file for `append_line`. Returns it, its number of lines, and where (byte) the last one begins.

    A last line without its end is cut off, so that the next one starts on a line of its own. Raises OSError.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    file = open(descriptor, "ab", buffering=0)  # noqa: SIM115 (the caller closes it)
    count = offset = 0
    last, end = 0, 0
    while block := os.pread(descriptor, _BLOCK, offset):
        count += block.count(b"\n")
        if (final := block.rfind(b"\n")) >= 0:
            before = block.rfind(b"\n", 0, final)
            last, end = (offset + before + 1 if before >= 0 else end), offset + final + 1
        offset += len(block)
    os.ftruncate(descriptor, end)
    return file, count, last


def remove(path: Path) -> None:
    """Delete a file, a link, or a folder with all its content. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sync_folder(path: Path) -> None:
    """Write the names in a folder through to the disk. Only after that do new files and renames survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
