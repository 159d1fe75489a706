"""The estimate of a leak against closed forms: lines, with noise, jumps and rubbish on them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from chaos.trend import floors, theil_sen


def test_a_line_is_found_exactly_and_surely() -> None:
    slope = theil_sen([(float(t), 7.0 - 0.25 * t) for t in range(20)])
    assert slope == (-0.25, -0.25, -0.25)


def test_a_handful_of_points_by_hand() -> None:
    # Slopes of the six pairs, sorted: 1, 1, 1, 2, 2.5, 4.
    slope = theil_sen([(0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (3.0, 6.0)])
    assert slope.value == 1.5
    assert (slope.low, slope.high) == (1.0, 4.0)
    assert all(math.isnan(value) for value in theil_sen([(0.0, 1.0), (1.0, 2.0)]))


@pytest.mark.parametrize("true", [0.0, 0.05, -0.2])
def test_noise_and_outliers_do_not_hide_a_slope(true: float) -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        times = np.arange(50.0)
        values = 300.0 + true * times + rng.normal(0.0, 0.5, 50)
        values[rng.choice(50, 6, replace=False)] += rng.exponential(40.0, 6)  # one in eight is rubbish
        slope = theil_sen(list(zip(times.tolist(), values.tolist(), strict=True)))
        assert abs(slope.value - true) < 0.03
        inside += slope.low <= true <= slope.high
    assert inside >= 180


def test_one_jump_is_no_leak() -> None:
    """Least squares would call it a twelfth of a unit a minute."""
    jump = [(float(t), 100.0 + 4.0 * (t >= 12)) for t in range(50)]
    assert theil_sen(jump).value == 0.0
    assert np.polyfit(*np.array(jump).T, 1)[0] == pytest.approx(1 / 12, abs=0.01)


def test_a_staircase_is_one() -> None:
    slope = theil_sen([(float(t), 100.0 + t // 5) for t in range(50)])
    assert slope.value == pytest.approx(0.2, abs=0.01)


def test_the_least_of_each_window() -> None:
    points = [(0.1, 5.0), (0.9, 3.0), (1.2, 9.0), (1.4, 8.0), (3.0, 1.0)]
    assert floors(points, 1.0) == [(0.5, 3.0), (1.5, 8.0), (3.5, 1.0)]
    assert floors([], 1.0) == []
