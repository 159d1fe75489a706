"""The engine interface, every engine against the same bar: refreshing weights, and agreement with eager torch."""

import builtins
import copy
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from muzero_ray.config.schema import NetworkConfig, PuctConfig
from muzero_ray.errors import CheckpointError, ConfigError
from muzero_ray.inference.build import make_engine
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.inference.mlp_engine import CompiledMlpEngine
from muzero_ray.inference.openvino_engine import OpenVinoEngine, padded_size
from muzero_ray.inference.torch_engine import TorchEngine
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.networks.notes import say_once
from muzero_ray.search.policies import make_search
from muzero_ray.types import Array, FloatArray, IntArray, NetworkOutput
from tests.children import child_of
from tests.inference.test_flat_engine import some_observations, trained_like
from tests.networks.test_model import MLP, RESNET, build

BOARD = RESNET.model_copy(update={"downsample": 1})
Make = Callable[[MuZeroNetwork], InferenceEngine]

ENGINES = [
    pytest.param(TorchEngine, MLP, (4,), id="torch mlp"),
    pytest.param(TorchEngine, RESNET, (2, 32, 32), id="torch resnet"),
    pytest.param(CompiledMlpEngine, MLP, (4,), id="compiled mlp"),
    pytest.param(OpenVinoEngine, RESNET, (2, 32, 32), id="openvino"),
    pytest.param(partial(OpenVinoEngine, bf16=True), RESNET, (2, 32, 32), id="openvino bf16"),
]
# Network and shape of one observation: images of two sizes, and boards as floats.
IMAGES = [
    pytest.param(RESNET, (2, 32, 48), np.uint8, id="downsample 16"),
    pytest.param(RESNET.model_copy(update={"downsample": 4, "blocks": 2}), (3, 16, 16), np.uint8, id="downsample 4"),
    pytest.param(BOARD.model_copy(update={"channels": 17}), (3, 3, 3), np.float32, id="board"),
    pytest.param(BOARD.model_copy(update={"norm": "batch"}), (3, 3, 3), np.float32, id="batch norm"),
]


def actions(batch: int) -> IntArray:
    return (np.arange(batch) % 4).astype(np.int32)


def answers(engine: InferenceEngine, observations: Array) -> list[Array]:
    """Copies of everything the engine says of the observations and of one step from them, in float32."""
    root = engine.initial(observations)
    return [as_float(x) for x in (*root, *child_of(engine, root, actions(len(observations))))]


def as_float(array: Array) -> Array:
    """A copy; latents that are the bits of bf16, as numbers."""
    return (array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else array.copy()


def same(one: list[Array], other: list[Array]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


def observations_of(shape: tuple[int, ...], dtype: Any, batch: int) -> Array:
    images = some_observations(shape, batch)
    return images if dtype == np.uint8 else (images / np.float32(255)).astype(np.float32)


@pytest.mark.parametrize(("make", "cfg", "shape"), ENGINES)
def test_adopted_weights_are_those_of_a_fresh_load(make: Make, cfg: NetworkConfig, shape: tuple[int, ...]) -> None:
    net = build(cfg, shape)
    old, new = trained_like(net, 1), trained_like(net, 2)
    serving, fresh = make(net), make(net)
    serving.load(old)
    fresh.load(new)
    observations = some_observations(shape)
    before, expected = answers(serving, observations), answers(fresh, observations)
    assert not same(before, expected)
    prepared = serving.prepare(new)
    new[:] = 0  # the vector is copied
    assert same(answers(serving, observations), before)  # preparing changes nothing yet
    few = observations[:1]
    serving.initial(few)  # a batch size that was not there to be prepared
    serving.adopt(prepared)
    assert same(answers(serving, observations), expected)
    assert same(answers(serving, few), answers(fresh, few))
    serving.load(old)
    assert same(answers(serving, observations), before)


@pytest.mark.parametrize(("make", "cfg", "shape"), ENGINES)
def test_a_failed_prepare_leaves_the_old_weights_serving(
    make: Make, cfg: NetworkConfig, shape: tuple[int, ...]
) -> None:
    net = build(cfg, shape)
    engine = make(net)
    flat = trained_like(net, 1)
    engine.load(flat)
    observations = some_observations(shape)
    before = answers(engine, observations)
    for wrong in (flat[:-1], flat[None]):
        with pytest.raises(CheckpointError, match="another one"):
            engine.prepare(wrong)
        with pytest.raises(CheckpointError, match="another one"):
            engine.load(wrong)
    assert same(answers(engine, observations), before)


@pytest.mark.parametrize(("make", "cfg", "shape"), ENGINES)
def test_an_engine_starts_with_the_weights_of_its_network_and_owns_them(
    make: Make, cfg: NetworkConfig, shape: tuple[int, ...]
) -> None:
    net = build(cfg, shape)
    observations = some_observations(shape)
    trained = [parameter.requires_grad for parameter in net.parameters()]
    engine, expected = make(net), answers(TorchEngine(net), observations)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    for ours, theirs in zip(answers(engine, observations), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.05)
    assert [parameter.requires_grad for parameter in net.parameters()] == trained


@pytest.mark.parametrize(("cfg", "shape", "dtype"), IMAGES)
@pytest.mark.parametrize("batch", [1, 5, 8])
def test_openvino_computes_what_eager_torch_does(
    cfg: NetworkConfig, shape: tuple[int, ...], dtype: Any, batch: int
) -> None:
    net = build(cfg, shape)
    exact, ours, rough = TorchEngine(net), OpenVinoEngine(net), OpenVinoEngine(net, bf16=True)
    flat = trained_like(net, 1)
    for engine in (exact, ours, rough):
        engine.load(flat)
    observations = observations_of(shape, dtype, batch)
    expected = answers(exact, observations)
    for engine, tolerance in ((ours, 1e-4), (rough, 0.1)):
        for mine, theirs in zip(answers(engine, observations), expected, strict=True):
            assert mine.dtype == np.float32
            assert mine.shape == theirs.shape
            np.testing.assert_allclose(mine, theirs, atol=tolerance * max(1.0, float(np.abs(theirs).max())))
    assert np.abs(expected[5]).min() > 1e-4  # rewards: the weights above make the comparison say something


def test_openvino_reads_the_callers_buffer_anew_at_each_call() -> None:
    net = build(RESNET, (2, 32, 32))
    exact, engine = TorchEngine(net), OpenVinoEngine(net)
    for one in (exact, engine):
        one.load(trained_like(net, 1))
    other: FloatArray = np.random.default_rng(0).random((8, 2, 2, 8), dtype=np.float32)
    root = exact.initial(some_observations((2, 32, 32), 8))
    roots = [root.hidden, other]
    buffer = np.empty_like(other)
    for hidden in (*roots, roots[0]):
        buffer[...] = hidden
        for rows in (8, 3):  # in place, and padded
            parents = NetworkOutput(*(array[:rows] for array in root._replace(hidden=buffer)))
            ours, theirs = child_of(engine, parents, actions(rows)), child_of(exact, parents, actions(rows))
            for mine, reference in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=1e-4)
    # Ray's arrays are read-only, and slices may be strided.
    read_only = roots[0].copy()
    read_only.flags.writeable = False
    every_other = np.repeat(roots[0], 2, axis=0)[::2]
    expected = child_of(exact, root, actions(8)).value
    for hidden in (read_only, every_other):
        got = child_of(engine, root._replace(hidden=hidden), actions(8)).value
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [8, 7])  # 7 are padded
def test_openvino_answers_where_it_is_asked_to(rows: int) -> None:
    """Also after more places than it remembers, whose memory may be another array's by then."""
    net = build(RESNET, (2, 32, 32))
    engine = OpenVinoEngine(net, bf16=True)
    engine.load(trained_like(net, 1))
    root = engine.initial(some_observations((2, 32, 32), rows))
    expected = [array.copy() for array in child_of(engine, root, actions(rows))]
    kept = [child_of(engine, root, actions(rows)) for _ in range(400)]
    for out in (*kept, *kept[:3]):
        engine.recurrent(root.hidden, actions(rows), out)
    assert all(same(list(out), expected) for out in kept)


def test_what_initial_returns_is_the_callers() -> None:
    net = build(RESNET, (2, 32, 32))
    engine = OpenVinoEngine(net)
    images = some_observations((2, 32, 32), 4)
    first = engine.initial(images)
    kept = copy.deepcopy(first)
    engine.initial(255 - images)
    assert same(list(first), list(kept))


def test_padded_sizes_are_few_and_waste_little() -> None:
    sizes = [padded_size(batch) for batch in range(1, 65)]
    assert sorted(set(sizes)) == [1, 2, 4, 8, 12, 16, 24, 32, 48, 64]
    for batch, size in enumerate(sizes, start=1):
        assert batch <= size <= max(1.5 * batch, batch + 3)


def test_searches_with_bf16_visit_as_those_with_float32() -> None:
    """Mean total variation of the root's visit shares. Over several networks that tell random images apart: in a single
    one, a near tie at many roots would decide."""
    coarse = np.random.default_rng(0).integers(0, 256, (64, 2, 4, 4), dtype=np.uint8)
    images = coarse.repeat(8, axis=2).repeat(8, axis=3)
    variations: list[float] = []
    targets: set[bytes] = set()
    for seed in range(8):
        net = build(RESNET.model_copy(update={"channels": 32, "head_channels": 16}), (2, 32, 32), actions=6)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for head in (net.policy_head, net.value_head, net.reward_head):
                last = [module for module in head.modules() if isinstance(module, torch.nn.Linear)][-1]
                torch.nn.init.normal_(last.weight, std=0.3)
        exact, ours = (_visits(e.initial(images), e) for e in (TorchEngine(net), OpenVinoEngine(net, bf16=True)))
        variations.append(0.5 * np.abs(exact - ours).sum(axis=1).mean())
        targets.update(map(bytes, exact))
    assert len(targets) > 128
    assert np.mean(variations) <= 0.02


def _visits(root: NetworkOutput, engine: InferenceEngine) -> FloatArray:
    search = make_search(PuctConfig(simulations=50), discount=0.99, num_players=1)
    legal, temperature = np.ones(root.policy_logits.shape, np.bool_), np.zeros(len(root.value), np.float32)
    rng = np.random.default_rng(0)
    return search(root, engine, legal, rng, explore=False, temperature=temperature).policy_target


@pytest.mark.parametrize(
    ("engine", "cfg", "shape", "kind"),
    [
        ("auto", MLP, (4,), CompiledMlpEngine),
        ("auto", RESNET, (2, 32, 32), OpenVinoEngine),
        ("compiled", MLP, (4,), CompiledMlpEngine),
        ("compiled", RESNET, (2, 32, 32), OpenVinoEngine),
        ("torch", MLP, (4,), TorchEngine),
        ("torch", RESNET, (2, 32, 32), TorchEngine),
    ],
)
def test_selection(engine: Any, cfg: NetworkConfig, shape: tuple[int, ...], kind: type) -> None:
    assert type(make_engine(build(cfg, shape), engine=engine, bf16=True, threads=1)) is kind


def test_without_openvino(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    found = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "muzero_ray.inference.openvino_engine":
            raise ModuleNotFoundError("No module named 'openvino'")
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    net = build(RESNET, (2, 32, 32))
    say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert type(make_engine(net, engine="auto", bf16=False, threads=1)) is TorchEngine
    assert [record.getMessage() for record in caplog.records] == [caplog.records[0].getMessage()]
    assert "pip install 'muzero-ray[openvino]'" in caplog.text
    assert "No module named 'openvino'" in caplog.text
    with pytest.raises(ConfigError, match=r"actors.engine=compiled.*muzero-ray\[openvino\]"):
        make_engine(net, engine="compiled", bf16=False, threads=1)
