"""The compiled engine against eager torch, which computes the same network another way."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from muzero_ray.config.schema import GumbelConfig, MlpConfig, PuctConfig, SupportConfig
from muzero_ray.errors import CheckpointError, NumericsError
from muzero_ray.inference.mlp_engine import CompiledMlpEngine
from muzero_ray.inference.torch_engine import TorchEngine
from muzero_ray.networks.build import make_network
from muzero_ray.networks.flat import flatten_state
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.search.policies import make_search
from muzero_ray.types import Array, FloatArray, NetworkOutput
from tests.children import child_of
from tests.networks.test_model import RESNET, build

LINEAR = SupportConfig(max=5.0, bins=21, transform=False)
SQUASHED = SupportConfig(max=30.0, bins=61)


def make(actions: int = 3, shape: tuple[int, ...] = (6,), seed: int = 0, **settings: Any) -> MuZeroNetwork:
    """A network all of whose parameters are random: fresh ones are 0 or 1 in places."""
    config = MlpConfig.model_validate({"value": SQUASHED, "reward": LINEAR} | settings)
    net = make_network(config, observation_shape=shape, num_actions=actions, consistency=seed == 0, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            deviation = 0.3 if parameter.ndim == 1 else 2.0 * parameter.shape[-1] ** -0.5
            mean = 1.0 if "norm" in name else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation + mean)
    return net


def observations_for(net_shape: tuple[int, ...], batch: int) -> FloatArray:
    return np.random.default_rng(batch).normal(scale=3.0, size=(batch, *net_shape)).astype(np.float32)


def assert_close(got: NetworkOutput, expected: NetworkOutput, largest: float = 0.0) -> None:
    """largest: of the atoms whose means `value` and `reward` are. Sums of so large float32 numbers differ with their
    order, and so from one kind of CPU to another.
    """
    for name, one, other in zip(got._fields, got, expected, strict=True):
        assert one.shape == other.shape, name
        assert one.dtype == np.float32, name
        atol = max(2e-5, 5e-7 * largest) if name in ("value", "reward") else 2e-5
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=atol, err_msg=name)


CONFIGS: list[dict[str, Any]] = [
    {},
    {"hidden": 64, "layers": (64, 64), "head_layers": ()},
    {"hidden": 16, "layers": (8,), "head_layers": (24, 16)},
    {"hidden": 5, "layers": (7, 9, 3), "head_layers": (11,), "actions": 1},  # nothing fits into blocks
    {"hidden": 1, "layers": (1,), "head_layers": (), "actions": 2, "shape": (1,)},
    {"hidden": 33, "layers": (40,), "actions": 19, "shape": (4, 3, 3), "value": LINEAR, "reward": SQUASHED},
    {"hidden": 12, "layers": (20,), "shape": (150,), "value": SupportConfig(max=300.0, bins=601)},
]


@pytest.mark.parametrize("settings", CONFIGS, ids=str)
@pytest.mark.parametrize("batch", [1, 2, 4, 7, 64])
def test_agrees_with_torch(settings: dict[str, Any], batch: int) -> None:
    """From an observation on, along a line of play: what one answers goes into the next question to both."""
    net = make(**settings)
    largest = max(settings.get("value", SQUASHED).max, settings.get("reward", LINEAR).max)
    compiled, reference = CompiledMlpEngine(net), TorchEngine(net)
    observations = observations_for(settings.get("shape", (6,)), batch)
    expected = reference.initial(observations)
    assert_close(compiled.initial(observations), expected, largest)
    rng = np.random.default_rng(0)
    for _ in range(3):
        actions = rng.integers(net.num_actions, size=batch).astype(np.int32)
        parent, hidden = expected, expected.hidden
        expected = child_of(reference, parent, actions)
        assert_close(child_of(compiled, parent, actions), expected, largest)
        # There is something to agree about; a latent of one number is always 0.
        assert np.std(expected.hidden) > 0.1 or hidden.shape[1] == 1
        assert np.ptp(expected.value) > 0.005 or hidden.shape[1] == 1 or batch < 64


def test_images_are_divided_by_255() -> None:
    net = make(shape=(2, 5, 5))
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 5, 5), dtype=np.uint8)
    got = CompiledMlpEngine(net).initial(images)
    assert_close(got, TorchEngine(net).initial(images))
    assert_close(got, TorchEngine(net).initial(images.astype(np.float32) / np.float32(255)))


def test_rows_do_not_depend_on_their_batch() -> None:
    net = make(actions=5)
    engine = CompiledMlpEngine(net)
    observations = observations_for((6,), 9)
    whole = engine.initial(observations)
    actions = (np.arange(9) % 5).astype(np.int32)
    together = child_of(engine, whole, actions)
    for row in range(9):
        alone = engine.initial(observations[row : row + 1])
        after = child_of(engine, alone, actions[row : row + 1])
        for name in alone._fields:
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[row])
            np.testing.assert_array_equal(getattr(after, name)[0], getattr(together, name)[row])


def test_any_array_that_torch_takes_is_taken() -> None:
    """Read-only (an object store's), strided, of another type: the answers are the same."""
    engine = CompiledMlpEngine(make())
    observations = observations_for((6,), 4)
    expected = engine.initial(observations)
    frozen = observations.copy()
    frozen.flags.writeable = False
    forms: list[Array] = [frozen, np.asfortranarray(observations), np.repeat(observations, 2, axis=0)[::2]]
    for form in forms:
        assert_close(engine.initial(form), expected)
    assert_close(engine.initial(observations.astype(np.float64)), expected)
    actions = np.array([0, 1, 2, 0], np.int32)
    child = child_of(engine, expected, actions)
    strided = expected._replace(hidden=np.asfortranarray(expected.hidden))
    assert_close(child_of(engine, strided, actions.astype(np.int64)), child)
    # Its own answer, written over.
    grandchild = child_of(engine, child, actions)
    engine.recurrent(child.hidden, actions, child)
    assert_close(child, grandchild)


def test_what_initial_returns_stays() -> None:
    engine = CompiledMlpEngine(make())
    root = engine.initial(observations_for((6,), 4))
    before = copy.deepcopy(root)
    child_of(engine, root._replace(hidden=root.hidden[::-1]), np.array([0, 1, 2, 0], np.int32))
    engine.initial(observations_for((6,), 4) + 1)
    for name in root._fields:
        np.testing.assert_array_equal(getattr(root, name), getattr(before, name))


@pytest.mark.parametrize("action", [-1, 3, 1_000_000])
def test_an_action_that_there_is_not_is_an_error(action: int) -> None:
    engine = CompiledMlpEngine(make(actions=3))
    root = engine.initial(observations_for((6,), 2))
    with pytest.raises(IndexError):
        child_of(engine, root, np.array([0, action], np.int32))


def test_inputs_of_another_shape_are_an_error() -> None:
    engine = CompiledMlpEngine(make())
    root = engine.initial(observations_for((6,), 2))
    hidden = root.hidden
    with pytest.raises(ValueError, match="not of the network's shape"):
        engine.initial(observations_for((7,), 2))
    for wrong in (hidden[:, 1:], hidden[:1], np.zeros((2, 500), np.float32)):
        with pytest.raises(ValueError, match="not of the network's shape"):
            engine.recurrent(wrong, np.zeros(2, np.int32), root)
    for field, array in root._asdict().items():
        short = root._replace(**{field: array[:1]})
        with pytest.raises(ValueError, match="not as much room"):
            engine.recurrent(hidden, np.zeros(2, np.int32), short)


def test_weights_are_prepared_beside_and_adopted_at_once() -> None:
    old, new = make(), make(seed=1)
    engine = CompiledMlpEngine(old)
    observations = observations_for((6,), 3)
    before = engine.initial(observations)
    # The two differ in their projection, too, which only training needs.
    flat = flatten_state(make_same_kind(new, old))
    prepared = engine.prepare(flat)
    flat[:] = np.nan  # a copy was taken
    np.testing.assert_array_equal(engine.initial(observations).value, before.value)
    engine.adopt(prepared)
    assert_close(engine.initial(observations), TorchEngine(new).initial(observations))
    engine.load(flatten_state(old))
    np.testing.assert_array_equal(engine.initial(observations).value, before.value)
    with pytest.raises(CheckpointError, match="do not fit this network"):
        engine.prepare(np.zeros(7, np.float32))


def make_same_kind(source: MuZeroNetwork, like: MuZeroNetwork) -> MuZeroNetwork:
    """`source`'s parameters in a network with the projection that `like` has."""
    net = copy.deepcopy(like)
    net.load_state_dict(source.state_dict(), strict=False)
    return net


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_weights_show(value: float) -> None:
    """Every parameter of g and f, whichever is broken, shows in an output; the search stops at it."""
    net = make()
    observations = observations_for((6,), 4)
    actions = np.array([0, 1, 2, 0], np.int32)
    root = CompiledMlpEngine(net).initial(observations)
    parts = ("dynamics_part", "reward_head", "policy_head", "value_head")
    names = [name for name, _ in net.named_parameters() if name.startswith(parts)]
    assert len(names) > 20
    for name in names:
        broken = copy.deepcopy(net)
        with torch.no_grad():
            dict(broken.named_parameters())[name].fill_(value)
        output = child_of(CompiledMlpEngine(broken), root, actions)
        assert not all(np.isfinite(array).all() for array in output), name
    search = make_search(PuctConfig(simulations=8), discount=0.99, num_players=1)
    with pytest.raises(NumericsError):
        search(
            root,
            CompiledMlpEngine(broken),
            np.ones((4, 3), np.bool_),
            np.random.default_rng(0),
            explore=True,
            temperature=np.ones(4, np.float32),
        )


@pytest.mark.parametrize("kind", ["puct", "gumbel"])
def test_searches_find_what_they_find_with_torch(kind: str) -> None:
    net = make(actions=4)
    observations = observations_for((6,), 32)
    found = []
    for engine in (CompiledMlpEngine(net), TorchEngine(net)):
        search = make_search(
            PuctConfig(simulations=30) if kind == "puct" else GumbelConfig(simulations=30), discount=0.99, num_players=1
        )
        found.append(
            search(
                engine.initial(observations),
                engine,
                np.ones((32, 4), np.bool_),
                np.random.default_rng(0),
                explore=True,
                temperature=np.ones(32, np.float32),
            )
        )
    # A rounding error may turn a tie of two actions; no more than that.
    variation = np.abs(found[0].visit_counts - found[1].visit_counts).sum(axis=1) / 60
    assert variation.mean() <= 0.02


def test_only_for_networks_of_kind_mlp() -> None:
    net = build(RESNET, (2, 32, 32))
    with pytest.raises(ValueError, match="kind mlp"):
        CompiledMlpEngine(net)


def test_extreme_logits_have_an_expectation() -> None:
    """All mass on one bin, at either end: the softmax neither overflows nor loses it."""
    for bin_, transform in itertools.product((0, 10, 20), (False, True)):
        net = make(head_layers=(), value=SupportConfig(max=5.0, bins=21, transform=transform))
        with torch.no_grad():
            net.value_head[0].weight.zero_()  # type: ignore[index]
            net.value_head[0].bias.fill_(-3e4)[bin_] = 3e4  # type: ignore[index]
        observations = observations_for((6,), 3)
        expected = TorchEngine(net).initial(observations).value
        np.testing.assert_allclose(CompiledMlpEngine(net).initial(observations).value, expected, rtol=1e-6, atol=1e-30)
