"""Prioritized replay of games: what is drawn, and with which weight. Single-threaded; waiting is the caller's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from muzero_ray.errors import CheckpointError
from muzero_ray.replay import checkpoint_arrays
from muzero_ray.replay.batches import build_batch
from muzero_ray.replay.game_store import GameStore
from muzero_ray.replay.game_validation import validate_game
from muzero_ray.replay.held_out import HeldOutGames, is_held_out
from muzero_ray.replay.seen_ids import SeenIds
from muzero_ray.replay.stale_queue import StaleQueue
from muzero_ray.replay.stored_game import (
    StaleGame,
    StoredGame,
    set_targets,
    stale_game,
)
from muzero_ray.replay.sum_tree import Float64Array, SumTree
from muzero_ray.replay.targets import Horizon
from muzero_ray.types import (
    Array,
    Batch,
    FloatArray,
    GameHistory,
    GameId,
    ItemKeys,
    LongArray,
    WeightsVersion,
)

# Errors below this (env units) count as this much: nothing becomes impossible to draw.
PRIORITY_FLOOR = 1e-3


class Draw(NamedTuple):
    """A batch, and what `shards.merge` must know to join it with those of other replays.

    min_probability: that of the least probable of its items at each single draw; that item has weight 1.
    """

    batch: Batch
    min_probability: float


class ReplayBuffer:
    """Keeps the newest games up to `capacity` transitions and `capacity_bytes` bytes; draws positions by priority.

    A transition of priority p (raw |error|, env units) is drawn with probability proportional to p^alpha. Whole
    games leave, oldest first. horizon: of value targets. holdout: share of games that are never
    drawn to train on (see `held_out`). `rng` is all the randomness of those draws.
    """

    def __init__(
        self,
        capacity: int,
        capacity_bytes: int,
        alpha: float,
        frame_stack: int,
        unroll_steps: int,
        horizon: Horizon,
        num_players: int,
        with_next_observations: bool,
        holdout: float,
        rng: np.random.Generator,
    ) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._alpha = alpha
        self._stack = frame_stack
        self._unroll = unroll_steps
        self._horizon = horizon
        self._num_players = num_players
        self._with_next = with_next_observations
        self._holdout = holdout
        self._rng = rng
        self._seen = SeenIds()
        self._clear()

    def _clear(self) -> None:
        self._tree = SumTree(self._capacity)
        self._store = GameStore(self._capacity, self._capacity_bytes, self._horizon)
        self._held_out = HeldOutGames()
        self._stale = StaleQueue(self._store.games)

    @property
    def size(self) -> int:
        """Transitions kept, those held out included."""
        return self._store.size

    @property
    def games(self) -> int:
        """Games (or segments) kept."""
        return len(self._store.games)

    @property
    def bytes(self) -> int:
        """Memory of the kept games, their share of the index and of Python objects included."""
        return self._store.bytes

    @property
    def mass(self) -> float:
        """Sum of p^alpha over all transitions: what this replay counts for beside others."""
        return self._tree.total

    @property
    def priority_max(self) -> float:
        """Largest raw priority now (0 when empty or uniform). O(capacity): for logging."""
        return float(self._tree.largest() ** (1.0 / self._alpha)) if self._alpha > 0 else 0.0

    def target_age(self, current_step: int) -> float:
        """Mean over transitions of how many learner steps ago their targets were searched (0 when empty)."""
        return (self.size * current_step - self._store.searched_at) / max(self.size, 1)

    @property
    def game_numbers(self) -> range:
        """The kept games, numbered in the order in which they came in."""
        return self._store.numbers

    def game_ids(self) -> list[GameId]:
        """Ids of the kept games, oldest first."""
        return [game.id for game in self._store.games.values()]

    def knows(self, game_id: GameId) -> bool:
        """Whether a game of this id was ever added, kept or not."""
        return game_id in self._seen

    def add(self, game: GameHistory) -> bool:
        """Keep a copy of `game`; False, and nothing done, if its id was ever added before.

        Its transitions start with their own |root value - n-step target| as priority. Raises ValueError for an invalid
        game or one unlike those before, ConfigError for one larger than the whole replay.
        """
        if self.knows(game.id):
            return False
        stored = self._insert(game)
        # The only game there is is trained on in any case. Leaves of a game that is held out stay as they are: 0.
        number = self._store.next_number - 1
        if is_held_out(number, self._holdout) and self.mass > 0.0:
            self._held_out.add(number, stored.owned)
        else:
            rows = stored.rows[: stored.owned]
            self._tree.set(self._store.leaves(stored), self._powered(np.abs(rows["root_value"] - rows["value"])))
        self._seen.add(game.id)
        return True

    def _insert(self, game: GameHistory) -> StoredGame:
        validate_game(game, num_players=self._num_players)
        overlap = self._unroll + self._horizon.td_steps
        if not (game.terminated or game.truncated) and len(game) < game.owned + overlap:
            raise ValueError(
                f"game {tuple(game.id)} was cut {len(game) - game.owned} steps after the last it owns: its targets "
                f"need unroll_steps + td_steps = {overlap}"
            )
        stored, evicted = self._store.insert(game)
        self._stale.enter(self._store.next_number - 1)
        for left in evicted:
            self._tree.set(self._store.leaves(left), np.zeros(left.owned))
        self._held_out.drop_before(self._store.numbers.start)
        return stored

    def _powered(self, errors: FloatArray) -> Float64Array:
        return np.maximum(errors.astype(np.float64), PRIORITY_FLOOR) ** self._alpha

    def sample(self, batch_size: int, beta: float) -> Batch:
        """The batch of a `draw`."""
        return self.draw(batch_size, beta).batch

    def draw(self, batch_size: int, beta: float) -> Draw:
        """Draw `batch_size` positions, stratified over the priority mass, with importance exponent `beta`."""
        if not self.size:
            raise ValueError("replay is empty: nothing to sample")
        leaves = self._tree.draw(batch_size, self._rng)
        powered = self._tree.get(leaves)
        # w_i = (N P(i))^-beta / max_j w_j (Schaul et al. 2016, section 3.4).
        weights = (self.size * powered / self.mass) ** -beta
        numbers, positions = self._store.locate(leaves)
        batch = self._items(numbers, positions, (weights / weights.max()).astype(np.float32), self._rng)
        return Draw(batch, float(powered.min()) / self.mass)

    def draw_held_out(self, batch_size: int) -> Batch | None:
        """Positions of held-out games, uniformly; None if there are none. Leaves no trace in what is drawn later."""
        if not len(self._held_out):
            return None
        rng = np.random.default_rng(self._store.next_number)
        numbers, positions = self._held_out.choose(batch_size, rng)
        return self._items(numbers, positions, np.ones(batch_size, np.float32), rng)

    def _items(self, numbers: LongArray, positions: LongArray, weights: FloatArray, rng: np.random.Generator) -> Batch:
        return build_batch(
            self._store,
            *(numbers, positions, weights, rng),
            stack=self._stack,
            unroll=self._unroll,
            with_next=self._with_next,
        )

    def update_priorities(self, keys: ItemKeys, priorities: FloatArray) -> None:
        """Set raw priorities `[B]`: |error| in env units, finite and >= 0. Keys of games that have left are ignored."""
        priorities = np.asarray(priorities)
        if not (np.isfinite(priorities).all() and (priorities >= 0).all()):
            raise ValueError(f"priorities must be finite and not negative, got {priorities}")
        kept = np.array([number in self._store.games for number in keys.game.tolist()], np.bool_)
        games = [self._store.games[number] for number in keys.game[kept].tolist()]
        first = np.array([game.first_leaf for game in games], np.int64)
        owned = np.array([game.owned for game in games], np.int64)
        positions = keys.position[kept].astype(np.int64)
        if ((positions < 0) | (positions >= owned)).any():
            raise ValueError(f"a key's position lies outside what its game owns: {keys}")
        self._tree.set((first + positions) % self._capacity, self._powered(priorities[kept]))

    def stale_games(self, count: int) -> list[StaleGame]:
        """Up to `count` games, those whose targets come from the oldest weights first."""
        codec = self._store.codec
        if codec is None:
            return []
        games = self._store.games
        oldest = self._stale.oldest(count)
        return [stale_game(number, games[number], codec, stack=self._stack) for number in oldest]

    def replace_targets(
        self, game: int, policies: FloatArray, root_values: FloatArray, version: WeightsVersion
    ) -> bool:
        """New search results for the `S` positions of a `StaleGame`; False if that game has left meanwhile.

        policies: `[S, A]`, root_values: `[S]`. Priorities stay: the learner knows better. Overlap copies in
        neighbouring segments keep their own targets.
        """
        stored = self._store.games.get(game)
        if stored is None:
            return False
        if policies.shape != (stored.searched, self._store.num_actions) or root_values.shape != (stored.searched,):
            raise ValueError(
                f"policies {policies.shape} and root values {root_values.shape} for a game of {stored.searched} "
                f"searchable positions and {self._store.num_actions} actions"
            )
        values = np.zeros(len(stored) + 1, np.float32)
        values[: stored.searched] = root_values
        self._retarget(game, policies[: len(stored)], values, version)
        return True

    def _retarget(self, number: int, policies: FloatArray, root_values: FloatArray, version: WeightsVersion) -> None:
        if not (np.isfinite(policies).all() and np.isfinite(root_values).all()):
            raise ValueError("policies or root values hold NaN or infinity")
        game = self._store.searched_again(number, version)
        set_targets(game, policies, root_values, self._horizon)
        self._stale.enter(number)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Everything but the games as they came in, exactly: arrays and JSON. Their reanalyzed targets are here."""
        arrays = checkpoint_arrays.pack(self._store)
        # Of all games, oldest first: their leaves follow one another around the ring.
        begin = (self._store.next_leaf - self.size) % self._capacity
        to_end = min(self.size, self._capacity - begin)
        parts = self._tree.get_range(begin, to_end), self._tree.get_range(0, self.size - to_end)
        arrays["priorities"] = np.concatenate(parts)
        return arrays, {
            "settings": self._settings(),
            "rng": self._rng.bit_generator.state,
            "seen": self._seen.state(),
            "next_game": self._store.next_number,
        }

    def load_state(self, arrays: dict[str, Array], meta: dict[str, Any], games: Iterable[GameHistory]) -> None:
        """Become the buffer that `state` described. games: those of `game_ids()` then, as they came in.

        Raises CheckpointError if the parts do not fit together; the buffer is then of no more use.
        """
        if meta["settings"] != self._settings():
            raise CheckpointError(
                f"this replay was saved with {meta['settings']}, now {self._settings()}. Resume with the same config"
            )
        records = checkpoint_arrays.unpack(arrays, games)
        self._clear()
        self._store.start_at(meta["next_game"] - len(records))
        for record in records:
            self._store.next_leaf = record.first_leaf
            self._insert(record.game)
            if record.targets is not None:
                self._retarget(self._store.next_number - 1, *record.targets)
        priorities = arrays["priorities"]
        if len(records) != self.games or priorities.shape != (self.size,) or priorities.dtype.kind != "f":
            raise CheckpointError(
                f"{self.size} transitions in the games, {priorities.size} priorities, "
                f"{priorities.dtype} {priorities.shape}"
            )
        if not (np.isfinite(priorities).all() and (priorities >= 0).all()):
            raise CheckpointError("priorities must be finite and not negative")
        self._tree.set(self._all_leaves(), priorities)
        trained = self._tree.get(self._store.table[5]) > 0.0
        for number in (self._store.numbers.start + np.flatnonzero(~trained)).tolist():
            self._held_out.add(number, self._store.games[number].owned)
        self._seen.load_state(meta["seen"])
        self._rng.bit_generator.state = meta["rng"]

    def _all_leaves(self) -> LongArray:
        """The leaves of all games, oldest first: they follow one another around the ring."""
        return (self._store.next_leaf - self.size + np.arange(self.size)) % self._capacity

    def _settings(self) -> dict[str, Any]:
        """What kept games, leaves, targets and priorities depend on."""
        return {
            "capacity": self._capacity,
            "capacity_bytes": self._capacity_bytes,
            "alpha": self._alpha,
            "unroll_steps": self._unroll,
            **asdict(self._horizon),
            "num_players": self._num_players,
        }
