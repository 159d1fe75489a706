"""A batch of positions, put together from the games that they are in."""

from __future__ import annotations

import numpy as np

from muzero_ray.replay.game_store import GameStore
from muzero_ray.replay.stored_game import gather_frames, gather_rows
from muzero_ray.replay.targets import unroll_targets
from muzero_ray.types import Batch, FloatArray, ItemKeys, LongArray


def build_batch(
    store: GameStore,
    numbers: LongArray,
    positions: LongArray,
    weights: FloatArray,
    rng: np.random.Generator,
    *,
    stack: int,
    unroll: int,
    with_next: bool,
) -> Batch:
    """Items at `positions` `[B]` of games `numbers` `[B]`, which `store` keeps, unrolled over `unroll` steps.

    weights: `[B]`. rng: of the actions past the end. stack: frames a network sees at once. with_next: the frames of
    the steps behind each position, too.
    """
    assert store.codec is not None  # there is a game
    games = [store.games[number] for number in numbers.tolist()]
    targets = unroll_targets(
        gather_rows(games, positions, unroll + 1),
        steps_left=np.array([len(game) for game in games]) - positions,
        terminated=np.array([game.terminated for game in games]),
        filler=rng.integers(store.num_actions, size=(len(games), unroll), dtype=np.int32),
    )
    return Batch(
        frames=gather_frames(games, positions, store.codec, stack=stack, ahead=unroll if with_next else 0),
        stack=stack,
        **targets._asdict(),
        weights=weights,
        keys=ItemKeys(numbers, positions.astype(np.int32)),
    )
