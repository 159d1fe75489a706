"""Gumbel MuZero's selection, as one compiled step for a batch of trees. Letters: see `tree`."""

from __future__ import annotations

import numpy as np

from muzero_ray.search.tree import (
    INF,
    ZERO,
    Tree,
    backup,
    enter,
    fast_exp,
    gather,
    helper,
    inverse_range,
    mix,
    open_edge,
    step,
)
from muzero_ray.types import Array, FloatArray, IntArray


@helper
def _sigma(tree: Tree, b: int, n: int, c_visit: float, c_scale: float) -> tuple[np.float32, ...]:
    """What turns the Q of a node with visited children into logits: v_mix, the base and the slope of sigma, largest Q.

    sigma(q) = (c_visit + max visits) * c_scale * q (Gumbel MuZero, equation 8), with q rescaled to [0, 1] by the known
    bounds, or else by the range of the node's completed Q, as mctx does (there, too, illegal actions are completed).
    """
    row, node = tree.rows[b], tree.nodes[b, n]
    low, high, visits = INF, -INF, np.int32(0)
    mass, weighted = ZERO, ZERO
    for j in range(node.edges):
        edge = tree.edges[b, n, j]
        low, high, visits = min(low, edge.q), max(high, edge.q), max(visits, edge.visits)
        mass += edge.prior
        weighted += edge.prior * edge.q
    mixed = mix(node, mass, weighted)
    if node.edges < tree.priors.shape[2]:
        low, high = min(low, mixed), max(high, mixed)
    scale = (np.float32(c_visit) + np.float32(visits)) * np.float32(c_scale)
    if row.low < row.high:
        return mixed, row.low, scale / (row.high - row.low), high
    return mixed, low, scale * inverse_range(low, high, row.narrowest), high


@helper
def _select_interior(tree: Tree, b: int, n: int, c_visit: float, c_scale: float) -> int:
    """Slot of the child furthest below its share of softmax(logits + sigma(completed Q)) (Gumbel MuZero, equation 14),
    -1: the next unvisited one."""
    node = tree.nodes[b, n]
    mixed, _, slope, high = _sigma(tree, b, n, c_visit, c_scale)
    # prior * exp(slope * q), shifted so that nothing overflows; the unvisited share one exponential.
    lift = ZERO
    if node.next_action >= 0:
        lift = fast_exp(slope * (mixed - high))
    total = node.open_prior * lift
    for j in range(node.edges):
        edge = tree.edges[b, n, j]
        edge.weight = edge.prior * fast_exp(slope * (edge.q - high))
        total += edge.weight
    visits = np.float32(node.visits)
    best, slot = -INF, 0
    for j in range(node.edges):
        edge = tree.edges[b, n, j]
        score = edge.weight * visits - np.float32(edge.visits) * total
        if score > best:
            best, slot = score, j
    if node.next_action >= 0 and node.next_prior * lift * visits > best:
        slot = -1
    return slot


@helper
def _choose_ahead(tree: Tree, b: int, leaf: int, c_visit: float, c_scale: float) -> None:
    """Renews the choice of all nodes between `leaf` and the root. Only a backup through a node changes what it would
    select; here, unlike on the way down, the next node does not wait for the selection of this one."""
    n = tree.nodes[b, leaf].parent
    while n > 0:
        node = tree.nodes[b, n]
        slot = _select_interior(tree, b, n, c_visit, c_scale)
        node.choice = tree.edges[b, n, slot].child if slot >= 0 else 0
        n = node.parent


@helper
def _best_unvisited(tree: Tree, b: int, keys: FloatArray) -> int:
    """Unvisited legal root action with the largest key."""
    best: np.float32 = -INF
    action: int = tree.nodes[b, 0].next_action
    for a in range(keys.shape[1]):
        if tree.priors[b, 0, a] >= ZERO and keys[b, a] > best:
            best, action = keys[b, a], a
    return action


@helper
def _select_considered(tree: Tree, b: int, keys: FloatArray, considered: int, c_visit: float, c_scale: float) -> int:
    """Slot of the root child with `considered` visits that is best by keys + sigma(Q)."""
    _, base, slope, _ = _sigma(tree, b, 0, c_visit, c_scale)
    best, slot = -INF, 0
    for j in range(tree.nodes[b, 0].edges):
        edge = tree.edges[b, 0, j]
        score = keys[b, edge.action] + slope * (edge.q - base)
        if edge.visits == considered and score > best:
            best, slot = score, j
    return slot


@step
def gumbel_step(
    leaf: int,
    nodes: Array,
    edges: Array,
    rows: Array,
    priors: FloatArray,
    reward: FloatArray,
    value: FloatArray,
    logits: FloatArray,
    latents: Array,
    hidden: Array,
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
            backup(tree, b, leaf, reward[b], value[b], logits, discount, False)
        if leaf + 1 == nodes.shape[1]:
            continue
        if leaf > 0:
            _choose_ahead(tree, b, leaf, c_visit, c_scale)
        n, considered = 0, schedule[b, leaf]
        if considered == 0:
            action = _best_unvisited(tree, b, keys)
        else:
            n = edges[b, 0, _select_considered(tree, b, keys, considered, c_visit, c_scale)].child
            while nodes[b, n].choice > 0:
                n = nodes[b, n].choice
            if nodes[b, n].edges == 0:
                enter(tree, b, n)
            action = nodes[b, n].next_action
        open_edge(tree, b, n, action, leaf + 1)
        gather(b, n, action, latents, hidden, actions)


@step
def root_sigma(tree: Tree, c_visit: float, c_scale: float, mixed: FloatArray, sigma: FloatArray) -> None:
    """Fills v_mix `[B]` of the roots and sigma(completed Q) `[B, A]` of their actions."""
    for b in range(mixed.shape[0]):
        value, base, slope, _ = _sigma(tree, b, 0, c_visit, c_scale)
        mixed[b] = value
        sigma[b, :] = slope * (value - base)
        for j in range(tree.nodes[b, 0].edges):
            edge = tree.edges[b, 0, j]
            sigma[b, edge.action] = slope * (edge.q - base)
