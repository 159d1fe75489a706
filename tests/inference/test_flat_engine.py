"""Flat weights and the torch engine against the eager module."""

import copy
import warnings

import numpy as np
import pytest
import torch

from muzero_ray.config.schema import NetworkConfig
from muzero_ray.errors import CheckpointError
from muzero_ray.inference.torch_engine import TorchEngine
from muzero_ray.networks.flat import flatten_state, load_flat, num_parameters, to_tensor
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.types import Array, FloatArray
from tests.children import child_of
from tests.networks.test_model import MLP, RESNET, build

KINDS = [pytest.param(MLP, (4,), id="mlp"), pytest.param(RESNET, (2, 32, 32), id="resnet")]


def trained_like(net: MuZeroNetwork, seed: int) -> FloatArray:
    """Flat weights without the zeros of fresh heads."""
    noise = np.random.default_rng(seed).normal(0, 0.1, num_parameters(net))
    return (flatten_state(net) + noise).astype(np.float32)


def some_observations(shape: tuple[int, ...], batch: int = 5) -> Array:
    rng = np.random.default_rng(2)
    if len(shape) == 1:
        return rng.normal(size=(batch, *shape)).astype(np.float32)
    return rng.integers(0, 256, (batch, *shape), dtype=np.uint8)


@pytest.mark.parametrize(("cfg", "shape"), KINDS)
def test_flat_round_trip(cfg: NetworkConfig, shape: tuple[int, ...]) -> None:
    net = build(cfg, shape)
    flat = trained_like(net, 0)
    load_flat(net, flat)
    back = flatten_state(net)
    assert back.dtype == np.float32
    assert np.array_equal(back, flat)
    # Independent of the memory format: the same numbers, tensor by tensor, in logical order.
    by_hand = np.concatenate([p.detach().numpy().flatten() for p in net.parameters()])
    assert np.array_equal(by_hand, flat)
    back[:] = 0
    assert np.array_equal(flatten_state(net), flat)


def test_weights_of_another_network_are_refused() -> None:
    net = build(MLP, (4,))
    before = flatten_state(net)
    for wrong in (before[:-1], np.zeros(len(before) + 1, np.float32), before[None]):
        with pytest.raises(CheckpointError, match="another one"):
            load_flat(net, wrong)
    assert np.array_equal(flatten_state(net), before)


def test_read_only_arrays_are_copied_without_a_warning_and_others_shared() -> None:
    array = np.arange(3, dtype=np.float32)
    assert to_tensor(array).data_ptr() == array.ctypes.data
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = to_tensor(array)
    tensor += 1
    assert array.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("cfg", "shape"), KINDS)
def test_engine_equals_the_eager_module(cfg: NetworkConfig, shape: tuple[int, ...]) -> None:
    net = build(cfg, shape)
    engine = TorchEngine(net)
    flat = trained_like(net, 1)
    engine.load(flat)
    load_flat(net, flat)
    images = some_observations(shape)
    actions = np.array([0, 1, 2, 3, 0], np.int32)
    root = engine.initial(images)
    child = child_of(engine, root, actions)
    with torch.no_grad():
        hidden = net.represent(torch.from_numpy(images))
        after, reward = net.dynamics(hidden, torch.from_numpy(actions))
        expected = [(hidden, torch.zeros(5)), (after, net.reward_support.decode(reward))]
        for out, (state, reward_value) in zip((root, child), expected, strict=True):
            policy, value = net.predict(state)
            layout = state.permute(0, 2, 3, 1) if state.dim() == 4 else state
            assert out.hidden.flags.c_contiguous
            for ours, theirs in (
                (out.hidden, layout),
                (out.reward, reward_value),
                (out.value, net.value_support.decode(value)),
                (out.policy_logits, policy),
            ):
                assert ours.dtype == np.float32
                np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)
    assert np.abs(child.reward).min() > 1e-4  # the weights above make the comparison say something


@pytest.mark.parametrize(("cfg", "shape"), KINDS)
def test_bf16_engine_is_close_and_speaks_float32(cfg: NetworkConfig, shape: tuple[int, ...]) -> None:
    net = build(cfg, shape)
    load_flat(net, trained_like(net, 1))
    images = some_observations(shape)
    actions = np.array([0, 1, 2, 3, 0], np.int32)
    exact, rough = TorchEngine(net), TorchEngine(net, bf16=True)
    one, two = (child_of(engine, engine.initial(images), actions) for engine in (exact, rough))
    for name, ours, theirs in zip(one._fields, two, one, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=0.1 * max(1.0, float(np.abs(theirs).max())), err_msg=name)


def test_engine_shares_nothing_with_the_network_it_came_from() -> None:
    net = build(MLP, (4,))
    load_flat(net, trained_like(net, 1))
    engine = TorchEngine(net)
    images = some_observations((4,))
    before = copy.deepcopy(engine.initial(images))
    flat = flatten_state(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    assert np.array_equal(engine.initial(images).value, before.value)
    engine.load(flat)
    flat[:] = 0  # the vector is copied too
    assert np.array_equal(engine.initial(images).value, before.value)
    assert all(p.requires_grad for p in net.parameters())
