"""Reanalyze with a fake search that records what it was asked."""

from typing import Any

import numpy as np

from muzero_ray.inference.torch_engine import TorchEngine
from muzero_ray.search.planner import Planner
from muzero_ray.training.reanalyze import reanalyze_positions
from muzero_ray.types import NetworkOutput, SearchResult
from tests.children import child_of
from tests.inference.test_flat_engine import trained_like
from tests.networks.test_model import MLP, build


class FakeSearch:
    """Uniform policy over legal actions; the root value is what one look ahead at action 1 predicts."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool]] = []

    def __call__(
        self, root: NetworkOutput, model: Any, legal: Any, rng: Any, *, explore: bool, temperature: Any
    ) -> SearchResult:
        assert isinstance(rng, np.random.Generator)
        assert temperature.tolist() == [0.0] * len(legal)
        self.calls.append((len(legal), explore))
        ahead = NetworkOutput(*(np.empty_like(array) for array in root))
        model.recurrent(root.hidden, np.ones(len(legal), np.int32), ahead)
        policy = (legal / legal.sum(1, keepdims=True)).astype(np.float32)
        visits = np.zeros(legal.shape, np.int32)
        return SearchResult(policy.argmax(1).astype(np.int32), policy, ahead.value, visits, ahead.value)


def test_every_position_is_searched_once_without_noise() -> None:
    net = build(MLP, (4,))
    engine = TorchEngine(net)
    engine.load(trained_like(net, 3))
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(10, 4)).astype(np.float32)
    legal = rng.random((10, 4)) < 0.6
    legal[:, 2] = True
    search: Any = FakeSearch()
    policies, values = reanalyze_positions(observations, legal, Planner(engine, search), rng, batch_size=4)
    assert search.calls == [(4, False), (4, False), (2, False)]
    for t in range(10):
        one = child_of(engine, engine.initial(observations[t : t + 1]), np.ones(1, np.int32))
        np.testing.assert_allclose(values[t], one.value[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(policies[t], legal[t] / legal[t].sum(), rtol=1e-6)
    assert policies.dtype == values.dtype == np.float32


def test_where_nothing_is_legal_the_value_is_the_networks_own() -> None:
    net = build(MLP, (4,))
    engine = TorchEngine(net)
    engine.load(trained_like(net, 3))
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(10, 4)).astype(np.float32)
    legal = np.ones((10, 4), np.bool_)
    plain: Any = FakeSearch()
    policies, values = reanalyze_positions(observations, legal, Planner(engine, plain), rng, batch_size=4)
    own = engine.initial(observations).value
    assert (np.abs(own - values) > 1e-4).all()
    legal[[3, 9]] = False
    some: Any = FakeSearch()
    policies, found = reanalyze_positions(observations, legal, Planner(engine, some), rng, batch_size=4)
    expected = np.where(legal.any(axis=1), values, own)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(policies).all()
    np.testing.assert_allclose(policies.sum(axis=1), 1.0, rtol=1e-5)


def test_no_positions_give_no_targets() -> None:
    engine = TorchEngine(build(MLP, (4,)))
    search: Any = FakeSearch()
    nothing = np.zeros((0, 4), np.float32)
    policies, values = reanalyze_positions(
        nothing, nothing > 0, Planner(engine, search), np.random.default_rng(0), batch_size=4
    )
    assert policies.shape == (0, 4)
    assert values.shape == (0,)
    assert not search.calls
