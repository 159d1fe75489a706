"""Whether something grows: a slope that a few jumps do not move, and how well it is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

Point = tuple[float, float]
"""(when, how much)"""

Z95 = 1.96


class Slope(NamedTuple):
    """Per unit of time, with the 95 % confidence interval."""

    value: float
    low: float
    high: float


def floors(points: Iterable[Point], window: float) -> list[Point]:
    """The least of each whole window of time, at the window's middle.

    What a process holds is seen when it holds nothing else: a batch on its way, a checkpoint that is being packed, or
    garbage not yet collected only ever add.
    """
    least: dict[int, float] = {}
    for when, much in points:
        index = math.floor(when / window)
        least[index] = min(much, least.get(index, math.inf))
    return [((index + 0.5) * window, least[index]) for index in sorted(least)]


def theil_sen(points: Sequence[Point]) -> Slope:
    """The median slope over all pairs (Sen 1968), with the interval that Kendall's rank test gives.

    Not least squares: one jump of an allocator's arena, which stays and never comes again, tilts that line by as much
    as a leak does, and here it moves the median little. Up to 29 % of the points may lie anywhere. The interval takes
    errors for independent; those of one process are less than that, so it is rather too narrow. NaN of fewer than 3.
    """
    count = len(points)
    if count < 3:
        return Slope(math.nan, math.nan, math.nan)
    slopes = sorted((b - a) / (t - s) for (s, a), (t, b) in itertools.combinations(points, 2))
    spread = Z95 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18.0)
    low = max(math.floor((len(slopes) - spread) / 2), 0)
    high = min(math.ceil((len(slopes) + spread) / 2), len(slopes) - 1)
    return Slope(float(np.median(slopes)), slopes[low], slopes[high])
