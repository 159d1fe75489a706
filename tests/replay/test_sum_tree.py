import numpy as np
import pytest

from muzero_ray.replay.sum_tree import SumTree


@pytest.mark.parametrize("capacity", [1, 2, 3, 8, 1000])
def test_find_is_searchsorted_on_the_cumulative_sum(capacity: int) -> None:
    rng = np.random.default_rng(capacity)
    # Small integers: both sums are exact, so the answers must agree to the last leaf, empty leaves included.
    values = rng.integers(0, 5, capacity).astype(np.float64)
    values[rng.integers(capacity)] = 3.0
    tree = SumTree(capacity)
    tree.set(np.arange(capacity), values)
    assert tree.total == values.sum()
    masses = np.concatenate([np.arange(values.sum()), rng.random(200) * values.sum()])
    np.testing.assert_array_equal(tree.find(masses), np.searchsorted(np.cumsum(values), masses, side="right"))


def test_updates_leave_the_tree_as_if_built_anew() -> None:
    rng = np.random.default_rng(0)
    tree, values = SumTree(100), np.zeros(100)
    for _ in range(300):
        leaves = rng.integers(0, 100, 9)
        new = rng.random(9)
        tree.set(leaves, new)
        for leaf, value in zip(leaves, new, strict=True):
            values[leaf] = value
    fresh = SumTree(100)
    fresh.set(np.arange(100), values)
    assert tree.total == fresh.total  # exactly: sums do not drift
    assert tree.total == pytest.approx(values.sum())
    assert tree.largest() == values.max()
    np.testing.assert_array_equal(tree.get(np.arange(100)), values)


@pytest.mark.parametrize("used", [0, 3, 7])
def test_masses_at_and_past_the_edge_never_hit_an_empty_leaf(used: int) -> None:
    tree = SumTree(8)
    tree.set(np.array([used]), np.array([0.1]))
    masses = np.array([0.0, np.nextafter(0.1, 0), 0.1, 0.2])
    np.testing.assert_array_equal(tree.find(masses), [used] * 4)
