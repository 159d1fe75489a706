"""Compiled steps that grow the search trees of a batch; `workspace` holds the records they work on.

Letters: `B` roots searched side by side, `N` nodes of a tree (simulations + 1, node 0 is the root), `A` actions. One
call per simulation backs up the newest leaf of every tree and selects the next one. Only visited children are stored,
packed in the order of their first visit: while unvisited, children share one Q, so the one with the largest prior
goes first and a selection costs the visited children, not `A`. For the same reason a leaf keeps its raw logits until
it is entered for the first time, which most leaves never are.

Ties go to the child visited first, that is to the larger prior and then to the lower action. Nothing here is random.
All that is read of a row belongs to that row, so a search does not depend on its neighbours in the batch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from muzero_ray.types import Array, FloatArray, IntArray

UNVISITED_ZERO, UNVISITED_PARENT, UNVISITED_COMPLETED = 0, 1, 2

# Without `nnan` and `ninf`: infinities are used as sentinels, and a network's NaN must not become a bad index.
_FAST = {"reassoc", "arcp", "contract", "nsz"}
_ZERO, _ONE, _INF = np.float32(0.0), np.float32(1.0), np.float32(np.inf)
_TINY = np.float32(1e-37)  # smallest prior of a visited child, above the denormals


class Tree(NamedTuple):
    """`[B, N]` nodes, `[B, N, S]` edges, `[B]` rows, `[B, N, A]` priors: see `Workspace`."""

    nodes: Array
    edges: Array
    rows: Array
    priors: FloatArray


@njit(cache=True, fastmath=_FAST)
def _inverse_range(low: np.float32, high: np.float32, narrowest: np.float32) -> np.float32:
    """1 / (high - low); a range below `narrowest`, or that is only float32 rounding, is not blown up to [0, 1]."""
    noise = np.float32(1e-6) * max(abs(low), abs(high))
    return _ONE / max(high - low, narrowest, noise, np.float32(1e-8))


@njit(cache=True, fastmath=_FAST)
def _scan_unvisited(tree: Tree, b: int, n: int) -> None:
    """Finds the unvisited child with the largest prior; visited and illegal ones are marked -1."""
    action, best, mass = -1, -_ONE, _ZERO
    for a in range(tree.priors.shape[2]):
        prior = tree.priors[b, n, a]
        if prior >= _ZERO:
            mass += prior
            if prior > best:
                best, action = prior, a
    node = tree.nodes[b, n]
    node.next_action, node.next_prior, node.open_prior = action, best, mass


@njit(cache=True, fastmath=_FAST)
def _enter(tree: Tree, b: int, n: int) -> None:
    """First visit below node `n`: its logits become priors."""
    priors, num_actions = tree.priors, tree.priors.shape[2]
    action, high = 0, -_INF
    for a in range(num_actions):
        if priors[b, n, a] > high:
            high, action = priors[b, n, a], a
    total = _ZERO
    for a in range(num_actions):
        priors[b, n, a] = math.exp(priors[b, n, a] - high)
        total += priors[b, n, a]
    inverse = _ONE / total
    for a in range(num_actions):
        priors[b, n, a] *= inverse
    node = tree.nodes[b, n]
    node.next_action, node.next_prior, node.open_prior = action, inverse, _ONE


@njit(cache=True, fastmath=_FAST)
def _open_edge(tree: Tree, b: int, n: int, action: int, leaf: int) -> None:
    """Makes `action` a visited child of node `n`, to be evaluated as node `leaf`."""
    node = tree.nodes[b, n]
    edge = tree.edges[b, n, node.edges]
    edge.action, edge.child, edge.visits = action, leaf, 0
    edge.prior = max(tree.priors[b, n, action], _TINY)
    child = tree.nodes[b, leaf]
    child.parent, child.slot = n, node.edges
    node.edges += 1
    tree.priors[b, n, action] = -_ONE
    _scan_unvisited(tree, b, n)


@njit(cache=True, fastmath=_FAST)
def _gather(b: int, n: int, action: int, latents: FloatArray, hidden: FloatArray, actions: IntArray) -> None:
    actions[b] = action
    for i in range(hidden.shape[1]):
        hidden[b, i] = latents[n, b, i]


@njit(cache=True, fastmath=_FAST)
def _backup(
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
    node.edges, node.visits = 0, 1
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


@njit(cache=True, fastmath=_FAST)
def _mix(node: Any, mass: np.float32, weighted: np.float32) -> np.float32:
    """v_mix of a node whose visited children have `mass` of the prior and `weighted` = sum of prior * Q (Gumbel
    MuZero, appendix D, equation 33)."""
    mixed: np.float32 = (node.raw_value + np.float32(node.visits - 1) * (weighted / mass)) / np.float32(node.visits)
    return mixed


@njit(cache=True, fastmath=_FAST)
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


@njit(cache=True, fastmath=_FAST)
def _select_puct(tree: Tree, b: int, n: int, pb_c: FloatArray, unvisited: int) -> int:
    """Slot of the best visited child of `n` by pUCT (MuZero, equation 2), -1: the next unvisited one."""
    node, row = tree.nodes[b, n], tree.rows[b]
    low, inverse = row.low, _inverse_range(row.low, row.high, row.narrowest)
    c = pb_c[node.visits]
    best, slot, mass, weighted = -_INF, 0, _ZERO, _ZERO
    for j in range(node.edges):
        edge = tree.edges[b, n, j]
        mass += edge.prior
        weighted += edge.prior * edge.q
        score = (edge.q - low) * inverse + c * edge.prior / np.float32(edge.visits + 1)
        if score > best:
            best, slot = score, j
    if node.next_action >= 0:
        q = _ZERO
        if unvisited == UNVISITED_PARENT:
            q = (np.float32(node.value_sum / node.visits) - low) * inverse
        elif unvisited == UNVISITED_COMPLETED:
            q = (_mix(node, mass, weighted) - low) * inverse
        # The network's own value of a node may lie outside the range of backed-up Q.
        if min(max(q, _ZERO), _ONE) + c * node.next_prior > best:
            slot = -1
    return slot


@njit(cache=True, fastmath=_FAST)
def puct_step(
    leaf: int,
    nodes: Array,
    edges: Array,
    rows: Array,
    priors: FloatArray,
    reward: FloatArray,
    value: FloatArray,
    logits: FloatArray,
    latents: FloatArray,
    hidden: FloatArray,
    actions: IntArray,
    discount: float,
    pb_c: FloatArray,
    track: bool,
    unvisited: int,
) -> None:
    """Backs up node `leaf` of every tree (0: nothing yet), selects the edge to node `leaf + 1` and gathers its
    parent's latent and its action. Arrays: see `Workspace`.

    pb_c `[N]`: exploration factor by visits of the parent. track: the range of Q follows the tree.
    """
    tree = Tree(nodes, edges, rows, priors)
    for b in range(nodes.shape[0]):
        if leaf > 0:
            _backup(tree, b, leaf, reward[b], value[b], logits, discount, track)
        if leaf + 1 == nodes.shape[1]:
            continue
        n, slot = 0, 0
        while nodes[b, n].edges > 0:
            slot = _select_puct(tree, b, n, pb_c, unvisited)
            if slot < 0:
                break
            n = edges[b, n, slot].child
        if n > 0 and nodes[b, n].edges == 0:
            _enter(tree, b, n)
        action = nodes[b, n].next_action
        _open_edge(tree, b, n, action, leaf + 1)
        _gather(b, n, action, latents, hidden, actions)


@njit(cache=True, fastmath=_FAST)
def _sigma(tree: Tree, b: int, n: int, c_visit: float, c_scale: float) -> tuple[np.float32, ...]:
    """What turns the Q of a node with visited children into logits: v_mix, the base and the slope of sigma, largest Q.

    sigma(q) = (c_visit + max visits) * c_scale * q (Gumbel MuZero, equation 8), with q rescaled to [0, 1] by the known
    bounds, or else by the range of the node's completed Q, as mctx does (there, too, illegal actions are completed).
    """
    row, node = tree.rows[b], tree.nodes[b, n]
    low, high, visits = _INF, -_INF, np.int32(0)
    mass, weighted = _ZERO, _ZERO
    for j in range(node.edges):
        edge = tree.edges[b, n, j]
        low, high, visits = min(low, edge.q), max(high, edge.q), max(visits, edge.visits)
        mass += edge.prior
        weighted += edge.prior * edge.q
    mixed = _mix(node, mass, weighted)
    if node.edges < tree.priors.shape[2]:
        low, high = min(low, mixed), max(high, mixed)
    scale = np.float32((c_visit + visits) * c_scale)
    if row.low < row.high:
        return mixed, row.low, scale / (row.high - row.low), high
    return mixed, low, scale * _inverse_range(low, high, row.narrowest), high


@njit(cache=True, fastmath=_FAST)
def _select_interior(tree: Tree, b: int, n: int, c_visit: float, c_scale: float) -> int:
    """Slot of the child furthest below its share of softmax(logits + sigma(completed Q)) (Gumbel MuZero, equation 14),
    -1: the next unvisited one."""
    node = tree.nodes[b, n]
    mixed, _, slope, high = _sigma(tree, b, n, c_visit, c_scale)
    # prior * exp(slope * q), shifted so that nothing overflows; the unvisited share one exponential.
    lift = _ZERO
    if node.next_action >= 0:
        lift = np.float32(math.exp(slope * (mixed - high)))
    total = node.open_prior * lift
    for j in range(node.edges):
        edge = tree.edges[b, n, j]
        edge.weight = edge.prior * np.float32(math.exp(slope * (edge.q - high)))
        total += edge.weight
    visits = np.float32(node.visits)
    best, slot = -_INF, 0
    for j in range(node.edges):
        edge = tree.edges[b, n, j]
        score = edge.weight * visits - np.float32(edge.visits) * total
        if score > best:
            best, slot = score, j
    if node.next_action >= 0 and node.next_prior * lift * visits > best:
        slot = -1
    return slot


@njit(cache=True, fastmath=_FAST)
def _best_unvisited(tree: Tree, b: int, keys: FloatArray) -> int:
    """Unvisited legal root action with the largest key."""
    best: np.float32 = -_INF
    action: int = tree.nodes[b, 0].next_action
    for a in range(keys.shape[1]):
        if tree.priors[b, 0, a] >= _ZERO and keys[b, a] > best:
            best, action = keys[b, a], a
    return action


@njit(cache=True, fastmath=_FAST)
def _select_considered(tree: Tree, b: int, keys: FloatArray, considered: int, c_visit: float, c_scale: float) -> int:
    """Slot of the root child with `considered` visits that is best by keys + sigma(Q)."""
    _, base, slope, _ = _sigma(tree, b, 0, c_visit, c_scale)
    best, slot = -_INF, 0
    for j in range(tree.nodes[b, 0].edges):
        edge = tree.edges[b, 0, j]
        score = keys[b, edge.action] + slope * (edge.q - base)
        if edge.visits == considered and score > best:
            best, slot = score, j
    return slot


@njit(cache=True, fastmath=_FAST)
def gumbel_step(
    leaf: int,
    nodes: Array,
    edges: Array,
    rows: Array,
    priors: FloatArray,
    reward: FloatArray,
    value: FloatArray,
    logits: FloatArray,
    latents: FloatArray,
    hidden: FloatArray,
    actions: IntArray,
    discount: float,
    keys: FloatArray,
    schedule: IntArray,
    c_visit: float,
    c_scale: float,
) -> None:
    """As `puct_step`, by sequential halving at the root and deterministic selection below.

    keys `[B, A]`: Gumbel noise + logits of the root actions. schedule `[B, N - 1]`: visits of the root actions that
    simulation i considers.
    """
    tree = Tree(nodes, edges, rows, priors)
    for b in range(nodes.shape[0]):
        if leaf > 0:
            _backup(tree, b, leaf, reward[b], value[b], logits, discount, False)
        if leaf + 1 == nodes.shape[1]:
            continue
        n, considered = 0, schedule[b, leaf]
        if considered == 0:
            action = _best_unvisited(tree, b, keys)
        else:
            n = edges[b, 0, _select_considered(tree, b, keys, considered, c_visit, c_scale)].child
            while nodes[b, n].edges > 0:
                slot = _select_interior(tree, b, n, c_visit, c_scale)
                if slot < 0:
                    break
                n = edges[b, n, slot].child
            if nodes[b, n].edges == 0:
                _enter(tree, b, n)
            action = nodes[b, n].next_action
        _open_edge(tree, b, n, action, leaf + 1)
        _gather(b, n, action, latents, hidden, actions)


@njit(cache=True, fastmath=_FAST)
def root_children(tree: Tree, visits: IntArray, q: FloatArray) -> None:
    """Fills visits `[B, A]` and q `[B, A]` (0 where not visited) of the root actions."""
    visits[:] = 0
    q[:] = _ZERO
    for b in range(visits.shape[0]):
        for j in range(tree.nodes[b, 0].edges):
            edge = tree.edges[b, 0, j]
            visits[b, edge.action], q[b, edge.action] = edge.visits, edge.q


@njit(cache=True, fastmath=_FAST)
def root_sigma(tree: Tree, c_visit: float, c_scale: float, mixed: FloatArray, sigma: FloatArray) -> None:
    """Fills v_mix `[B]` of the roots and sigma(completed Q) `[B, A]` of their actions."""
    for b in range(mixed.shape[0]):
        value, base, slope, _ = _sigma(tree, b, 0, c_visit, c_scale)
        mixed[b] = value
        sigma[b, :] = slope * (value - base)
        for j in range(tree.nodes[b, 0].edges):
            edge = tree.edges[b, 0, j]
            sigma[b, edge.action] = slope * (edge.q - base)
