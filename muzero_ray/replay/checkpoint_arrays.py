"""What changes in the games of a replay, as plain arrays, for checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from muzero_ray.errors import CheckpointError
from muzero_ray.replay.game_store import GameStore
from muzero_ray.types import Array, BoolArray, FloatArray, GameHistory, LongArray, WeightsVersion


class Targets(NamedTuple):
    """New targets of a game searched again: policies `[T, A]`, root_values `[T + 1]`, by weights of `version`."""

    policies: FloatArray
    root_values: FloatArray
    version: WeightsVersion


class Record(NamedTuple):
    """A game as it came in, and its place in replay. targets: those that took the place of its own, if any."""

    game: GameHistory
    first_leaf: int
    targets: Targets | None


def pack(store: GameStore) -> dict[str, Array]:
    """Arrays that `unpack` reads.

    index: `[G, 7]` int64: id, target version, first leaf, reanalyzed. policies, root_values: of the reanalyzed games,
    which differ from what was written when they came in. lengths: `[G]` int64, steps T of each game.
    """
    table = store.table
    first, changed = store.numbers.start, np.flatnonzero(table[6])
    games = [store.games[number] for number in (first + changed).tolist()]
    arrays = {"index": np.ascontiguousarray(table[:7].T), "lengths": table[7].copy()}
    if not games:
        empty = np.zeros(0, np.float32)
        return {**arrays, "policies": empty, "root_values": empty}
    rows = np.frombuffer(b"".join([game.data for game in games]), games[0].dtype)
    has_policy = np.ones(len(rows), np.bool_)
    has_policy[np.cumsum(table[7, changed] + 1) - 1] = False  # the last row of each game
    return {**arrays, "policies": rows["policy"][has_policy].ravel(), "root_values": rows["root_value"].copy()}


def unpack(arrays: dict[str, Array], games: Iterable[GameHistory]) -> list[Record]:
    """The games of `pack`, oldest first. Raises CheckpointError if `games` are others."""
    index = arrays["index"].tolist()
    found = list(games)
    if [list(game.id) for game in found] != [row[:3] for row in index]:
        raise CheckpointError(f"{len(found)} games found are not the {len(index)} that the replay state names")
    records = []
    policy_at = value_at = 0
    for game, row in zip(found, index, strict=True):
        targets = None
        if row[6]:
            policy_end, value_end = policy_at + game.policies.size, value_at + len(game) + 1
            policies = arrays["policies"][policy_at:policy_end].reshape(game.policies.shape)
            targets = Targets(policies, arrays["root_values"][value_at:value_end], WeightsVersion(*row[3:5]))
            policy_at, value_at = policy_end, value_end
        records.append(Record(game, row[5], targets))
    return records


def select(arrays: dict[str, Array], keep: BoolArray, capacity: int) -> tuple[dict[str, Array], LongArray]:
    """The arrays of only those games that `keep` `[G]` names, close together in the ring of `capacity` leaves, and how
    many transitions each of all games owns, `[G]`.

    arrays: those of `pack`, and `priorities`. Older programs saved no `lengths`. Then nobody can tell whose the new
    targets are, and all games get back those that they came in with. Raises CheckpointError if the parts do not fit.
    """
    index, priorities = arrays["index"].copy(), arrays["priorities"]
    first = index[:, 5]
    owned = np.diff(first, append=first[:1] + len(priorities)) % capacity
    owned[-1:] = len(priorities) - owned[:-1].sum()
    if (owned < 1).any() and len(index):
        raise CheckpointError(f"{len(priorities)} priorities do not fit {len(index)} games")
    kept, starts = index[keep], np.cumsum(owned[keep]) - owned[keep]
    kept[:, 5] = (first[:1] + starts) % capacity
    if "lengths" in arrays:
        lengths, changed = arrays["lengths"], index[:, 6] == 1
        chosen, steps = keep[changed], lengths[changed]
        actions = len(arrays["policies"]) // max(steps.sum(), 1)
        policies = arrays["policies"][np.repeat(chosen, steps * actions)]
        root_values = arrays["root_values"][np.repeat(chosen, steps + 1)]
        targets = {"policies": policies, "root_values": root_values, "lengths": lengths[keep]}
    else:
        kept[:, 6] = 0
        targets = {name: arrays[name][:0] for name in ("policies", "root_values")}
    return {**targets, "index": kept, "priorities": priorities[np.repeat(keep, owned)]}, owned
