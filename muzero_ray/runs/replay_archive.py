"""Replay on disk: games in chunks as they come in; everything that changes in a snapshot, once per checkpoint.

What a death costs. Of the replay process (kill -9): no game that was acknowledged. `recover` reads the last snapshot
and the chunks written since; priorities and reanalyzed targets are those of the snapshot, and later games have the ones
they came with. Of the machine, or of the whole run: all after the last checkpoint, from which the run goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.numpy
from safetensors import SafetensorError

from muzero_ray.errors import CheckpointError, ConfigError
from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.replay.encoding import decode_game, encode_game
from muzero_ray.runs.checkpoint import list_checkpoints
from muzero_ray.runs.files import parse_object, read_regular
from muzero_ray.runs.manifest import has_checkpoint_file, read_checkpoint_file
from muzero_ray.runs.replay_store import ChunkRef, ReplayStore, unpack_records, write_records
from muzero_ray.types import Array, GameHistory, GameId

logger = logging.getLogger(__name__)

INDEX_FILE = "replay_index.json"
ARRAYS_FILE = "replay_arrays.safetensors"
CHUNKS_FILE = "replay_chunks.json"
"""Only the names of the chunks: which may be deleted can be told without reading about every game."""

SNAPSHOT_FILE = "snapshot"
"""In the folder of the chunks: the two files above, and the number of the first chunk that they do not know."""

GAMES_PER_CHUNK = 64
_MAX_SNAPSHOT_BYTES = 1 << 34


class _Chunk(NamedTuple):
    """A sealed chunk. entry: JSON of it in the index. newest: number of the newest game in it, or of one before."""

    name: str
    entry: str
    newest: int


class _Saved(NamedTuple):
    """A replay as it was saved. counts: of games up to the end of each chunk."""

    arrays: dict[str, Array]
    buffer: dict[str, Any]
    games: list[GameHistory]
    chunks: list[tuple[ChunkRef, list[GameId]]]
    counts: list[int]


class ReplayArchive:
    """Writes every game to `folder` before the buffer has it, and brings a buffer back. One writer per folder."""

    def __init__(self, folder: Path) -> None:
        self._store = ReplayStore(folder)
        self._chunks: deque[_Chunk] = deque()
        self._open_ids: list[GameId] = []
        self._newest = -1
        """Number of the newest game of the open chunk, or of one that was there before."""

    def add(self, buffer: ReplayBuffer, game: GameHistory, encoded: bytes | None = None) -> bool:
        """`ReplayBuffer.add`, of a game that survives this process. Raises CheckpointError if the disk refuses it.

        encoded: what `encode_game` made of `game`, if it came like that.
        """
        if buffer.knows(game.id):
            return False
        self._store.append(encode_game(game) if encoded is None else encoded)
        try:
            buffer.add(game)
        except Exception:
            self._store.undo()
            raise
        self._open_ids.append(game.id)
        self._newest = buffer.game_numbers.stop - 1
        if len(self._open_ids) == GAMES_PER_CHUNK:
            self._seal()
        return True

    def _seal(self) -> None:
        if (ref := self._store.seal()) is not None:
            self._chunks.append(_Chunk(ref.name, _entry(ref, self._open_ids), self._newest))
            self._open_ids = []

    def save(self, buffer: ReplayBuffer) -> dict[str, bytes]:
        """Make all games durable and note the rest as the point to recover from; returns the checkpoint's files."""
        self._seal()
        while self._chunks and self._chunks[0].newest < buffer.game_numbers.start:
            self._chunks.popleft()  # games leave in the order in which they came
        arrays, meta = buffer.state()
        next_chunk = self._store.next_number()
        chunks = ", ".join(chunk.entry for chunk in self._chunks)
        rest = json.dumps({"next_chunk": next_chunk, "buffer": meta})
        names = {"names": [chunk.name for chunk in self._chunks], "next_chunk": next_chunk}
        files = {
            INDEX_FILE: f'{{"chunks": [{chunks}], {rest[1:]}'.encode(),
            ARRAYS_FILE: safetensors.numpy.save(arrays),
            CHUNKS_FILE: json.dumps(names).encode(),
        }
        self._write_snapshot(files)
        return files

    def load(self, buffer: ReplayBuffer, files: Mapping[str, bytes]) -> None:
        """Make `buffer` what it was when `files` were saved; what was written to the folder since is not of this run.

        No files at all: it stays as it is, which is empty. Raises CheckpointError if a part is missing or damaged.
        """
        if not files:
            self.save(buffer)
            return
        if INDEX_FILE not in files or ARRAYS_FILE not in files:
            raise CheckpointError(f"the checkpoint holds no {INDEX_FILE} and {ARRAYS_FILE}: replay cannot be restored")
        self._seal()  # games of before, if any: what is added from now on must not be among them
        self._write_snapshot(files)
        self._restore(buffer, files[INDEX_FILE], files[ARRAYS_FILE])

    def recover(self, buffer: ReplayBuffer) -> None:
        """After the death of a process that used this folder: everything that was ever acknowledged.

        Raises CheckpointError if the snapshot, or a chunk it names, is damaged.
        """
        path = self._store.folder / SNAPSHOT_FILE
        first = 0
        if path.exists():
            content = read_regular(path, _MAX_SNAPSHOT_BYTES)
            records, end = unpack_records(content)
            if len(records) != 3 or end != len(content):
                raise CheckpointError(f"{path} is damaged. Resume the run: its checkpoint does not need this file")
            first = int(records[0])
            self._restore(buffer, records[1], records[2])
        for ref, games, lost in self._store.salvage(first):
            if lost:
                logger.warning("replay: %d bytes behind the %d games of %s were cut off", lost, ref.count, ref.name)
            found = [decode_game(data) for data in games]
            for game in found:
                buffer.add(game)
            newest = buffer.game_numbers.stop - 1
            self._chunks.append(_Chunk(ref.name, _entry(ref, [game.id for game in found]), newest))

    def _write_snapshot(self, files: Mapping[str, bytes]) -> None:
        """Replace the snapshot. A torn one is never seen; it need not survive the machine, checkpoints do."""
        first = str(self._store.next_number()).encode()
        path = self._store.folder / SNAPSHOT_FILE
        temporary = path.with_name(f".tmp-{SNAPSHOT_FILE}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                write_records(file, [first, files[INDEX_FILE], files[ARRAYS_FILE]])
            os.replace(temporary, path)
        except OSError as error:
            raise CheckpointError(f"{path} was not written: {error}. Free space there") from error

    def games(self, files: Mapping[str, bytes]) -> list[GameHistory]:
        """The games that `files` keep, as they came in, oldest first; nothing is written.

        Raises CheckpointError if a part is missing or damaged.
        """
        with _damage():
            index, arrays = files[INDEX_FILE], files[ARRAYS_FILE]
        return self._read(index, arrays).games

    def _restore(self, buffer: ReplayBuffer, index_json: bytes, arrays_file: bytes) -> None:
        saved = self._read(index_json, arrays_file)
        with _damage():
            buffer.load_state(saved.arrays, saved.buffer, saved.games)
        before = buffer.game_numbers.start - 1
        self._chunks = deque(
            _Chunk(ref.name, _entry(ref, ids), before + count)
            for (ref, ids), count in zip(saved.chunks, saved.counts, strict=True)
        )

    def _read(self, index_json: bytes, arrays_file: bytes) -> _Saved:
        with _damage():
            index = parse_object(index_json, Path(INDEX_FILE))
            arrays = safetensors.numpy.load(arrays_file)
            kept = {GameId(*row[:3]) for row in arrays["index"].tolist()}
            games: list[GameHistory] = []
            chunks = [parse_chunk(entry) for entry in index["chunks"]]
            counts = []
            for ref, ids in chunks:
                encoded = self._store.read(ref)
                for data, game_id in zip(encoded, ids, strict=True):
                    if game_id in kept:
                        kept.remove(game_id)  # should two processes ever have written it, once is enough
                        games.append(decode_game(data))
                counts.append(len(games))
            return _Saved(arrays, index["buffer"], games, chunks, counts)


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """CheckpointError for everything that a forged index can set off in the JSON and array layers; programming errors
    mostly pass."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, SafetensorError) as error:
        raise CheckpointError(f"{INDEX_FILE} and {ARRAYS_FILE} are damaged: {error!r}") from error


def _entry(ref: ChunkRef, ids: Sequence[GameId]) -> str:
    return json.dumps({**asdict(ref), "ids": ids})


def shard_folder(folder: Path, shard: int) -> Path:
    """Where that shard of the replay in `folder` has its chunks: the first one in `folder` itself."""
    return folder / f"shard-{shard}" if shard else folder


def _shard_file(name: str, shard: int) -> str:
    return f"shard-{shard}.{name}" if shard else name


def join_shards(parts: Sequence[Mapping[str, bytes]]) -> dict[str, bytes]:
    """The files of a checkpoint, of what `ReplayArchive.save` returned for each shard."""
    return {_shard_file(name, shard): data for shard, files in enumerate(parts) for name, data in files.items()}


def split_shards(files: Mapping[str, bytes], shards: int) -> list[dict[str, bytes]]:
    """What `ReplayArchive.load` takes, for each shard, out of a checkpoint's files.

    Raises ConfigError if another number of shards was saved: their games, leaves and keys are not made over.
    """
    saved = sum(name.endswith(INDEX_FILE) for name in files)
    if saved not in (0, shards):
        raise ConfigError(
            f"replay.shards={shards}, but this checkpoint holds the replay of {saved}: games do not move from one to "
            f"another. Resume with replay.shards={saved}"
        )
    names = (INDEX_FILE, ARRAYS_FILE)
    return [
        {name: files[found] for name in names if (found := _shard_file(name, shard)) in files}
        for shard in range(shards)
    ]


def prune_chunks(folder: Path, checkpoints: Path, shards: int = 1) -> None:
    """Delete chunks in `folder` that no checkpoint still there refers to; none if a checkpoint cannot be read.

    Chunks that came after the newest checkpoint stay. To be called right after a checkpoint was written.
    """
    for shard in range(shards):
        _prune_shard(shard_folder(folder, shard), checkpoints, shard)


def _prune_shard(folder: Path, checkpoints: Path, shard: int) -> None:
    names: set[str] = set()
    below: int | None = None
    for path in list_checkpoints(checkpoints):
        try:
            used, next_chunk = _named_chunks(path, shard)
        except CheckpointError as error:
            logger.warning("no replay chunk is deleted while a checkpoint is damaged: %s", error)
            return
        names.update(used)
        below = below if below is not None else next_chunk
    ReplayStore(folder).prune(names, below or 0)


def _named_chunks(path: Path, shard: int) -> tuple[list[str], int]:
    """The names of the chunks that a checkpoint needs, and the number of the first that it does not know."""
    name = _shard_file(CHUNKS_FILE, shard)
    if has_checkpoint_file(path, name):
        listed = parse_object(read_checkpoint_file(path, name), path / name)
        return listed["names"], int(listed["next_chunk"])
    name = _shard_file(INDEX_FILE, shard)  # as older programs saved it
    index = parse_object(read_checkpoint_file(path, name), path / name)
    return [parse_chunk(entry)[0].name for entry in index["chunks"]], int(index["next_chunk"])


def parse_chunk(entry: dict[str, Any]) -> tuple[ChunkRef, list[GameId]]:
    """A chunk in the index, and the ids of its games. Raises CheckpointError, and whatever a forged entry sets off."""
    ids = [GameId(*game_id) for game_id in entry["ids"]]
    return ChunkRef.parse({key: value for key, value in entry.items() if key != "ids"}), ids
