"""What the compiled steps of `puct` and `gumbel` share: initial roots, priors, edges and backups. `workspace` holds the
records they work on.

Letters: `B` roots searched side by side, `N` nodes of a tree (simulations + 1, node 0 is the root), `A` actions. One
call per simulation backs up the newest leaf of every tree and selects the next one. Only visited children are stored,
packed in the order of their first visit: while unvisited, children share one Q, so the one with the largest prior
goes first and a selection costs the visited children, not `A`. For the same reason a leaf keeps its raw logits until
its priors are expanded at its first visit, which most leaves never are.

Ties go to the child visited first, that is to the larger prior and then to the lower action. Nothing here is random.
All that is read of a row belongs to that row, so a search does not depend on its neighbours in the batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from muzero_ray.search import workspace
from muzero_ray.search.compiled import INF, ONE, ZERO, fast_exp, helper, step
from muzero_ray.search.numba_internals import array_at, prefetch
from muzero_ray.search.workspace import EDGE, NODE, ROW
from muzero_ray.types import Array, BoolArray, FloatArray, IntArray, LongArray

UNVISITED_ZERO, UNVISITED_PARENT, UNVISITED_COMPLETED = 0, 1, 2

_TINY = np.float32(1e-37)  # smallest prior of a visited child, above the denormals

_LARGE = 1024  # bytes of a latent: networks of smaller ones leave the trees in the cache
_NODE_BYTES, _EDGE_BYTES = NODE.itemsize, EDGE.itemsize


class Tree(NamedTuple):
    """`[B, N]` nodes, `[B, N, S]` edges, `[B]` rows, `[B, N, A]` priors, `[B, A]` root_scores: see `Workspace`."""

    nodes: Array
    edges: Array
    rows: Array
    priors: FloatArray
    root_scores: FloatArray


class Exchange(NamedTuple):
    """The model's newest answer, `[B]` reward, `[B]` discount, `[B]` value, `[B, A]` logits; the edges that it is asked
    about next, `[B]` parents, `[B]` actions: see `Workspace`. `[N, B, H]` latents, `[B, H]` hidden: see `HostPool`; H
    is 0 where the model keeps them elsewhere."""

    reward: FloatArray
    discount: Array
    value: FloatArray
    logits: FloatArray
    parents: IntArray
    actions: IntArray
    latents: Array
    hidden: Array


@helper
def tree_at(pointers: LongArray) -> Tree:
    """pointers: see `Workspace`. Steps find their arrays there, since each one that Python hands over costs some 0.3 us
    when a large network has just used the caches: ten of them more than the trees of 8 roots."""
    batch, nodes = pointers[workspace.BATCH], pointers[workspace.NODES]
    num_actions, slots = pointers[workspace.ACTIONS], pointers[workspace.SLOTS]
    return Tree(
        array_at(pointers[workspace.AT_NODES], (batch, nodes), NODE),
        array_at(pointers[workspace.AT_EDGES], (batch, nodes, slots), EDGE),
        array_at(pointers[workspace.AT_ROWS], (batch,), ROW),
        array_at(pointers[workspace.AT_PRIORS], (batch, nodes, num_actions), np.float32),
        array_at(pointers[workspace.AT_SCORES], (batch, num_actions), np.float32),
    )


@helper
def exchange_at(pointers: LongArray) -> Exchange:
    """As `tree_at`."""
    batch, nodes = pointers[workspace.BATCH], pointers[workspace.NODES]
    num_actions, size = pointers[workspace.ACTIONS], pointers[workspace.LATENT_BYTES]
    return Exchange(
        array_at(pointers[workspace.AT_REWARD], (batch,), np.float32),
        array_at(pointers[workspace.AT_DISCOUNT], (batch,), np.float64),
        array_at(pointers[workspace.AT_VALUE], (batch,), np.float32),
        array_at(pointers[workspace.AT_LOGITS], (batch, num_actions), np.float32),
        array_at(pointers[workspace.AT_PARENTS], (batch,), np.int32),
        array_at(pointers[workspace.AT_ACTIONS], (batch,), np.int32),
        array_at(pointers[workspace.AT_LATENTS], (nodes, batch, size), np.uint8),
        array_at(pointers[workspace.AT_HIDDEN], (batch, size), np.uint8),
    )


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
def expand_priors(tree: Tree, b: int, n: int) -> None:
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
def gather(exchange: Exchange, b: int, n: int, action: int) -> None:
    """Asks the network what follows `action` in node `n`."""
    exchange.parents[b], exchange.actions[b] = n, action
    for i in range(exchange.hidden.shape[1]):
        exchange.hidden[b, i] = exchange.latents[n, b, i]


@helper
def expand(tree: Tree, b: int, leaf: int, exchange: Exchange) -> None:
    """Makes the network's newest answer node `leaf`."""
    reward, value = exchange.reward[b], exchange.value[b]
    for a in range(exchange.logits.shape[1]):
        tree.priors[b, leaf, a] = exchange.logits[b, a]
    node = tree.nodes[b, leaf]
    node.edges, node.visits, node.choice = 0, 1, 0
    node.reward, node.discount, node.raw_value, node.value_sum = reward, exchange.discount[b], value, value


@helper
def backup_step(tree: Tree, b: int, n: int, target: float) -> tuple[float, np.float32]:
    """One step of mctx's `backward`: what was added to node `n`, as its parent sees it, is added to the parent. Returns
    that, and the new Q of the edge between them."""
    below = tree.nodes[b, n]
    above, edge = tree.nodes[b, below.parent], tree.edges[b, below.parent, below.slot]
    target = below.reward + below.discount * target
    above.visits += 1
    above.value_sum += target
    edge.visits = below.visits
    q = np.float32(below.reward + below.discount * (below.value_sum / below.visits))
    edge.q = q
    tree.rows[b].depth += 1
    return target, q


@helper
def _fetch(pointers: LongArray, b: int, n: int) -> None:
    """Asks for node `n` and its first edges."""
    at = b * pointers[workspace.NODES] + n
    prefetch(pointers[workspace.AT_NODES] + at * _NODE_BYTES)
    prefetch(pointers[workspace.AT_EDGES] + at * pointers[workspace.SLOTS] * _EDGE_BYTES)


@helper
def fetch_ahead(pointers: LongArray, nodes: Array, b: int, leaf: int, first: int, second: int) -> tuple[int, int]:
    """Brings paths that are backed up soon back into the cache, which the network has used since: one level each of
    three trees, for the next level is known only when this one has come. Returns the next call's `first` and `second`.
    """
    if leaf == 0 or pointers[workspace.LATENT_BYTES] < _LARGE:
        return 0, 0
    last = nodes.shape[0] - 1
    near, middle, far = min(b + 2, last), min(b + 3, last), min(b + 4, last)
    _fetch(pointers, near, nodes[near, second].parent)
    second = nodes[middle, first].parent
    _fetch(pointers, middle, second)
    first = nodes[far, leaf].parent
    _fetch(pointers, far, first)
    _fetch(pointers, far, 0)
    _fetch(pointers, min(b + 6, last), leaf)
    return first, second


@helper
def mixed_value(node: Any, mass: np.float32, weighted: np.float32) -> np.float32:
    """v_mix of a node whose visited children have `mass` of the prior and `weighted` = sum of prior * Q (Gumbel
    MuZero, appendix D, equation 33)."""
    visits = np.float32(node.visits)
    # One division: this is the longest chain of dependent operations in a selection.
    mixed: np.float32 = (node.raw_value * mass + (visits - ONE) * weighted) / (visits * mass)
    return mixed


@step
def init_roots(
    pointers: LongArray,
    legal: BoolArray,
    noise: Array,
    fraction: float,
    low: float,
    high: float,
    narrowest: float,
) -> bool:
    """Plants the roots that the network's newest answer is of. False if one has no legal action, NaN or infinity.

    noise `[B, A]` float64, not negative: its shares among the legal actions take `fraction` of the priors. low >= high:
    the range of Q is not known, and one below `narrowest` counts as that.
    """
    tree, exchange = tree_at(pointers), exchange_at(pointers)
    value, logits = exchange.value, exchange.logits
    sound = True
    for b in range(logits.shape[0]):
        highest, total, mass = -INF, ZERO, 0.0
        sound = sound and bool(np.isfinite(value[b]))
        for a in range(logits.shape[1]):
            sound = sound and bool(np.isfinite(logits[b, a]))
            if legal[b, a]:
                highest = max(highest, logits[b, a])
                mass += noise[b, a]
        sound = sound and bool(highest > -INF)
        for a in range(logits.shape[1]):
            tree.priors[b, 0, a] = -ONE
            if legal[b, a]:
                tree.priors[b, 0, a] = fast_exp(logits[b, a] - highest)
                total += tree.priors[b, 0, a]
        keep, share = (1.0 - fraction) / total, fraction / max(mass, np.finfo(np.float64).tiny)
        for a in range(logits.shape[1]):
            if legal[b, a]:
                tree.priors[b, 0, a] = keep * tree.priors[b, 0, a] + share * noise[b, a]
        node, row = tree.nodes[b, 0], tree.rows[b]
        node.edges, node.visits = 0, 1
        node.raw_value, node.value_sum = value[b], value[b]
        _scan_unvisited(tree, b, 0)
        row.depth = 0
        row.low, row.high, row.narrowest = value[b], value[b], narrowest
        if low < high:
            row.low, row.high = low, high
    return sound


@helper
def count_visits(tree: Tree, b: int, visits: IntArray) -> int:
    """Fills row `b` of visits `[B, A]` of the root actions. Returns the largest."""
    visits[b, :] = 0
    most = 0
    for j in range(tree.nodes[b, 0].edges):
        edge = tree.edges[b, 0, j]
        visits[b, edge.action] = edge.visits
        most = max(most, edge.visits)
    return most
