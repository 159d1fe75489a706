"""Files that are whole or refused: written through to the disk, read only after size and SHA-256 were verified."""

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
MAX_FILE_BYTES = 1 << 36
"""The largest size of any file of a checkpoint or replay."""
_BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_entry(name: object, sha256: object, size: object, source: str) -> None:
    """A plain file name (no way out of the folder), a hex digest and a size, or CheckpointError."""
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
        raise CheckpointError(f"{source}: {str(name)[:200]!r} is not a plain file name")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or type(size) is not int or size < 0:
        raise CheckpointError(f"{source}: size or SHA-256 of {name} is not one")


def parse_object(content: bytes, path: Path) -> dict[str, Any]:
    """A JSON object, or CheckpointError naming `path`, where the content came from."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """A regular file, open for reading: no links, pipes or devices. CheckpointError if it cannot be opened or read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CheckpointError(f"{path} is not a regular file")
            yield file
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def read_regular(path: Path, limit: int) -> bytes:
    """Bytes of a regular file of at most `limit` bytes: no links, pipes or devices."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise CheckpointError(f"{path} has {size} bytes, more than the {limit} that it may have")
        return file.read(limit + 1)


def verify(path: Path, size: int, sha256: str) -> None:
    """CheckpointError unless `path` is a regular file of exactly that size and hash. Needs little memory."""
    with open_regular(path) as file:
        _verify(file, path, size, sha256)


def read_verified(path: Path, size: int, sha256: str) -> bytes:
    """Bytes of a regular file of exactly that size and hash. Raises CheckpointError.

    Nothing is kept in memory before the hash is known to be right: a size may be forged.
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
        raise CheckpointError(f"{path} has {size} bytes, more than the {MAX_FILE_BYTES} that any file may have")
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(_BLOCK), b""):
        digest.update(block)
    if digest.hexdigest() != sha256:
        raise CheckpointError(f"{path} does not match its SHA-256: it is damaged")


def write_synced(path: Path, content: bytes) -> None:
    """A new file whose bytes are on the disk on return. Raises OSError, also if there is one of that name."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_text(path: Path, text: str) -> None:
    """Write `path` anew: what was there stays until all of it is on the disk. Raises OSError."""
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.unlink(missing_ok=True)
    try:
        write_synced(temporary, text.encode())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def append_line(file: IO[bytes], line: str) -> None:
    """Append a line to an unbuffered file, or nothing of it. Raises OSError."""
    data, size = line.encode() + b"\n", os.fstat(file.fileno()).st_size
    try:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, "the disk took only a part of it")
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise


def open_for_lines(path: Path) -> tuple[IO[bytes], int, int]:
    """A regular file, new or old, unbuffered and open for `append_line`; how many lines it has, and where the last
    one begins.

    A torn last line is cut off, so that the next one begins on its own. Raises OSError.
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
    """Delete what is at `path`, a folder or anything else. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sync_folder(path: Path) -> None:
    """Forces the names in a folder to the disk: a rename is durable only after this."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
