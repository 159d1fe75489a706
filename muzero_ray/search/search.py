"""The simulation loop, and the two searches built on it: `puct_search` (MuZero) and `gumbel_search` (Gumbel MuZero).

The model is an argument. Values are for the player to move, rewards for the player who acted; discounts are signed, as
in mctx: that of two players is -gamma, since the value of a child is its opponent's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from muzero_ray.config.search import GumbelConfig, PuctConfig, SearchConfig
from muzero_ray.errors import NumericsError
from muzero_ray.search import tree as kernels
from muzero_ray.search.gumbel import gumbel_result, gumbel_root_scores, gumbel_step
from muzero_ray.search.puct import puct_result, puct_step
from muzero_ray.search.workspace import Workspace, WorkspaceCache
from muzero_ray.types import Array, BoolArray, EdgeAnswers, FloatArray, HostPool, IntArray, NetworkOutput, SearchResult


class Model(Protocol):
    """What a search asks of an engine. The search names nodes and actions; latents are the engine's."""

    def pool(self, root: Array, nodes: int) -> HostPool | None:
        """Begins a search of `B` trees with up to `nodes` nodes: node 0 of each has the latent that `initial` answered,
        `root` `[B, ...]`. Returns where latents are in memory of the host, and the steps gather those of the parents
        into `hidden`; None where they are elsewhere."""
        ...

    def expand(self, leaf: int, parents: IntArray, actions: IntArray, out: EdgeAnswers) -> None:
        """What follows `actions` `[B]` in the nodes `parents` `[B]`: fills `out`, and keeps the latents as node `leaf`.

        out.discount has the discount of the search already; a model that knows better writes its own. All arrays are
        buffers that later simulations overwrite.
        """
        ...


_UNVISITED = {
    "zero": kernels.UNVISITED_ZERO,
    "parent": kernels.UNVISITED_PARENT,
    "completed": kernels.UNVISITED_COMPLETED,
}
_BROKEN_INSIDE = "The network returned NaN or infinity inside a search: its weights are broken"


def puct_search(
    root: NetworkOutput,
    model: Model,
    settings: PuctConfig,
    *,
    legal: BoolArray,
    discount: float,
    rng: np.random.Generator,
    noise: bool,
    temperature: FloatArray,
    workspaces: WorkspaceCache | None = None,
) -> SearchResult:
    """MuZero search (arXiv 1911.08265, appendix B): policy target = visit shares, action drawn from visits^(1/T).

    root: `B` states to search. legal: `[B, A]`, at the root only. temperature: `[B]`, 0 = the most visited action (of
    several, the one with the largest Q). noise: Dirichlet noise in the root priors, over legal actions; without it
    (evaluation) temperature counts as 0 and `rng` is not used.
    The parent's N of pUCT counts its own expansion, so that a fresh node follows its prior.
    unvisited: score of a child without visits: `zero` = the lowest Q seen (the paper's normalised 0), `parent` = the
    parent's mean value, `completed` = v_mix of visited siblings and the parent.
    value_bounds: known range of Q; otherwise the range of the Q backed up in this tree and its root's value, or
    `min_value_range` if that is larger: where all actions are worth about the same, differences stay small.
    root_value: mean of the root's network value and all backups. It holds the noise-driven visits too, as the paper's
    does: with PUCT they are few, and follow the prior and Q like the play they stand for.
    Raises ValueError for malformed input, NumericsError when the network returned NaN or infinity.
    """
    _check_root(root, legal)
    workspace = _workspace(workspaces, root, model, settings.simulations, discount)
    shape = root.policy_logits.shape
    # Gamma draws, normalised over the legal actions of each row, are a draw from the Dirichlet distribution.
    if noise:
        gammas, draws = rng.standard_gamma(settings.dirichlet_alpha, shape), rng.random(len(legal))
        heat = _own(temperature, np.float32)
    else:
        gammas, draws, heat = np.zeros(shape), np.zeros(len(legal)), np.zeros(len(legal), np.float32)
    # Not after the simulations: what Python runs then comes slowly, out of memory that the network has used since.
    result = _empty_result(*shape)
    _init_roots(workspace, root, legal, gammas, settings.noise_fraction if noise else 0.0, settings)
    pb_c = _pb_c_table(settings.simulations + 1, settings.pb_c_base, settings.pb_c_init)
    step_settings = (pb_c, settings.value_bounds is None, _UNVISITED[settings.unvisited])
    _simulate(workspace, model, settings.simulations, puct_step, step_settings)
    if not puct_result(workspace.pointers, heat, draws, *result):
        raise NumericsError(_BROKEN_INSIDE)
    return result


def gumbel_search(
    root: NetworkOutput,
    model: Model,
    settings: GumbelConfig,
    *,
    legal: BoolArray,
    discount: float,
    rng: np.random.Generator,
    noise: bool,
    workspaces: WorkspaceCache | None = None,
) -> SearchResult:
    """Gumbel MuZero search (Danihelka et al., ICLR 2022): policy target = softmax(logits + sigma(completed Q)).

    Arguments as `puct_search`. noise: each root draws its own Gumbel noise, which samples the considered actions
    without replacement; without it (evaluation) they are those with the largest logits.
    root_value: v_mix of the root (appendix D): the network's value mixed with the Q of visited actions weighted by
    their priors. The mean of all backups would weight them by sequential halving instead, which spends half of its
    visits on actions it then discards; a target bootstrapped from it would be biased towards random play.
    """
    _check_root(root, legal)
    workspace = _workspace(workspaces, root, model, settings.simulations, discount)
    _init_roots(workspace, root, legal, np.zeros(legal.shape), 0.0, settings)
    noises = rng.gumbel(size=legal.shape) if noise else np.zeros(legal.shape)
    considered, c_visit, c_scale = settings.considered_actions, settings.c_visit, settings.c_scale
    gumbel_root_scores(workspace.pointers, _own(legal, np.bool_), noises, considered)
    logits, result = _own(root.policy_logits, np.float32), _empty_result(*legal.shape)
    step_settings = (_considered_visits(considered, settings.simulations), c_visit, c_scale)
    _simulate(workspace, model, settings.simulations, gumbel_step, step_settings)
    if not gumbel_result(workspace.pointers, logits, c_visit, c_scale, *result):
        raise NumericsError(_BROKEN_INSIDE)
    return result


def _simulate(
    workspace: Workspace,
    model: Model,
    simulations: int,
    step: Callable[..., None],
    settings: tuple[Any, ...],
) -> None:
    """Select, ask the network, back up: `simulations` times. Kept thin: with one root this loop is most of the cost."""
    parents, actions, answers, pointers = workspace.parents, workspace.actions, workspace.answers, workspace.pointers
    expand = model.expand
    step(0, pointers, *settings)
    for leaf in range(1, simulations + 1):
        expand(leaf, parents, actions, answers)
        step(leaf, pointers, *settings)


def _check_root(root: NetworkOutput, legal: BoolArray) -> None:
    logits = root.policy_logits
    if logits.ndim != 2 or legal.shape != logits.shape or legal.dtype != np.bool_:
        raise ValueError(
            f"legal has shape {legal.shape} and dtype {legal.dtype}, policy_logits have {logits.shape}: pass a bool "
            "mask [B, A] of the same shape"
        )
    if len(logits) == 0 or root.value.shape != logits.shape[:1] or root.hidden.shape[:1] != logits.shape[:1]:
        raise ValueError(
            f"root has hidden {root.hidden.shape}, value {root.value.shape}, policy_logits {logits.shape}: the first "
            "axis of each is the batch, at least 1"
        )


def _workspace(
    workspaces: WorkspaceCache | None, root: NetworkOutput, model: Model, simulations: int, discount: float
) -> Workspace:
    cache = WorkspaceCache() if workspaces is None else workspaces
    batch, num_actions = root.policy_logits.shape
    workspace = cache.get(batch, simulations + 1, num_actions)
    workspace.gather_from(model.pool(root.hidden, simulations + 1))
    workspace.answers.discount.fill(discount)
    return workspace


def _init_roots(
    workspace: Workspace,
    root: NetworkOutput,
    legal: BoolArray,
    noise: Array,
    fraction: float,
    settings: SearchConfig,
) -> None:
    (low, high), narrowest = settings.value_bounds or (0.0, 0.0), settings.min_value_range
    workspace.answers.value[...], workspace.answers.policy_logits[...] = root.value, root.policy_logits
    if not kernels.init_roots(workspace.pointers, _own(legal, np.bool_), noise, fraction, low, high, narrowest):
        rows = np.flatnonzero(~legal.any(axis=1))
        if len(rows):
            raise ValueError(
                f"row {rows[0]} of legal has no legal action: do not search states in which the game is over"
            )
        raise NumericsError("The network returned NaN or infinity for the root of a search: its weights are broken")


def _own(array: Array, dtype: type[np.generic]) -> Array:
    """A copy of the one layout that the steps are compiled for."""
    return np.array(array, dtype, order="C")


def _empty_result(batch: int, num_actions: int) -> SearchResult:
    return SearchResult(
        action=np.empty(batch, np.int32),
        policy_target=np.empty((batch, num_actions), np.float32),
        root_value=np.empty(batch, np.float32),
        visit_counts=np.empty((batch, num_actions), np.int32),
        depth=np.empty(batch, np.float32),
    )


@lru_cache(maxsize=32)
def _pb_c_table(nodes: int, base: float, init: float) -> FloatArray:
    """sqrt(N) * (log((N + base + 1) / base) + init) by the parent's visits N (MuZero, equation 2)."""
    visits = np.arange(nodes + 1)
    table: FloatArray = (np.sqrt(visits) * (np.log((visits + base + 1.0) / base) + init)).astype(np.float32)
    return table


def _halving_visits(considered: int, simulations: int) -> list[int]:
    """Visit count of the root actions that each simulation considers when sequential halving starts from
    `considered` (Gumbel MuZero, section 3, with the budget spent to the last simulation as in mctx)."""
    if considered <= 1:
        return list(range(simulations))
    phases = math.ceil(math.log2(considered))
    sequence: list[int] = []
    visits, left = [0] * considered, considered
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (phases * left))):
            sequence += visits[:left]
            visits[:left] = [count + 1 for count in visits[:left]]
        left = max(2, left // 2)
    return sequence[:simulations]


@lru_cache(maxsize=32)
def _considered_visits(considered_actions: int, simulations: int) -> IntArray:
    """`_halving_visits` for 0 to `considered_actions` actions, `[considered_actions + 1, simulations]`."""
    rows = [_halving_visits(considered, simulations) for considered in range(considered_actions + 1)]
    return np.array(rows, dtype=np.int32)
