"""Replay on disk: games in immutable chunks, everything that changes in two small files of each checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import safetensors.numpy

from muzero_ray.errors import CheckpointError
from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.replay.encoding import decode_game, encode_game
from muzero_ray.runtime.checkpoint import list_checkpoints, read_checkpoint_file
from muzero_ray.runtime.replay_store import ChunkRef, ReplayStore
from muzero_ray.types import GameHistory, GameId

logger = logging.getLogger(__name__)

INDEX_FILE = "replay_index.json"
ARRAYS_FILE = "replay_arrays.safetensors"

GAMES_PER_CHUNK = 64


class ReplayArchive:
    """Takes every game a buffer accepts, writes them to `folder` when saved, and brings a saved buffer back."""

    def __init__(self, folder: Path) -> None:
        self._store = ReplayStore(folder)
        self._chunks: list[tuple[ChunkRef, list[GameId]]] = []
        self._pending: list[tuple[GameId, bytes]] = []

    def record(self, game: GameHistory) -> None:
        """Keep `game`, encoded, for the next `save`."""
        self._pending.append((game.id, encode_game(game)))

    def save(self, buffer: ReplayBuffer) -> dict[str, bytes]:
        """Write the games that are on no chunk yet; returns the checkpoint's replay files."""
        kept = buffer.game_ids()
        for start in range(0, len(self._pending), GAMES_PER_CHUNK):
            ids, encoded = zip(*self._pending[start : start + GAMES_PER_CHUNK], strict=True)
            self._chunks.append((self._store.append(encoded), list(ids)))
        self._pending.clear()
        live = set(kept)
        self._chunks = [(ref, ids) for ref, ids in self._chunks if not live.isdisjoint(ids)]
        arrays, meta = buffer.state(games=False)
        index = {"chunks": [{**asdict(ref), "ids": ids} for ref, ids in self._chunks], "buffer": meta}
        return {INDEX_FILE: json.dumps(index).encode(), ARRAYS_FILE: safetensors.numpy.save(arrays)}

    def load(self, buffer: ReplayBuffer, files: Mapping[str, bytes]) -> None:
        """Make `buffer` what it was when `files` were saved. Raises CheckpointError if a part is missing or damaged."""
        if INDEX_FILE not in files or ARRAYS_FILE not in files:
            raise CheckpointError(f"the checkpoint holds no {INDEX_FILE} and {ARRAYS_FILE}: replay can not be restored")
        index = json.loads(files[INDEX_FILE])
        arrays = safetensors.numpy.load(files[ARRAYS_FILE])
        self._chunks = [
            (_chunk_ref(entry), [GameId(*game_id) for game_id in entry["ids"]]) for entry in index["chunks"]
        ]
        kept = {GameId(*row[:3]) for row in arrays["index"].tolist()}
        games: list[GameHistory] = []
        for ref, ids in self._chunks:
            encoded = self._store.read(ref)
            games += [decode_game(data) for data, game_id in zip(encoded, ids, strict=True) if game_id in kept]
        buffer.load_state(arrays, index["buffer"], games)


def prune_chunks(folder: Path, checkpoints: Path) -> None:
    """Delete chunks in `folder` that no checkpoint still there refers to; none if a checkpoint can not be read."""
    names: set[str] = set()
    for path in list_checkpoints(checkpoints):
        try:
            index = json.loads(read_checkpoint_file(path, INDEX_FILE))
        except CheckpointError as error:
            logger.warning("no replay chunk is deleted while a checkpoint is damaged: %s", error)
            return
        names.update(_chunk_ref(entry).name for entry in index["chunks"])
    ReplayStore(folder).prune(names)


def _chunk_ref(entry: dict[str, object]) -> ChunkRef:
    return ChunkRef.parse({key: value for key, value in entry.items() if key != "ids"})
