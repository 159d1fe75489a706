"""Binary tree of sums over priorities: drawing in proportion to them and changing one take O(log N)."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from muzero_ray.types import LongArray

Float64Array = NDArray[np.float64]


@numba.njit(cache=True, nogil=True)
def _assign(tree: Float64Array, base: int, leaves: LongArray, values: Float64Array) -> None:
    for i in range(len(leaves)):
        node = base + leaves[i]
        tree[node] = values[i]
        node >>= 1
        # Sums are recomputed, never adjusted by a difference: no drift, and a tree rebuilt from its leaves is equal.
        while node >= 1:
            tree[node] = tree[2 * node] + tree[2 * node + 1]
            node >>= 1


@numba.njit(cache=True, nogil=True)
def _find(tree: Float64Array, base: int, masses: Float64Array) -> LongArray:
    leaves = np.empty(len(masses), np.int64)
    for i in range(len(masses)):
        mass, node = masses[i], 1
        while node < base:
            node *= 2
            # The second test keeps rounding at the right edge from walking into an empty subtree.
            if mass >= tree[node] and tree[node + 1] > 0.0:
                mass -= tree[node]
                node += 1
        leaves[i] = node - base
    return leaves


class SumTree:
    """`capacity` leaves, whose priorities are 0 at first. Memory is touched only as leaves are used."""

    def __init__(self, capacity: int) -> None:
        # Node 1 is the root, nodes 2i and 2i + 1 are the children of node i, and leaf j is node base + j.
        self._base = 1 << max(capacity - 1, 0).bit_length()
        self._tree: Float64Array = np.zeros(2 * self._base, np.float64)

    @property
    def total(self) -> float:
        """Sum of all priorities."""
        return float(self._tree[1])

    def get(self, leaves: LongArray) -> Float64Array:
        """Priorities of `leaves` `[n]`."""
        return self._tree[self._base + leaves]

    def get_range(self, begin: int, count: int) -> Float64Array:
        """Priorities of `count` successive leaves from `begin` on; a view."""
        return self._tree[self._base + begin : self._base + begin + count]

    def set(self, leaves: LongArray, values: Float64Array) -> None:
        """Give `leaves` `[n]` the priorities `values` `[n]` (>= 0); for a leaf that is named twice, the last one."""
        _assign(self._tree, self._base, leaves, values)

    def draw(self, count: int, rng: np.random.Generator) -> LongArray:
        """Leaves `[count]` in proportion to their priorities, in order: one from each `count`-th of the total."""
        return self.find((np.arange(count) + rng.random(count)) * (self.total / count))

    def find(self, masses: Float64Array) -> LongArray:
        """For each of `masses` `[n]`, in [0, total), the leaf at which the cumulative sum of priorities exceeds it.

        Never a leaf of priority 0, as long as `total` is positive.
        """
        leaves: LongArray = _find(self._tree, self._base, masses)
        return leaves

    def largest(self) -> float:
        """The largest priority. O(capacity): for logging."""
        return float(self._tree[self._base :].max())
