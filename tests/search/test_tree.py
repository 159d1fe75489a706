"""Parts of the compiled steps that have an independent answer."""

import numpy as np

from muzero_ray.search.compiled import fast_exp
from muzero_ray.search.workspace import Workspace
from tests.search.worlds import random_table


def test_fast_exp_is_the_exponential_function() -> None:
    points = np.concatenate([np.linspace(-87, 0, 20_001), -np.geomspace(1e-9, 1, 1_000)]).astype(np.float32)
    fast = np.array([fast_exp(x) for x in points], np.float64)
    np.testing.assert_allclose(fast, np.exp(points.astype(np.float64)), rtol=1e-6)
    assert fast_exp(np.float32(0.0)) == 1.0


def test_fast_exp_ends_above_zero() -> None:
    lowest = fast_exp(np.float32(-87.0))
    assert [fast_exp(np.float32(x)) for x in (-100.0, -1e30, -np.inf, np.nan)] == [lowest] * 4


def test_arrays_of_a_workspace_are_apart() -> None:
    """They share one piece of memory: filling one may not show in another. So do the latents of a model."""
    workspace, pool = Workspace(3, 6, 5), random_table(0, states=3, actions=5).pool(np.zeros((3, 7), np.uint16), 6)
    arrays = [workspace.nodes, workspace.edges, workspace.rows, workspace.priors, workspace.parents, workspace.actions]
    arrays += [workspace.root_scores, *workspace.answers, pool.hidden, *pool.nodes]
    for index, array in enumerate(arrays):
        array.view(np.uint8)[...] = index
    for index, array in enumerate(arrays):
        assert (array.view(np.uint8) == index).all()
        assert array.flags.c_contiguous
