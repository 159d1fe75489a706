"""Games on disk as they come in: appended to a file that a dead process leaves readable, immutable once it is full."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from muzero_ray.errors import CheckpointError
from muzero_ray.runs.files import check_entry, read_regular, read_verified, sync_folder

logger = logging.getLogger(__name__)

MAGIC = b"MZCHUNK2"
_RECORD = struct.Struct("<Q32s")  # length, SHA-256
_NAME = re.compile(r"([0-9]{10})-[0-9a-f]{12}\.games")
_MAX_CHUNK_BYTES = 1 << 34


@dataclass(frozen=True)
class ChunkRef:
    """Names one immutable chunk file: SHA-256 and size of the file, and how many games it holds.

    `dataclasses.asdict` gives its JSON form; `ChunkRef.parse` takes it back.
    """

    name: str
    sha256: str
    bytes: int
    count: int

    @staticmethod
    def parse(value: object) -> ChunkRef:
        """From untrusted JSON. Raises CheckpointError."""
        if not isinstance(value, dict) or set(value) != {"name", "sha256", "bytes", "count"}:
            raise CheckpointError(f"replay index: {str(value)[:200]!r} is not a chunk reference")
        check_entry(value["name"], value["sha256"], value["bytes"], "replay index")
        if type(value["count"]) is not int or not 0 <= value["count"] <= value["bytes"]:
            raise CheckpointError(
                f"replay index: chunk {value['name']}: count={str(value['count'])[:50]} is impossible"
            )
        return ChunkRef(**value)


def write_records(file: IO[bytes], records: Iterable[bytes]) -> None:
    """A whole chunk: `MZCHUNK2`, then for each record its length (u64, little-endian), SHA-256 and bytes."""
    file.write(MAGIC)
    for record in records:
        file.write(_header(record))
        file.write(record)


def unpack_records(content: bytes) -> tuple[list[bytes], int]:
    """The whole records at the start of a chunk, and how many bytes they and the magic take: all, if it is whole."""
    if content[: len(MAGIC)] != MAGIC:
        return [], 0
    records: list[bytes] = []
    offset = len(MAGIC)
    while offset + _RECORD.size <= len(content):
        length, digest = _RECORD.unpack_from(content, offset)
        start = offset + _RECORD.size
        record = content[start : start + length]
        if len(record) != length or hashlib.sha256(record).digest() != digest:
            break
        records.append(record)
        offset = start + length
    return records, offset


def _header(record: bytes) -> bytes:
    return _RECORD.pack(len(record), hashlib.sha256(record).digest())


def _framed(record: bytes) -> bytes:
    return _header(record) + record


class ReplayStore:
    """Chunk files of encoded games in one folder; one writer.

    `append` hands a game to the operating system before it returns: the death of the process loses nothing. Only
    `seal` waits for the disk, because a machine that goes down goes on from a checkpoint, and that names sealed chunks
    only. Chunks are numbered upwards for ever, over all runs of the program on this folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._open: Path | None = None
        self._sizes: list[int] = []  # of the open chunk, before each of its games
        self._next: int | None = None  # the listing of a long run's folder takes a while

    @property
    def open_games(self) -> int:
        """Games in the chunk that is being written."""
        return len(self._sizes)

    def append(self, game: bytes) -> None:
        """Write `game`. Raises CheckpointError, and leaves no trace of it, if the disk refuses."""
        with self._writing("a game"):
            if self._open is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                number = self.next_number()
                self._next = number + 1
                path = self.folder / f"{number:010d}-{secrets.token_hex(6)}.games"
                path.write_bytes(MAGIC)
                self._open = path
            size = self._open.stat().st_size
            try:
                with self._open.open("ab", buffering=0) as file:
                    frame = _framed(game)
                    if file.write(frame) != len(frame):
                        raise OSError("only a part of it was written")
            except OSError:
                os.truncate(self._open, size)
                raise
            self._sizes.append(size)

    def undo(self) -> None:
        """Take the last game of the open chunk back."""
        assert self._open is not None
        os.truncate(self._open, self._sizes.pop())

    def seal(self) -> ChunkRef | None:
        """Finish the open chunk, durably; None if there is none. Raises CheckpointError if the disk refuses."""
        if self._open is None:
            return None
        with self._writing("a chunk"):
            with self._open.open("rb") as file:
                os.fsync(file.fileno())
                content = file.read()
            sync_folder(self.folder)
        ref = ChunkRef(self._open.name, hashlib.sha256(content).hexdigest(), len(content), len(self._sizes))
        self._open, self._sizes = None, []
        return ref

    def next_number(self) -> int:
        """One more than that of any chunk in the folder."""
        if self._next is None:
            self._next = 1 + max((number for number, _ in self._chunks()), default=-1)
        return self._next

    def read(self, ref: ChunkRef) -> list[bytes]:
        """The games of a chunk, after its size and hash were verified. Raises CheckpointError."""
        check_entry(ref.name, ref.sha256, ref.bytes, "replay index")
        path = self.folder / ref.name
        content = read_verified(path, ref.bytes, ref.sha256)
        games, end = unpack_records(content)
        if end != len(content) or len(games) != ref.count:
            raise CheckpointError(f"{path} is not a replay chunk of {ref.count} whole games")
        return games

    def salvage(self, first: int) -> Iterator[tuple[ChunkRef, list[bytes], int]]:
        """Chunks numbered `first` and up that a process left behind, in order: (chunk, its whole games, bytes cut off).

        What follows the last whole game was never acknowledged and is cut off. What is left is durable then.
        """
        for number, path in sorted(self._chunks()):
            if number < first or path == self._open:
                continue
            content = read_regular(path, _MAX_CHUNK_BYTES)
            games, end = unpack_records(content)
            with self._writing("the end of a chunk"), path.open("r+b") as file:
                file.truncate(end)
                os.fsync(file.fileno())
                sync_folder(self.folder)
            whole = content[:end]
            ref = ChunkRef(path.name, hashlib.sha256(whole).hexdigest(), end, len(games))
            yield ref, games, len(content) - end

    def prune(self, keep: Collection[str], below: int) -> int:
        """Delete chunks numbered less than `below` whose name is not in `keep`. Returns how many went.

        keep: the names in the replay index of every checkpoint still there, not only the newest: loading may walk back.
        """
        stale = [path for number, path in self._chunks() if number < below and path.name not in keep]
        gone = 0
        for path in stale:
            try:
                path.unlink(missing_ok=True)
                gone += 1
            except OSError as error:  # it takes space, and harms nothing
                logger.warning("%s is not needed any more and was not deleted: %s", path, error.strerror)
        return gone

    def _chunks(self) -> list[tuple[int, Path]]:
        paths = list(self.folder.iterdir()) if self.folder.is_dir() else []
        return [(int(match[1]), path) for path in paths if (match := _NAME.fullmatch(path.name))]

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"{what} of the replay was not written to {self.folder}: {error}. Free space there"
            ) from error
