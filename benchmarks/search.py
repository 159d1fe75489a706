"""The tree alone, and whole searches with the networks that self-play uses."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import nn

from benchmarks.engines import CONV_ENGINES, MLP_ENGINES, Engines
from benchmarks.measure import Effort, Row, Trial, make_row, rate, take_turns
from muzero_ray.config.schema import GumbelConfig, MlpConfig, NetworkConfig, PuctConfig, ResnetConfig, SupportConfig
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.inference.host_latents import HostLatents
from muzero_ray.networks.build import make_network
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.search.policies import SearchFunction, make_search
from muzero_ray.search.search import Model
from muzero_ray.search.workspace import Workspace
from muzero_ray.types import Array, BoolArray, EdgeAnswers, FloatArray, HostPool, IntArray, NetworkOutput, SearchResult

SEED = 0
TREE_SIMULATIONS = 50
TREE_BATCHES, TREE_ACTIONS = (1, 64), (4, 18)
SIMULATIONS = (16, 50)

_SUPPORT = SupportConfig(max=10.0, bins=21, transform=False)
MLP = MlpConfig(hidden=64, layers=(64, 64), head_layers=(), value=_SUPPORT, reward=_SUPPORT)
CONV = ResnetConfig(channels=64, blocks=1, downsample=16)  # 96x96 to 6x6; 601 bins are the default


def tree(effort: Effort) -> Iterator[Row]:
    """PUCT and Gumbel on a model that costs nothing.

    PUCT is compared with the same loop around a step that does nothing: what Python, the call and the copies cost.
    Latents are one number, so that gathering them counts in whole searches only.
    """
    for batch, actions in itertools.product(TREE_BATCHES, TREE_ACTIONS):
        outputs = _free_outputs(batch, actions)
        trials: list[Trial] = [partial(_empty_loop, batch, actions, outputs, effort.seconds)]
        for kind in ("puct", "gumbel"):
            search = _search(kind, TREE_SIMULATIONS)
            trials.append(partial(_free_search, kind, search, outputs, effort.seconds))
        samples = take_turns(trials, effort.repeats)
        where = f"B{batch}/A{actions}"
        yield make_row(f"tree/puct/{where}", "sims/s", samples, "puct", "loop", "loop with an empty step")
        yield make_row(f"tree/gumbel/{where}", "sims/s", samples, "gumbel", "puct", "tree/puct")
        # How far a simulation walks is most of its cost: figures of trees of other depths cannot be compared.
        yield make_row(f"tree-depth/puct/{where}", "edges", samples, "puct depth")
        yield make_row(f"tree-depth/gumbel/{where}", "edges", samples, "gumbel depth", "puct depth", "tree-depth/puct")


def searches(effort: Effort) -> Iterator[Row]:
    """Whole PUCT searches, from the root's network output to the chosen action, with noise as in self-play."""
    mlp = _network(MLP, (4,), 4)
    conv = _network(CONV, (4, 96, 96), 18)
    for batch, simulations in itertools.product(effort.batch_sizes, SIMULATIONS):
        vectors = np.random.default_rng(SEED).normal(size=(batch, 4)).astype(np.float32)
        yield from _compare_engines("mlp", mlp, MLP_ENGINES, vectors, simulations, effort)
        images = np.random.default_rng(SEED).integers(0, 256, (batch, 4, 96, 96), dtype=np.uint8)
        yield from _compare_engines("conv", conv, CONV_ENGINES, images, simulations, effort)


def _compare_engines(
    name: str, network: MuZeroNetwork, engines: Engines, observations: Array, simulations: int, effort: Effort
) -> Iterator[Row]:
    """Three rows per engine, and one more for each but the first: its search against the reference's."""
    trials: list[Trial] = []
    for label, choice in engines.items():
        engine = choice.make(network)
        root = engine.initial(observations)
        search = partial(_run, _search("puct", simulations))
        trials.append(partial(_whole_search, label, search, simulations, engine, root, effort.seconds))
        trials.append(partial(_network_alone, label, engine, root, effort.seconds))
    samples = take_turns(trials, effort.repeats)
    reference = next(iter(engines))
    for label in engines:
        place = f"{name}/{label}/B{len(observations)}/S{simulations}"
        alone, total = f"{label} alone", f"{label} total"
        yield make_row(f"network/{place}", "sims/s", samples, alone)
        yield make_row(f"search/{place}", "sims/s", samples, label, alone, "network alone, same engine")
        yield make_row(f"search-outside/{place}", "us/call", samples, f"{label} outside", total, "time of the search")
        if label != reference:
            yield make_row(f"search-gain/{place}", "sims/s", samples, label, reference, f"search with {reference}")


def _whole_search(
    label: str,
    search: Callable[..., SearchResult],
    simulations: int,
    engine: InferenceEngine,
    root: NetworkOutput,
    seconds: float,
) -> dict[str, float]:
    """Simulations/s, and per call of the network: all time, and time outside the network, in us."""
    clock, batch = _Clock(engine), len(root.value)
    per_second = rate(partial(search, root, clock, np.random.default_rng(SEED)), batch * simulations, seconds)
    total = 1e6 * batch / per_second
    inside = 1e6 * clock.seconds / clock.calls
    return {label: per_second, f"{label} total": total, f"{label} outside": total - inside}


def _network_alone(label: str, engine: InferenceEngine, root: NetworkOutput, seconds: float) -> dict[str, float]:
    """The engine asked for one simulation after the other, with nothing between."""
    hidden, out = root.hidden.copy(), NetworkOutput(*(np.empty_like(array) for array in root))
    actions: IntArray = np.arange(len(hidden), dtype=np.int32) % root.policy_logits.shape[1]
    return {f"{label} alone": rate(lambda: engine.recurrent(hidden, actions, out), len(hidden), seconds)}


class _Clock(HostLatents):
    """Adds up the time spent in the network of `engine`. The time it takes to keep latents is the search's."""

    def __init__(self, engine: InferenceEngine) -> None:
        super().__init__()
        self._engine = engine
        self.seconds, self.calls = 0.0, 0

    def recurrent(self, hidden: Array, actions: IntArray, out: NetworkOutput) -> None:
        begin = time.perf_counter()
        self._engine.recurrent(hidden, actions, out)
        self.seconds += time.perf_counter() - begin
        self.calls += 1


def _search(kind: str, simulations: int) -> SearchFunction:
    config = PuctConfig(simulations=simulations) if kind == "puct" else GumbelConfig(simulations=simulations)
    return make_search(config, discount=0.997, num_players=1)


def _run(search: SearchFunction, root: NetworkOutput, model: Model, rng: np.random.Generator) -> SearchResult:
    """One move: a search with noise at temperature 1."""
    legal, temperature = _ones(root.policy_logits.shape)
    return search(root, model, legal, rng, explore=True, temperature=temperature)


@lru_cache
def _ones(shape: tuple[int, int]) -> tuple[BoolArray, FloatArray]:
    """All actions legal, and temperatures of 1. Self-play, too, has them at hand."""
    return np.ones(shape, np.bool_), np.ones(shape[0], np.float32)


def _free_search(kind: str, search: SearchFunction, outputs: list[NetworkOutput], seconds: float) -> dict[str, float]:
    run = partial(_run, search, outputs[0], _FreeModel(outputs), np.random.default_rng(SEED))
    per_second = rate(run, len(outputs[0].value) * TREE_SIMULATIONS, seconds)
    return {kind: per_second, f"{kind} depth": float(run().depth.mean())}


def _free_outputs(batch: int, actions: int) -> list[NetworkOutput]:
    """One answer for each simulation and the root, made beforehand: trees of ordinary shape from a free model."""
    rng = np.random.default_rng(SEED)

    def normal(*shape: int) -> FloatArray:
        return rng.normal(size=shape).astype(np.float32)

    return [
        NetworkOutput(normal(batch, 1), normal(batch), normal(batch), normal(batch, actions))
        for _ in range(TREE_SIMULATIONS + 1)
    ]


class _FreeModel:
    """Gives these answers in turn."""

    def __init__(self, outputs: list[NetworkOutput]) -> None:
        self._answers = itertools.cycle(outputs)
        root = outputs[0].hidden
        latents = np.zeros((TREE_SIMULATIONS + 1, *root.shape), np.float32)
        self._pool = HostPool(list(latents), latents, np.zeros_like(root))

    def pool(self, _root: Array, _nodes: int) -> HostPool:
        return self._pool

    def expand(self, leaf: int, _parents: IntArray, _actions: IntArray, out: EdgeAnswers) -> None:
        latents = self._pool.nodes[leaf]
        latents[...], out.reward[...], out.value[...], out.policy_logits[...] = next(self._answers)


@njit
def _empty_step(_leaf: int, *_arguments: Any) -> None:
    """Takes what a step takes and leaves it alone."""


def _empty_loop(batch: int, actions: int, outputs: list[NetworkOutput], seconds: float) -> dict[str, float]:
    """The loop of `search.search` around `_empty_step`: what no tree can be faster than, as long as Python calls it."""
    space, model = Workspace(batch, TREE_SIMULATIONS + 1, actions), _FreeModel(outputs)
    settings = (np.zeros(TREE_SIMULATIONS + 2, np.float32), True, 0)
    space.gather_from(model.pool(outputs[0].hidden, TREE_SIMULATIONS + 1))

    def loop() -> None:
        _empty_step(0, space.pointers, *settings)
        for leaf in range(1, TREE_SIMULATIONS + 1):
            model.expand(leaf, space.parents, space.actions, space.answers)
            _empty_step(leaf, space.pointers, *settings)

    return {"loop": rate(loop, batch * TREE_SIMULATIONS, seconds)}


def _network(config: NetworkConfig, observation_shape: tuple[int, ...], actions: int) -> MuZeroNetwork:
    """A network whose heads tell states apart: those of a fresh one answer 0 to everything, and trees would be flat."""
    network = make_network(
        config, observation_shape=observation_shape, num_actions=actions, consistency=False, seed=SEED
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for head in (network.policy_head, network.value_head, network.reward_head):
            last = [module for module in head.modules() if isinstance(module, nn.Linear)][-1]
            nn.init.normal_(last.weight, std=last.in_features**-0.5)
    return network
