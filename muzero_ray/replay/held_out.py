"""Games that are kept but never trained on: what the learned model is measured on (`training/quality.py`).

They are played, stored, reanalyzed and forgotten like all others; only their priority is 0, so no draw meets them. A
segment counts as a game here, so the last steps unrolled from its predecessor reach its first positions, and those
unrolled from its own last positions reach its successor: `unroll_steps` at each end are not as new as the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from muzero_ray.replay.stored_game import StoredGame
from muzero_ray.types import LongArray


def is_held_out(number: int, share: float) -> bool:
    """Whether game `number` (they are numbered as they come in) belongs to the share that is held out: every n-th."""
    if share == 0.0:
        return False
    every = round(1.0 / share)
    return number % every == every - 1


def choose(games: Mapping[int, StoredGame], count: int, rng: np.random.Generator) -> tuple[LongArray, LongArray]:
    """`count` positions, uniform over all that `games` (by number) own: their games' numbers, and where in those."""
    owned = np.array([game.owned for game in games.values()])
    ends = np.cumsum(owned)
    drawn = rng.integers(ends[-1], size=count)
    which = np.searchsorted(ends, drawn, side="right")
    return np.array(list(games), np.int64)[which], drawn - (ends - owned)[which]
