"""What changes in the games of a replay, as plain arrays, for checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from muzero_ray.errors import CheckpointError
from muzero_ray.replay.stored_game import StoredGame
from muzero_ray.types import Array, BoolArray, FloatArray, GameHistory, LongArray, WeightsVersion


class Targets(NamedTuple):
    """Of a game that was searched again: policies `[T, A]`, root_values `[T + 1]`, by weights of `version`."""

    policies: FloatArray
    root_values: FloatArray
    version: WeightsVersion


class Record(NamedTuple):
    """A game as it came in, and its place in replay. targets: those that took the place of its own, if any."""

    game: GameHistory
    first_leaf: int
    targets: Targets | None


def pack(games: dict[int, StoredGame]) -> dict[str, Array]:
    """Arrays that `unpack` reads.

    index: `[G, 7]` int64: id, target version, first leaf, reanalyzed. policies, root_values: of the reanalyzed games,
    which differ from what was written when they came in. lengths: `[G]` int64, steps T of each game.
    """
    rows = [(*g.id, *g.target_version, g.first_leaf, int(g.reanalyzed)) for g in games.values()]
    arrays: dict[str, Array] = {"index": np.array(rows, np.int64).reshape(-1, 7)}
    arrays["lengths"] = np.array([len(game) for game in games.values()], np.int64)
    changed = [game.rows for game in games.values() if game.reanalyzed]
    policies = [rows["policy"][:-1].ravel() for rows in changed]
    arrays["policies"] = np.concatenate([np.zeros(0, np.float32), *policies])
    arrays["root_values"] = np.concatenate([np.zeros(0, np.float32), *(rows["root_value"] for rows in changed)])
    return arrays


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
