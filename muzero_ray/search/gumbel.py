"""Gumbel MuZero's selection, as one compiled step for a batch of trees. Letters: see `tree`."""

from __future__ import annotations

from typing import Any

import numpy as np

from muzero_ray.search.compiled import INF, ONE, ZERO, fast_exp, helper, step
from muzero_ray.search.numba_internals import keep_scalar
from muzero_ray.search.tree import (
    Exchange,
    Tree,
    backup_step,
    count_visits,
    exchange_at,
    expand,
    expand_priors,
    fetch_ahead,
    gather,
    inverse_range,
    mixed_value,
    open_edge,
    tree_at,
)
from muzero_ray.types import Array, BoolArray, FloatArray, IntArray, LongArray


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
    mixed = mixed_value(node, mass, weighted)
    if node.edges < tree.priors.shape[2]:
        low, high = min(low, mixed), max(high, mixed)
    scale = (np.float32(c_visit) + np.float32(visits)) * np.float32(c_scale)
    if row.low < row.high:
        return mixed, row.low, scale / (row.high - row.low), high
    return mixed, low, scale * inverse_range(low, high, row.narrowest), high


@helper
def _of_many(tree: Tree, b: int, n: int, c_visit: float, c_scale: float) -> int:
    """Child of `n` that is furthest below its share of softmax(logits + sigma(completed Q)) (Gumbel MuZero, equation
    14), 0: the next unvisited one."""
    node = tree.nodes[b, n]
    edges, visits = node.edges, np.float32(node.visits)
    mixed, _, slope, high = _sigma(tree, b, n, c_visit, c_scale)
    # prior * exp(slope * q), shifted so that nothing overflows; the unvisited share one exponential.
    lift = ZERO
    if node.next_action >= 0:
        lift = fast_exp(slope * (mixed - high))
    total, open_next = node.open_prior * lift, node.next_action >= 0
    unvisited = node.next_prior * lift * visits
    for j in range(edges):
        keep_scalar()
        edge = tree.edges[b, n, j]
        edge.weight = edge.prior * fast_exp(slope * (edge.q - high))
        total += edge.weight
    best, slot = -INF, 0
    for j in range(edges):
        edge = tree.edges[b, n, j]
        score = edge.weight * visits - np.float32(edge.visits) * total
        if score > best:
            best, slot = score, j
    child: int = tree.edges[b, n, slot].child
    return 0 if open_next and unvisited > best else child


@helper
def _width(row: Any, low: np.float32, high: np.float32, whole: np.float32) -> np.float32:
    """`whole` times the range of Q that `_sigma` divides by; low and high are `whole` times the completed Q's."""
    noise = np.float32(1e-6) * max(abs(low), abs(high))
    width: np.float32 = max(high - low, whole * max(row.narrowest, np.float32(1e-8)), noise)
    if row.low < row.high:
        width = whole * (row.high - row.low)
    return width


@helper
def _of_one(tree: Tree, b: int, n: int, c_visit: float, c_scale: float) -> int:
    """As `_of_many` for one visited child and others that are not: v_mix - Q is then (raw value - Q) / visits, and
    of the two exponentials the larger one is 1."""
    node, edge = tree.nodes[b, n], tree.edges[b, n, 0]
    visits, taken = np.float32(node.visits), np.float32(edge.visits)
    q, gap = visits * edge.q, node.raw_value - edge.q
    width = _width(tree.rows[b], min(q, q + gap), max(q, q + gap), visits)
    power = fast_exp(-abs((np.float32(c_visit) + taken) * np.float32(c_scale) * gap / width))
    lift = power if gap < ZERO else ONE
    weight = edge.prior * (ONE if gap < ZERO else power)
    total = node.open_prior * lift + weight
    return 0 if node.next_prior * lift * visits > weight * visits - taken * total else edge.child


@helper
def _of_two(tree: Tree, b: int, n: int, c_visit: float, c_scale: float) -> int:
    """As `_of_many` for two visited children and others that are not: all in registers, and one division, since every
    Q is kept times `whole`, which v_mix would be divided by."""
    node, first, second = tree.nodes[b, n], tree.edges[b, n, 0], tree.edges[b, n, 1]
    visits, n0, n1 = np.float32(node.visits), np.float32(first.visits), np.float32(second.visits)
    mass = first.prior + second.prior
    whole = visits * mass
    mixed = node.raw_value * mass + (visits - ONE) * (first.prior * first.q + second.prior * second.q)
    q0, q1 = first.q * whole, second.q * whole
    low, high = min(q0, q1, mixed), max(q0, q1, mixed)
    slope = (np.float32(c_visit) + max(n0, n1)) * np.float32(c_scale) / _width(tree.rows[b], low, high, whole)
    lift = fast_exp(slope * (mixed - high))
    w0, w1 = first.prior * fast_exp(slope * (q0 - high)), second.prior * fast_exp(slope * (q1 - high))
    total = node.open_prior * lift + w0 + w1
    best, choice, other = w0 * visits - n0 * total, first.child, w1 * visits - n1 * total
    if other > best:
        best, choice = other, second.child
    return 0 if node.next_prior * lift * visits > best else choice


@helper
def _back_up(tree: Tree, b: int, leaf: int, exchange: Exchange, c_visit: float, c_scale: float) -> None:
    """Expands node `leaf`, adds its value to every node above, and renews the choices of those below the root.

    Only a backup through a node changes what it would select; here, unlike on the way down, the next node does not wait
    for the selection of this one. Four of five nodes have one or two visited children.
    """
    expand(tree, b, leaf, exchange)
    n, last = leaf, leaf + 1 == tree.nodes.shape[1]
    target: float = np.float64(exchange.value[b])
    while n > 0:
        target, _ = backup_step(tree, b, n, target)
        n = tree.nodes[b, n].parent
        if n == 0 or last:
            continue
        node = tree.nodes[b, n]
        if node.edges == 1:
            node.choice = tree.edges[b, n, 0].child
            if node.next_action >= 0:
                node.choice = _of_one(tree, b, n, c_visit, c_scale)
        elif node.edges == 2 and node.next_action >= 0:
            node.choice = _of_two(tree, b, n, c_visit, c_scale)
        else:
            node.choice = _of_many(tree, b, n, c_visit, c_scale)


@helper
def _best_unvisited(tree: Tree, b: int) -> int:
    """Unvisited legal root action with the largest score."""
    root_scores = tree.root_scores
    best: np.float32 = -INF
    action: int = tree.nodes[b, 0].next_action
    for a in range(root_scores.shape[1]):
        if tree.priors[b, 0, a] >= ZERO and root_scores[b, a] > best:
            best, action = root_scores[b, a], a
    return action


@helper
def _select_considered(tree: Tree, b: int, considered: int, c_visit: float, c_scale: float) -> int:
    """Slot of the root child with `considered` visits that is best by root scores + sigma(Q)."""
    slot, candidates = 0, 0
    for j in range(tree.nodes[b, 0].edges):
        keep_scalar()
        if tree.edges[b, 0, j].visits == considered:
            slot = j
            candidates += 1
    if candidates <= 1:
        return slot
    _, base, slope, _ = _sigma(tree, b, 0, c_visit, c_scale)
    best = -INF
    for j in range(tree.nodes[b, 0].edges):
        edge = tree.edges[b, 0, j]
        score = tree.root_scores[b, edge.action] + slope * (edge.q - base)
        if edge.visits == considered and score > best:
            best, slot = score, j
    return slot


@step
def gumbel_root_scores(pointers: LongArray, legal: BoolArray, noise: Array, considered: int) -> None:
    """After `init_roots`: noise `[B, A]` float64 + logits of the root actions, and how many to consider."""
    tree, logits = tree_at(pointers), exchange_at(pointers).logits
    for b in range(logits.shape[0]):
        count, high = 0, -INF
        for a in range(logits.shape[1]):
            tree.root_scores[b, a] = -INF
            if legal[b, a]:
                count += 1
                high = max(high, logits[b, a])
        for a in range(logits.shape[1]):
            if legal[b, a]:
                tree.root_scores[b, a] = logits[b, a] - high + np.float32(noise[b, a])
        tree.rows[b].considered = min(count, considered)


@step
def gumbel_step(
    leaf: int,
    pointers: LongArray,
    schedule: IntArray,
    c_visit: float,
    c_scale: float,
) -> None:
    """As `puct_step`, by sequential halving at the root and deterministic selection below.

    schedule `[C, N - 1]`: visits of the root actions that simulation i considers, by how many are considered at first.
    """
    tree, exchange = tree_at(pointers), exchange_at(pointers)
    nodes, edges = tree.nodes, tree.edges
    first, second = 0, 0
    for b in range(nodes.shape[0]):
        first, second = fetch_ahead(pointers, nodes, b, leaf, first, second)
        if leaf > 0:
            _back_up(tree, b, leaf, exchange, c_visit, c_scale)
        if leaf + 1 == nodes.shape[1]:
            continue
        n, considered = 0, schedule[tree.rows[b].considered, leaf]
        if considered == 0:
            action = _best_unvisited(tree, b)
        else:
            n = edges[b, 0, _select_considered(tree, b, considered, c_visit, c_scale)].child
            while nodes[b, n].choice > 0:
                n = nodes[b, n].choice
            if nodes[b, n].edges == 0:
                expand_priors(tree, b, n)
            action = nodes[b, n].next_action
        open_edge(tree, b, n, action, leaf + 1)
        gather(exchange, b, n, action)


@step
def gumbel_result(
    pointers: LongArray,
    logits: FloatArray,
    c_visit: float,
    c_scale: float,
    action: IntArray,
    target: FloatArray,
    root_value: FloatArray,
    visits: IntArray,
    depth: FloatArray,
) -> bool:
    """Fills the arrays of a SearchResult. False if a root's value is NaN or infinite, as it is if any in its tree is.

    logits `[B, A]`: of the roots. Of the most visited root actions the best by root scores + sigma(Q) is chosen; the
    target is softmax(logits + sigma) over the legal ones.
    """
    tree = tree_at(pointers)
    root_scores = tree.root_scores
    finite, simulations = True, np.float32(tree.nodes.shape[1] - 1)
    for b in range(tree.nodes.shape[0]):
        most = count_visits(tree, b, visits)
        mixed, base, slope, _ = _sigma(tree, b, 0, c_visit, c_scale)
        for a in range(logits.shape[1]):
            target[b, a] = slope * (mixed - base)
        for j in range(tree.nodes[b, 0].edges):
            edge = tree.edges[b, 0, j]
            target[b, edge.action] = slope * (edge.q - base)
        best, high, total = -INF, -INF, ZERO
        for a in range(logits.shape[1]):
            if visits[b, a] == most and root_scores[b, a] + target[b, a] > best:
                best, action[b] = root_scores[b, a] + target[b, a], a
            target[b, a] += logits[b, a]
            if root_scores[b, a] > -INF:
                high = max(high, target[b, a])
        for a in range(logits.shape[1]):
            target[b, a] = fast_exp(target[b, a] - high) if root_scores[b, a] > -INF else ZERO
            total += target[b, a]
        for a in range(logits.shape[1]):
            target[b, a] /= total
        root_value[b] = mixed
        finite = finite and np.isfinite(mixed)
        depth[b] = np.float32(tree.rows[b].depth) / simulations
    return finite
