"""What the compiled steps of `puct` and `gumbel` share: planting, entering, opening, backing up; `workspace` holds the
records they work on.

Letters: `B` roots searched side by side, `N` nodes of a tree (simulations + 1, node 0 is the root), `A` actions. One
call per simulation backs up the newest leaf of every tree and selects the next one. Only visited children are stored,
packed in the order of their first visit: while unvisited, children share one Q, so the one with the largest prior
goes first and a selection costs the visited children, not `A`. For the same reason a leaf keeps its raw logits until
it is entered for the first time, which most leaves never are.

Ties go to the child visited first, that is to the larger prior and then to the lower action. Nothing here is random.
All that is read of a row belongs to that row, so a search does not depend on its neighbours in the batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit

from muzero_ray.types import Array, FloatArray, IntArray

UNVISITED_ZERO, UNVISITED_PARENT, UNVISITED_COMPLETED = 0, 1, 2

ZERO, ONE, INF = np.float32(0.0), np.float32(1.0), np.float32(np.inf)
_LOWEST, _LOG_2, _LOG2_E = np.float32(-87.0), np.float32(0.69314718), np.float32(1.44269504)
_ROUNDING = np.float32(1.5 * 2**23)
_TINY = np.float32(1e-37)  # smallest prior of a visited child, above the denormals

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {
    "cache": True,
    # Without `nnan` and `ninf`: infinities are used as sentinels, and a network's NaN must not become a bad index.
    "fastmath": {"reassoc", "arcp", "contract", "nsz"},
    "error_model": "numpy",
    # Arrays come from Python and outlive the call. Counting references to them would cost an atomic operation whenever
    # a function reads one: a fifth of the time in the steps.
    "_nrt": False,
}


# Numba stores a step until the file of the step changes. The name of what it stores stands for the helpers' file.
_VERSION = f"_{zlib.crc32(Path(__file__).read_bytes()):08x}"


def step(function: _Function) -> _Function:
    """Compiles what Python calls. Allocates nothing: neither it nor its helpers may create an array."""
    function.__qualname__ += _VERSION
    compiled: _Function = njit(**_OPTIONS)(function)
    return compiled


def helper(function: _Function) -> _Function:
    """Compiles a part of steps, always inlined: a call that hands over a tree costs as much as most parts do."""
    compiled: _Function = njit(inline="always", **_OPTIONS)(function)
    return compiled


def exact_helper(function: _Function) -> _Function:
    """As `helper`, for arithmetic on scalars whose order matters: LLVM inlines it, and may not rearrange it."""
    compiled: _Function = njit(**_OPTIONS | {"fastmath": {"contract"}})(function)
    return compiled


class Tree(NamedTuple):
    """`[B, N]` nodes, `[B, N, S]` edges, `[B]` rows, `[B, N, A]` priors: see `Workspace`."""

    nodes: Array
    edges: Array
    rows: Array
    priors: FloatArray


@exact_helper
def fast_exp(x: np.float32) -> np.float32:
    """e^x of x <= 0 to a relative 1e-6, in few operations and no call; e^-87 below -87 and for NaN.

    2^n times the Cephes polynomial of r, where x = n log(2) + r and |r| <= log(2) / 2.
    """
    clamped = x if x > _LOWEST else _LOWEST
    # A float32 of this size has no fraction: the sum is rounded, and holds n in its lowest bits.
    shifted = np.float32(clamped * _LOG2_E + _ROUNDING)
    r = clamped - (shifted - _ROUNDING) * _LOG_2
    series = np.float32(1.9875691500e-4)
    series = series * r + np.float32(1.3981999507e-3)
    series = series * r + np.float32(8.3334519073e-3)
    series = series * r + np.float32(4.1665795894e-2)
    series = series * r + np.float32(1.6666665459e-1)
    series = series * r + np.float32(5.0000001201e-1)
    power = np.int32((shifted.view(np.int32) + 127) << 23).view(np.float32)  # 2^n, by its bits
    return np.float32((series * (r * r) + r + ONE) * power)


@helper
def inverse_range(low: np.float32, high: np.float32, narrowest: np.float32) -> np.float32:
    """1 / (high - low); a range below `narrowest`, or that is only float32 rounding, is not blown up to [0, 1]."""
    noise = np.float32(1e-6) * max(abs(low), abs(high))
    return ONE / max(high - low, narrowest, noise, np.float32(1e-8))


@helper
def _scan_unvisited(tree: Tree, b: int, n: int) -> None:
    """Finds the unvisited child with the largest prior; visited and illegal ones are marked -1."""
    action, best, mass = -1, -ONE, ZERO
    for a in range(tree.priors.shape[2]):
        prior = tree.priors[b, n, a]
        if prior >= ZERO:
            mass += prior
            if prior > best:
                best, action = prior, a
    node = tree.nodes[b, n]
    node.next_action, node.next_prior, node.open_prior = action, best, mass


@helper
def enter(tree: Tree, b: int, n: int) -> None:
    """First visit below node `n`: its logits become priors."""
    priors, num_actions = tree.priors, tree.priors.shape[2]
    action, high = 0, -INF
    for a in range(num_actions):
        if priors[b, n, a] > high:
            high, action = priors[b, n, a], a
    total = ZERO
    for a in range(num_actions):
        priors[b, n, a] = fast_exp(priors[b, n, a] - high)
        total += priors[b, n, a]
    inverse = ONE / total
    for a in range(num_actions):
        priors[b, n, a] *= inverse
    node = tree.nodes[b, n]
    node.next_action, node.next_prior, node.open_prior = action, inverse, ONE


@helper
def open_edge(tree: Tree, b: int, n: int, action: int, leaf: int) -> None:
    """Makes `action` a visited child of node `n`, to be evaluated as node `leaf`."""
    node = tree.nodes[b, n]
    edge = tree.edges[b, n, node.edges]
    edge.action, edge.child, edge.visits = action, leaf, 0
    edge.prior = max(tree.priors[b, n, action], _TINY)
    child = tree.nodes[b, leaf]
    child.parent, child.slot = n, node.edges
    node.edges += 1
    tree.priors[b, n, action] = -ONE
    _scan_unvisited(tree, b, n)


@helper
def gather(b: int, n: int, action: int, latents: Array, hidden: Array, actions: IntArray) -> None:
    actions[b] = action
    for i in range(hidden.shape[1]):
        hidden[b, i] = latents[n, b, i]


@helper
def backup(
    tree: Tree,
    b: int,
    leaf: int,
    reward: np.float32,
    value: np.float32,
    logits: FloatArray,
    discount: float,
    track: bool,
) -> None:
    """Expands node `leaf` and adds its value to every node above, as mctx's `backward`."""
    for a in range(logits.shape[1]):
        tree.priors[b, leaf, a] = logits[b, a]
    node, row = tree.nodes[b, leaf], tree.rows[b]
    node.edges, node.visits, node.choice = 0, 1, 0
    node.reward, node.raw_value, node.value_sum = reward, value, value
    child, target = leaf, np.float64(value)
    while child > 0:
        below = tree.nodes[b, child]
        child = below.parent
        above = tree.nodes[b, child]
        target = below.reward + discount * target
        above.visits += 1
        above.value_sum += target
        edge = tree.edges[b, child, below.slot]
        edge.visits = below.visits
        q = np.float32(below.reward + discount * (below.value_sum / below.visits))
        edge.q = q
        if track:
            row.low = min(row.low, q)
            row.high = max(row.high, q)
        row.depth += 1


@helper
def mix(node: Any, mass: np.float32, weighted: np.float32) -> np.float32:
    """v_mix of a node whose visited children have `mass` of the prior and `weighted` = sum of prior * Q (Gumbel
    MuZero, appendix D, equation 33)."""
    visits = np.float32(node.visits)
    # One division: this is the longest chain of dependent operations in a selection.
    mixed: np.float32 = (node.raw_value * mass + (visits - ONE) * weighted) / (visits * mass)
    return mixed


@step
def reset(tree: Tree, prior: FloatArray, value: FloatArray, low: float, high: float, narrowest: float) -> None:
    """Plants the roots. prior `[B, A]`, -1 where illegal; value `[B]`; low >= high: the range of Q is not known, and
    one below `narrowest` counts as that."""
    for b in range(tree.nodes.shape[0]):
        node, row = tree.nodes[b, 0], tree.rows[b]
        node.edges, node.visits = 0, 1
        node.raw_value, node.value_sum = value[b], value[b]
        for a in range(prior.shape[1]):
            tree.priors[b, 0, a] = prior[b, a]
        _scan_unvisited(tree, b, 0)
        row.depth = 0
        row.low, row.high, row.narrowest = value[b], value[b], narrowest
        if low < high:
            row.low, row.high = low, high


@step
def root_children(tree: Tree, visits: IntArray, q: FloatArray) -> None:
    """Fills visits `[B, A]` and q `[B, A]` (0 where not visited) of the root actions."""
    visits[:] = 0
    q[:] = ZERO
    for b in range(visits.shape[0]):
        for j in range(tree.nodes[b, 0].edges):
            edge = tree.edges[b, 0, j]
            visits[b, edge.action], q[b, edge.action] = edge.visits, edge.q
