"""What every part's rows have in common, and how little of it is measured in tests."""

from __future__ import annotations

import math

from benchmarks.measure import Effort, Row

SMALL = Effort(
    repeats=1,
    seconds=0.001,
    replay_sizes=(500, 1_000),
    recorded=500,
    batch_sizes=(1,),
    curve_steps=2,
    slices=1,
    slice_seconds=1.0,
    actors=(1, 2),
    level_seconds=4.0,
    passes=1,
    observations=40,
)


def check(rows: list[Row], *, may_be_zero: tuple[str, ...] = ()) -> dict[str, Row]:
    """Figures are positive numbers, all but the baselines compared with something named. Returns rows by name.

    may_be_zero: how names of rows begin whose figure is a share or a difference.
    """
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert 0 <= row.low <= row.figure <= row.high < math.inf, row
        assert row.low > 0 or row.name.startswith(may_be_zero), row
        assert (row.ratio is None) == (row.baseline is None)
        assert row.ratio is None or 0 <= row.ratio < math.inf, row
    return {row.name: row for row in rows}
