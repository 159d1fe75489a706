"""Files that are whole or refused: written through to the disk, read only after size and SHA-256 were verified."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import IO, Any

from muzero_ray.errors import CheckpointError

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
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
        raise CheckpointError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


def read_regular(path: Path, limit: int) -> bytes:
    """Bytes of a regular file of at most `limit` bytes: no links, pipes or devices."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                raise CheckpointError(f"{path} is not a regular file of at most {limit} bytes ({status.st_size})")
            return file.read(limit + 1)
    except OSError as error:
        raise CheckpointError(f"{path} can not be read: {error.strerror}") from error


def read_verified(path: Path, size: int, sha256: str) -> bytes:
    """Bytes of a regular file of exactly that size and hash. Raises CheckpointError."""
    content = read_regular(path, size)
    if len(content) != size:
        raise CheckpointError(f"{path} has {len(content)} bytes, its manifest says {size}: it is truncated")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(f"{path} does not match its SHA-256: it is damaged")
    return content


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


def sync_folder(path: Path) -> None:
    """Forces the names in a folder to the disk: a rename is durable only after this."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
