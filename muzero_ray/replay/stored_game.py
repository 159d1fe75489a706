"""A game as replay keeps it: one row per position, ready to be cut into batch windows, and packed frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muzero_ray.replay.frames import FrameCodec, PackedFrames
from muzero_ray.replay.targets import Horizon, n_step_values
from muzero_ray.types import Array, BoolArray, FloatArray, GameHistory, GameId, LongArray, WeightsVersion, stacked

# Python and numpy objects of one stored game, beside their data: measured with tracemalloc.
_OBJECT_BYTES = 700


@cache
def row_dtype(num_actions: int) -> np.dtype[Any]:
    """One position of a game, packed.

    action: taken here. reward: earned on the way here (`rewards[t - 1]`). value: n-step target. root_value, policy:
    from search. legal: bits. At the end of the game action and policy are 0.
    """
    return np.dtype(
        [
            ("action", np.int32),
            ("reward", np.float32),
            ("value", np.float32),
            ("root_value", np.float32),
            ("policy", np.float32, (num_actions,)),
            ("to_play", np.int8),
            ("legal", np.uint8, ((num_actions + 7) // 8,)),
        ]
    )


@dataclass(slots=True)
class StoredGame:
    """data: rows `[T + 1]` of `dtype` as bytes: one object, so that a draw from a large replay misses the cache less
    often. target_version: the weights that searched policies and root values last.
    first_leaf: index in the sum tree of the first owned position; the others follow. reanalyzed: targets were replaced.
    """

    id: GameId
    data: bytes
    dtype: np.dtype[Any]
    frames: PackedFrames
    context: int
    owned: int
    terminated: bool
    truncated: bool
    version: WeightsVersion
    target_version: WeightsVersion
    first_leaf: int
    reanalyzed: bool = False

    def __len__(self) -> int:
        """Number of steps T."""
        return len(self.data) // self.dtype.itemsize - 1

    @property
    def rows(self) -> Array:
        """`[T + 1]`, read-only."""
        return np.frombuffer(self.data, self.dtype)

    @property
    def nbytes(self) -> int:
        return len(self.data) + self.frames.nbytes + _OBJECT_BYTES

    @property
    def searched(self) -> int:
        """Positions that have a search: all live ones, so the last state only where the game was truncated."""
        return len(self) + int(self.truncated)


def store(game: GameHistory, codec: FrameCodec, horizon: Horizon, *, first_leaf: int) -> StoredGame:
    """A copy of `game` that shares no memory with it."""
    rows = np.zeros(len(game) + 1, row_dtype(game.policies.shape[1]))
    rows["action"][:-1] = game.actions
    rows["reward"][1:] = game.rewards
    rows["to_play"] = game.to_play
    rows["legal"] = np.packbits(game.legal, axis=1)
    stored = StoredGame(
        id=game.id,
        data=rows.tobytes(),
        dtype=rows.dtype,
        frames=codec.pack(game.observations),
        context=game.context,
        owned=game.owned,
        terminated=game.terminated,
        truncated=game.truncated,
        version=game.version,
        target_version=game.version,
        first_leaf=first_leaf,
    )
    set_targets(stored, game.policies, game.root_values, horizon)
    return stored


def set_targets(game: StoredGame, policies: FloatArray, root_values: FloatArray, horizon: Horizon) -> None:
    """Search results of `game.target_version`: policies `[T, A]`, root_values `[T + 1]`; n-step targets follow."""
    rows = game.rows.copy()
    rows["policy"][:-1] = policies
    rows["root_value"] = root_values
    n = horizon.num_rewards(game.target_version.step - game.version.step)
    rows["value"] = n_step_values(rows["reward"][1:], root_values, rows["to_play"], n=n, discount=horizon.discount)
    game.data = rows.tobytes()


def legal_actions(game: StoredGame) -> Array:
    """`[T + 1, A]` bool."""
    rows = game.rows
    return np.unpackbits(rows["legal"], axis=1, count=rows["policy"].shape[1]).astype(np.bool_)


@dataclass(frozen=True)
class StaleGame:
    """What reanalyze needs of a game: its `S` searchable positions, that is T, or T + 1 if it was truncated.

    game: its number in replay. observations: `[S, C, H, W]` uint8 or `[S, D]` float32, frames already stacked.
    legal: `[S, A]`. to_play: `[S]`. version: the weights its present targets come from.
    """

    game: int
    observations: Array
    legal: BoolArray
    to_play: NDArray[np.int8]
    version: WeightsVersion


def stale_game(number: int, game: StoredGame, codec: FrameCodec, *, stack: int) -> StaleGame:
    """Game `number` of replay, copied for reanalyze."""
    count = game.searched
    frames = gather_frames([game], np.zeros(1, np.int64), codec, stack=stack, ahead=count - 1)
    return StaleGame(
        game=number,
        observations=stacked(frames, stack)[0].copy(),
        legal=legal_actions(game)[:count],
        to_play=game.rows["to_play"][:count].copy(),
        version=game.target_version,
    )


def gather_rows(games: list[StoredGame], positions: LongArray, length: int) -> Array:
    """Rows `[B, length]` of `games` from `positions` on, all zero past the end of a game."""
    dtype = games[0].dtype
    size, width = dtype.itemsize, dtype.itemsize * length
    # Bytes, because numpy copies structured rows field by field, five times slower.
    starts = (positions * size).tolist()
    cut = [game.data[start : start + width].ljust(width, b"\0") for game, start in zip(games, starts, strict=True)]
    return np.frombuffer(b"".join(cut), dtype).reshape(len(games), length)


def gather_frames(games: list[StoredGame], positions: LongArray, codec: FrameCodec, *, stack: int, ahead: int) -> Array:
    """Frames `[B, stack + ahead, ...]` from `stack - 1` before each of `positions` to `ahead` behind it, each once.

    Missing ones, before a game's first and past its last, are zeros.
    """
    length = stack + ahead
    frames = np.empty((len(games), length, *codec.shape), codec.dtype)
    starts = (positions + 1 - stack).tolist()
    for out, game, position in zip(frames, games, starts, strict=True):
        start = game.context + position
        low, high = max(-start, 0), min(game.frames.count - start, length)
        out[:low] = 0
        out[high:] = 0
        codec.read(game.frames, start + low, start + high, out[low:high])
    return frames
