"""Parts of the compiled steps that have an independent answer."""

import numpy as np

from muzero_ray.search.tree import fast_exp


def test_fast_exp_is_the_exponential_function() -> None:
    points = np.concatenate([np.linspace(-87, 0, 20_001), -np.geomspace(1e-9, 1, 1_000)]).astype(np.float32)
    fast = np.array([fast_exp(x) for x in points], np.float64)
    np.testing.assert_allclose(fast, np.exp(points.astype(np.float64)), rtol=1e-6)
    assert fast_exp(np.float32(0.0)) == 1.0


def test_fast_exp_ends_above_zero() -> None:
    lowest = fast_exp(np.float32(-87.0))
    assert [fast_exp(np.float32(x)) for x in (-100.0, -1e30, -np.inf, np.nan)] == [lowest] * 4
