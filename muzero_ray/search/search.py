"""The simulation loop, and the two searches built on it: `puct_search` (MuZero) and `gumbel_search` (Gumbel MuZero).

The model is a function argument. Values are for the player to move, rewards for the player who acted; `discount` is
signed, as in mctx: two players pass -gamma, since the value of a child is its opponent's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from muzero_ray.errors import NumericsError
from muzero_ray.search import tree as kernels
from muzero_ray.search.gumbel import gumbel_step, root_sigma
from muzero_ray.search.puct import puct_step
from muzero_ray.search.workspace import Workspace, WorkspaceCache
from muzero_ray.types import BoolArray, FloatArray, IntArray, NetworkOutput, SearchResult

RecurrentFunction = Callable[[FloatArray, IntArray], NetworkOutput]
"""`(hidden [B, ...], actions [B] int32) -> NetworkOutput` of the same B rows. Both arguments are buffers that the next
simulation overwrites: a model that keeps them must copy."""

_UNVISITED = {
    "zero": kernels.UNVISITED_ZERO,
    "parent": kernels.UNVISITED_PARENT,
    "completed": kernels.UNVISITED_COMPLETED,
}


def puct_search(
    root: NetworkOutput,
    recurrent_fn: RecurrentFunction,
    *,
    legal: BoolArray,
    simulations: int,
    discount: float,
    rng: np.random.Generator,
    noise: bool,
    dirichlet_alpha: float,
    noise_fraction: float,
    pb_c_base: float,
    pb_c_init: float,
    unvisited: Literal["zero", "parent", "completed"],
    value_bounds: tuple[float, float] | None,
    min_value_range: float,
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
    _check_root(root, legal, simulations)
    workspace = _workspace(workspaces, root, simulations)
    prior = _masked_softmax(root.policy_logits, legal)
    if noise:
        prior = (1.0 - noise_fraction) * prior + noise_fraction * _dirichlet(legal, dirichlet_alpha, rng)
    _plant(workspace, root, np.where(legal, prior, np.float32(-1.0)), value_bounds, min_value_range)
    pb_c = _pb_c_table(simulations + 1, pb_c_base, pb_c_init)
    step_settings = (discount, pb_c, value_bounds is None, _UNVISITED[unvisited])
    _simulate(workspace, recurrent_fn, simulations, puct_step, step_settings)
    visits, q = _root_children(workspace)
    root_value = _finite((workspace.nodes["value_sum"][:, 0] / (simulations + 1)).astype(np.float32))
    greedy = np.where(visits == visits.max(axis=1, keepdims=True), q, -np.inf).argmax(axis=1)
    action = _sample(visits, greedy, temperature, rng) if noise else greedy
    target = visits.astype(np.float32) / np.float32(simulations)
    return SearchResult(action.astype(np.int32), target, root_value, visits, _depth(workspace, simulations))


def gumbel_search(
    root: NetworkOutput,
    recurrent_fn: RecurrentFunction,
    *,
    legal: BoolArray,
    simulations: int,
    discount: float,
    rng: np.random.Generator,
    noise: bool,
    considered_actions: int,
    c_visit: float,
    c_scale: float,
    value_bounds: tuple[float, float] | None,
    min_value_range: float,
    workspaces: WorkspaceCache | None = None,
) -> SearchResult:
    """Gumbel MuZero search (Danihelka et al., ICLR 2022): policy target = softmax(logits + sigma(completed Q)).

    Arguments as `puct_search`. noise: each root draws its own Gumbel noise, which samples the considered actions
    without replacement; without it (evaluation) they are those with the largest logits.
    root_value: v_mix of the root (appendix D): the network's value mixed with the Q of visited actions weighted by
    their priors. The mean of all backups would weight them by sequential halving instead, which spends half of its
    visits on actions it then discards; a target bootstrapped from it would be biased towards random play.
    """
    _check_root(root, legal, simulations)
    workspace = _workspace(workspaces, root, simulations)
    keys = np.where(legal, root.policy_logits, -np.inf).astype(np.float32)
    keys -= keys.max(axis=1, keepdims=True)
    logits = keys.copy()
    if noise:
        keys += rng.gumbel(size=keys.shape).astype(np.float32)
    _plant(workspace, root, np.where(legal, _softmax(logits), np.float32(-1.0)), value_bounds, min_value_range)
    considered = np.minimum(considered_actions, np.count_nonzero(legal, axis=1))
    schedule = _considered_visits(considered_actions, simulations)[considered]
    step_settings = (discount, keys, schedule, c_visit, c_scale)
    _simulate(workspace, recurrent_fn, simulations, gumbel_step, step_settings)
    visits, _ = _root_children(workspace)
    root_value = np.empty_like(workspace.value)
    sigma = np.empty_like(keys)
    root_sigma(_tree(workspace), c_visit, c_scale, root_value, sigma)
    most_visited = visits == visits.max(axis=1, keepdims=True)
    action = np.where(most_visited, keys + sigma, -np.inf).argmax(axis=1)
    target = _softmax(logits + sigma)
    return SearchResult(action.astype(np.int32), target, _finite(root_value), visits, _depth(workspace, simulations))


def _simulate(
    workspace: Workspace,
    recurrent_fn: RecurrentFunction,
    simulations: int,
    step: Callable[..., None],
    settings: tuple[Any, ...],
) -> None:
    """Select, ask the network, back up: `simulations` times. Kept thin: with one root this loop is most of the cost."""
    arguments = workspace.step_arrays + settings
    reward, value, logits, latents = workspace.reward, workspace.value, workspace.logits, workspace.latents_view
    hidden, actions = workspace.hidden_view, workspace.actions
    step(0, *arguments)
    for leaf in range(1, simulations + 1):
        output = recurrent_fn(hidden, actions)
        if leaf == 1:
            _check_output(output, workspace)
        latents[leaf], reward[...], value[...], logits[...] = output
        step(leaf, *arguments)


def _check_root(root: NetworkOutput, legal: BoolArray, simulations: int) -> None:
    if simulations < 1:
        raise ValueError(f"simulations={simulations}: a search needs at least one")
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
    if not legal.any(axis=1).all():
        row = int(np.flatnonzero(~legal.any(axis=1))[0])
        raise ValueError(f"row {row} of legal has no legal action: do not search states in which the game is over")
    if not (np.isfinite(root.value).all() and np.isfinite(logits).all()):
        raise NumericsError("The network returned NaN or infinity for the root of a search: its weights are broken")


def _check_output(output: NetworkOutput, workspace: Workspace) -> None:
    """NumPy would broadcast a wrong shape silently."""
    shapes = tuple(np.shape(array) for array in output)
    workspace_shapes = (workspace.hidden_view, workspace.reward, workspace.value, workspace.logits)
    expected = tuple(array.shape for array in workspace_shapes)
    if shapes != expected:
        raise ValueError(f"recurrent_fn returned (hidden, reward, value, policy_logits) of {shapes}, not {expected}")


def _finite(root_value: FloatArray) -> FloatArray:
    """Any value or reward of the tree has gone into its root's."""
    if not np.isfinite(root_value).all():
        raise NumericsError("The network returned NaN or infinity inside a search: its weights are broken")
    return root_value


def _workspace(workspaces: WorkspaceCache | None, root: NetworkOutput, simulations: int) -> Workspace:
    cache = WorkspaceCache() if workspaces is None else workspaces
    batch, num_actions = root.policy_logits.shape
    return cache.get(batch, simulations + 1, num_actions, root.hidden)


def _tree(workspace: Workspace) -> kernels.Tree:
    return kernels.Tree(workspace.nodes, workspace.edges, workspace.rows, workspace.priors)


def _plant(
    workspace: Workspace,
    root: NetworkOutput,
    prior: FloatArray,
    value_bounds: tuple[float, float] | None,
    min_value_range: float,
) -> None:
    low, high = value_bounds or (0.0, 0.0)
    workspace.latents_view[0] = root.hidden
    workspace.value[...] = root.value
    kernels.reset(_tree(workspace), prior, workspace.value, low, high, min_value_range)


def _root_children(workspace: Workspace) -> tuple[IntArray, FloatArray]:
    visits = np.empty(workspace.logits.shape, np.int32)
    q = np.empty(workspace.logits.shape, np.float32)
    kernels.root_children(_tree(workspace), visits, q)
    return visits, q


def _depth(workspace: Workspace, simulations: int) -> FloatArray:
    depth: FloatArray = workspace.rows["depth"].astype(np.float32)
    return depth / np.float32(simulations)


def _softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis; -inf gives 0."""
    exponentials: FloatArray = np.exp(logits - logits.max(axis=1, keepdims=True))
    exponentials /= exponentials.sum(axis=1, keepdims=True)
    return exponentials


def _masked_softmax(logits: FloatArray, legal: BoolArray) -> FloatArray:
    return _softmax(np.where(legal, logits, -np.inf).astype(np.float32))


def _dirichlet(legal: BoolArray, alpha: float, rng: np.random.Generator) -> FloatArray:
    """One draw a row, over its legal actions, 0 elsewhere: Gamma draws, normalised."""
    draws = rng.standard_gamma(alpha, size=legal.shape) * legal
    draws /= np.maximum(draws.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return draws.astype(np.float32)


def _sample(visits: IntArray, greedy: Any, temperature: FloatArray, rng: np.random.Generator) -> Any:
    """Draws one action a row from visits^(1/T), `greedy` where T is 0."""
    warm = temperature > 0
    # Shares of the largest count, so that a small T can not overflow.
    shares = visits / visits.max(axis=1, keepdims=True)
    weights = shares ** (1.0 / np.where(warm, temperature, 1.0))[:, None]
    cumulative = weights.cumsum(axis=1)
    # In float64 a draw times the total stays below the total; the first action above it has a positive weight.
    thresholds = rng.random(len(visits)) * cumulative[:, -1]
    return np.where(warm, (cumulative > thresholds[:, None]).argmax(axis=1), greedy)


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
