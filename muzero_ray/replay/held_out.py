"""Games that are kept but never trained on: what the learned model is measured on (`training/validation_metrics.py`).

They are played, stored, reanalyzed and forgotten like all others; only their priority is 0, so no draw meets them. A
segment counts as a game here, so the last steps unrolled from its predecessor reach its first positions, and those
unrolled from its own last positions reach its successor: `unroll_steps` at each end are not as new as the rest.
"""

from __future__ import annotations

import numpy as np

from muzero_ray.replay.fifo_table import FifoTable
from muzero_ray.types import LongArray


def is_held_out(number: int, share: float) -> bool:
    """Whether game `number` (they are numbered as they come in) belongs to the share that is held out: every n-th."""
    if share == 0.0:
        return False
    every = round(1.0 / share)
    return number % every == every - 1


class HeldOutGames:
    """Which of the kept games are held out. They enter as they come in and leave oldest first."""

    def __init__(self) -> None:
        self._table = FifoTable(3)
        """Number of a game, and its first and last (excluded) position among all that were ever held out."""
        self._end = 0

    def __len__(self) -> int:
        return len(self._table)

    def add(self, number: int, owned: int) -> None:
        """Hold out game `number`, of `owned` positions."""
        self._table.append((number, self._end, self._end + owned))
        self._end += owned

    def drop_before(self, oldest: int) -> None:
        """Games numbered less than `oldest` have left."""
        while len(self._table) and self._table.columns[0, 0] < oldest:
            self._table.drop_first()

    def choose(self, count: int, rng: np.random.Generator) -> tuple[LongArray, LongArray]:
        """`count` positions, uniform over all that these games own: their games' numbers, and where in those."""
        numbers, begins, ends = self._table.columns
        drawn = begins[0] + rng.integers(ends[-1] - begins[0], size=count)
        which = np.searchsorted(ends, drawn, side="right")
        return numbers[which], drawn - begins[which]
