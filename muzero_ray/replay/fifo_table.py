"""A few numbers about each game in a queue, as arrays: whoever needs them for all games need not visit each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muzero_ray.types import LongArray


class FifoTable:
    """Entries of `columns` int64 numbers each: they come at the end and leave at the front, both in constant time."""

    def __init__(self, columns: int) -> None:
        self._data: LongArray = np.zeros((columns, 64), np.int64)
        self._begin = self._end = 0

    def __len__(self) -> int:
        return self._end - self._begin

    @property
    def columns(self) -> LongArray:
        """`[columns, entries]`, oldest first: a view, to be read or written before the table changes again."""
        return self._data[:, self._begin : self._end]

    def append(self, entry: Sequence[int]) -> None:
        """Add an entry at the end."""
        if self._end == self._data.shape[1]:
            kept = self.columns
            # At least half of it is free afterwards, so an entry is moved twice at most, on average.
            self._data = np.zeros((len(kept), max(64, 2 * kept.shape[1])), np.int64)
            self._data[:, : kept.shape[1]] = kept
            self._begin, self._end = 0, kept.shape[1]
        self._data[:, self._end] = entry
        self._end += 1

    def drop_first(self) -> None:
        """The oldest entry leaves."""
        self._begin += 1
