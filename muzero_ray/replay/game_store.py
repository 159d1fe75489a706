"""Which games are kept: the newest, whole, within a number of transitions and of bytes."""

from __future__ import annotations

import numpy as np

from muzero_ray.errors import ConfigError
from muzero_ray.replay.fifo_table import FifoTable
from muzero_ray.replay.frames import FrameCodec
from muzero_ray.replay.stored_game import StoredGame, store
from muzero_ray.replay.targets import Horizon
from muzero_ray.types import GameHistory, IntArray, LongArray, WeightsVersion

# Per transition, beside the game itself: its game's number and its position here, and in the sum tree up to 4 doubles.
_INDEX_BYTES = 8 + 4 + 32

_COLUMNS = 8
_CHANGING = slice(3, 7)
"""Target version, first leaf, reanalyzed."""


class GameStore:
    """Games by number. Each owned transition has a *leaf*, its place in a ring of `capacity`: a game's are successive.

    horizon: of the value targets kept with every game.
    """

    def __init__(self, capacity: int, capacity_bytes: int, horizon: Horizon) -> None:
        self.capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._horizon = horizon
        self._leaf_game: LongArray = np.zeros(capacity, np.int64)
        self._leaf_position: IntArray = np.zeros(capacity, np.int32)
        # Numbered in order of insertion: exactly `_oldest .. next_number - 1` are kept.
        self.games: dict[int, StoredGame] = {}
        self._oldest = 0
        self.next_number = 0
        self.next_leaf = 0
        self.codec: FrameCodec | None = None
        self.num_actions = 0
        self.size = 0
        self.bytes = 0
        self.searched_at = 0
        """Sum over transitions of the learner step whose weights searched their targets."""
        self._table = FifoTable(_COLUMNS)

    @property
    def numbers(self) -> range:
        """The numbers of the games kept, oldest first."""
        return range(self._oldest, self.next_number)

    @property
    def table(self) -> LongArray:
        """`[8, G]`, oldest first: id, target version, first leaf, reanalyzed, length. A view, until the next change."""
        return self._table.columns

    def start_at(self, number: int) -> None:
        """Number of the first game, for a store that is still empty (restoring)."""
        self._oldest = self.next_number = number

    def insert(self, game: GameHistory) -> tuple[StoredGame, list[StoredGame]]:
        """Keep a copy of `game`; returns it and the games that had to leave for it.

        Raises ValueError if its frames or actions are unlike those kept, ConfigError if it could never fit.
        """
        self._check_kind(game)
        if game.owned > self.capacity:
            raise ConfigError(
                f"replay.capacity={self.capacity} is below the {game.owned} transitions of one game: it could never "
                "be kept. Raise replay.capacity or lower replay.segment_length"
            )
        codec = self.codec or FrameCodec(game.observations.shape[1:], game.observations.dtype)
        stored = store(game, codec, self._horizon, first_leaf=self.next_leaf)
        cost = self._cost(stored)
        if cost > self._capacity_bytes:
            raise ConfigError(
                f"replay.capacity_bytes={self._capacity_bytes} (of one shard) is below the {cost} bytes of one game: "
                "it could never be kept. Raise replay.capacity_bytes or lower replay.segment_length"
            )
        evicted = []
        while self.size + stored.owned > self.capacity or self.bytes + cost > self._capacity_bytes:
            evicted.append(self._evict())
        self.codec, self.num_actions = codec, game.policies.shape[1]
        self.games[self.next_number] = stored
        self._table.append((*stored.id, *stored.target_version, stored.first_leaf, int(stored.reanalyzed), len(stored)))
        self.searched_at += stored.owned * stored.target_version.step
        leaves = self.leaves(stored)
        self._leaf_game[leaves] = self.next_number
        self._leaf_position[leaves] = np.arange(stored.owned)
        self.next_number += 1
        self.next_leaf = (self.next_leaf + stored.owned) % self.capacity
        self.size += stored.owned
        self.bytes += cost
        return stored, evicted

    def searched_again(self, number: int, version: WeightsVersion) -> StoredGame:
        """Game `number` is about to get targets that weights of `version` searched; returns it."""
        game = self.games[number]
        self.searched_at += game.owned * (version.step - game.target_version.step)
        game.target_version, game.reanalyzed = version, True
        self._table.columns[_CHANGING, number - self._oldest] = (*version, game.first_leaf, 1)
        return game

    def leaves(self, game: StoredGame) -> LongArray:
        """Leaves `[owned]` of `game`, in order of position."""
        return (game.first_leaf + np.arange(game.owned)) % self.capacity

    def locate(self, leaves: LongArray) -> tuple[LongArray, LongArray]:
        """Game numbers and positions `[n]` of `leaves` `[n]`."""
        return self._leaf_game[leaves], self._leaf_position[leaves].astype(np.int64)

    def _check_kind(self, game: GameHistory) -> None:
        if self.codec is None:
            return
        got = (game.observations.shape[1:], game.observations.dtype, game.policies.shape[1])
        expected = (self.codec.shape, self.codec.dtype, self.num_actions)
        if got != expected:
            raise ValueError(f"game {tuple(game.id)}: frames and actions {got}, replay holds {expected}")

    def _evict(self) -> StoredGame:
        game = self.games.pop(self._oldest)
        self._table.drop_first()
        self._oldest += 1
        self.size -= game.owned
        self.searched_at -= game.owned * game.target_version.step
        self.bytes -= self._cost(game)
        return game

    @staticmethod
    def _cost(game: StoredGame) -> int:
        return game.nbytes + game.owned * _INDEX_BYTES
