"""MuZero's selection by pUCT, as one compiled step for a batch of trees. Letters: see `tree`."""

from __future__ import annotations

import numpy as np

from muzero_ray.search.compiled import INF, ONE, ZERO, helper, step
from muzero_ray.search.tree import (
    UNVISITED_COMPLETED,
    UNVISITED_PARENT,
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
from muzero_ray.types import Array, FloatArray, IntArray, LongArray


@helper
def _back_up(tree: Tree, b: int, leaf: int, exchange: Exchange, track: bool) -> None:
    """Expands node `leaf` and adds its value to every node above."""
    expand(tree, b, leaf, exchange)
    row, n = tree.rows[b], leaf
    target: float = np.float64(exchange.value[b])
    while n > 0:
        target, q = backup_step(tree, b, n, target)
        if track:
            row.low, row.high = min(row.low, q), max(row.high, q)
        n = tree.nodes[b, n].parent


@helper
def _select_puct(tree: Tree, b: int, n: int, pb_c: FloatArray, unvisited: int) -> int:
    """Slot of the best visited child of `n` by pUCT (MuZero, equation 2), -1: the next unvisited one."""
    node, row = tree.nodes[b, n], tree.rows[b]
    low, inverse = row.low, inverse_range(row.low, row.high, row.narrowest)
    c = pb_c[node.visits]
    best, slot, mass, weighted = -INF, 0, ZERO, ZERO
    for j in range(node.edges):
        edge = tree.edges[b, n, j]
        mass += edge.prior
        weighted += edge.prior * edge.q
        score = (edge.q - low) * inverse + c * edge.prior / np.float32(edge.visits + 1)
        if score > best:
            best, slot = score, j
    if node.next_action >= 0:
        q = ZERO
        if unvisited == UNVISITED_PARENT:
            q = (np.float32(node.value_sum / node.visits) - low) * inverse
        elif unvisited == UNVISITED_COMPLETED:
            q = (mixed_value(node, mass, weighted) - low) * inverse
        # The network's own value of a node may lie outside the range of backed-up Q.
        if min(max(q, ZERO), ONE) + c * node.next_prior > best:
            slot = -1
    return slot


@step
def puct_step(
    leaf: int,
    pointers: LongArray,
    pb_c: FloatArray,
    track: bool,
    unvisited: int,
) -> None:
    """Backs up node `leaf` of every tree (0: nothing yet), selects the edge to node `leaf + 1` and gathers its
    parent's latent and its action. pointers: see `Workspace`.

    pb_c `[N]`: exploration factor by visits of the parent. track: the range of Q follows the tree.
    """
    tree, exchange = tree_at(pointers), exchange_at(pointers)
    nodes, edges = tree.nodes, tree.edges
    first, second = 0, 0
    for b in range(nodes.shape[0]):
        first, second = fetch_ahead(pointers, nodes, b, leaf, first, second)
        if leaf > 0:
            _back_up(tree, b, leaf, exchange, track)
        if leaf + 1 == nodes.shape[1]:
            continue
        n, slot = 0, 0
        while nodes[b, n].edges > 0:
            slot = _select_puct(tree, b, n, pb_c, unvisited)
            if slot < 0:
                break
            n = edges[b, n, slot].child
        if n > 0 and nodes[b, n].edges == 0:
            expand_priors(tree, b, n)
        action = nodes[b, n].next_action
        open_edge(tree, b, n, action, leaf + 1)
        gather(exchange, b, n, action)


@helper
def _weight(visits: int, most: int, temperature: np.float32) -> float:
    """visits^(1 / temperature), of which only ratios matter: as share of the largest one it cannot overflow."""
    if visits == 0:
        return 0.0
    share = visits / most
    return share if temperature == ONE else float(share ** (1.0 / temperature))


@step
def puct_result(
    pointers: LongArray,
    temperature: FloatArray,
    draws: Array,
    action: IntArray,
    target: FloatArray,
    root_value: FloatArray,
    visits: IntArray,
    depth: FloatArray,
) -> bool:
    """Fills the arrays of a SearchResult. False if a root's value is NaN or infinite, as it is if any in its tree is.

    An action is drawn from visits^(1 / temperature `[B]`) by draws `[B]` float64 in [0, 1), at temperature 0 it is the
    most visited one; of several, the one with the largest Q.
    """
    tree = tree_at(pointers)
    finite, simulations = True, np.float32(tree.nodes.shape[1] - 1)
    for b in range(tree.nodes.shape[0]):
        most = count_visits(tree, b, visits)
        best: np.float32 = -INF
        for j in range(tree.nodes[b, 0].edges):
            edge = tree.edges[b, 0, j]
            if edge.visits == most and (edge.q > best or (edge.q == best and edge.action < action[b])):
                best, action[b] = edge.q, edge.action
        for a in range(visits.shape[1]):
            target[b, a] = np.float32(visits[b, a]) / simulations
        root_value[b] = tree.nodes[b, 0].value_sum / tree.nodes[b, 0].visits
        finite = finite and np.isfinite(root_value[b])
        depth[b] = np.float32(tree.rows[b].depth) / simulations
        if temperature[b] > ZERO:
            total = 0.0
            for a in range(visits.shape[1]):
                total += _weight(visits[b, a], most, temperature[b])
            threshold, passed = draws[b] * total, 0.0
            for a in range(visits.shape[1]):
                weight = _weight(visits[b, a], most, temperature[b])
                # Sums of another order may round to less than the threshold: then it is the last visited action.
                if weight > 0.0 and passed <= threshold:
                    action[b] = a
                passed += weight
    return finite
