"""Several replays drawn from as if they were one: who gives how much of a batch, and one batch out of their parts.

Shard `s` is asked for its share `q_s = m_s / sum of m` of a batch, m_s being the sum of p^alpha that it reported last;
it draws item i with probability p_i^alpha / m_s, by what m_s is then. So i is drawn with q_s p_i^alpha / m_s: as from
one replay of all games, but for what changed since the report. The importance weights take the probability that was
really used, so they are right however old the report is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np

from muzero_ray.replay.buffer import Draw
from muzero_ray.replay.sum_tree import SumTree
from muzero_ray.types import Batch, FloatArray, ItemKeys


class Part(NamedTuple):
    """`size` items of a batch, to be drawn from `shard`, which is chosen for each item with probability `share`."""

    shard: int
    share: float
    size: int


def plan(masses: Sequence[float], batch_size: int, rng: np.random.Generator) -> list[Part]:
    """Who gives how many items of a batch, by the last reported `masses`; shards that give none are left out.

    Stratified, as draws within a shard are: the shards are the top of one large sum tree.
    """
    tree = SumTree(len(masses))
    tree.set(np.arange(len(masses)), np.array(masses, np.float64))
    if not tree.total > 0.0:
        raise ValueError(f"replay is empty: nothing to sample from shards of masses {list(masses)}")
    sizes = np.bincount(tree.draw(batch_size, rng), minlength=len(masses)).tolist()
    return [
        Part(shard, mass / tree.total, size)
        for shard, (mass, size) in enumerate(zip(masses, sizes, strict=True))
        if size
    ]


def merge(parts: Sequence[Part], draws: Sequence[Draw], beta: float, shards: int) -> Draw:
    """One draw of what the shards drew for `parts` of a `plan`; keys say which of `shards` a row came from."""
    min_probability = np.array([part.share * draw.min_probability for part, draw in zip(parts, draws, strict=True)])
    # w_i = (P(i) / min_j P(j))^-beta: so far the minimum was over each part's own items, now it is over all.
    scales = ((min_probability / min_probability.min()) ** -beta).astype(np.float32)
    batches = [
        replace(
            draw.batch,
            weights=draw.batch.weights * scale,
            keys=ItemKeys(draw.batch.keys.game * shards + part.shard, draw.batch.keys.position),
        )
        for part, draw, scale in zip(parts, draws, scales, strict=True)
    ]
    return Draw(_concatenate(batches), float(min_probability.min()))


def part_of(draw: Draw, min_probability: float, beta: float) -> Batch:
    """`draw` as a part of a larger batch, whose least probable item has `min_probability` and so the weight 1."""
    scale = np.float32((draw.min_probability / min_probability) ** -beta)
    return replace(draw.batch, weights=draw.batch.weights * scale)


def _concatenate(batches: Sequence[Batch]) -> Batch:
    first = batches[0]
    if len(batches) == 1:
        return first
    rows = {field.name for field in fields(Batch)} - {"stack", "keys"}
    arrays: dict[str, Any] = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in rows}
    games, positions = zip(*((batch.keys.game, batch.keys.position) for batch in batches), strict=True)
    return replace(first, **arrays, keys=ItemKeys(np.concatenate(games), np.concatenate(positions)))


def split(keys: ItemKeys, priorities: FloatArray, shards: int) -> list[tuple[ItemKeys, FloatArray]]:
    """What each shard is told of a merged batch: its own keys and their priorities, maybe none."""
    owner = keys.game % shards
    return [
        (ItemKeys(keys.game[mine] // shards, keys.position[mine]), priorities[mine])
        for mine in (owner == shard for shard in range(shards))
    ]
