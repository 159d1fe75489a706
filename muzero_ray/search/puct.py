"""MuZero's selection by pUCT, as one compiled step for a batch of trees. Letters: see `tree`."""

from __future__ import annotations

import numpy as np

from muzero_ray.search.tree import (
    INF,
    ONE,
    UNVISITED_COMPLETED,
    UNVISITED_PARENT,
    ZERO,
    Tree,
    backup,
    enter,
    gather,
    helper,
    inverse_range,
    mix,
    open_edge,
    step,
)
from muzero_ray.types import Array, FloatArray, IntArray


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
            q = (mix(node, mass, weighted) - low) * inverse
        # The network's own value of a node may lie outside the range of backed-up Q.
        if min(max(q, ZERO), ONE) + c * node.next_prior > best:
            slot = -1
    return slot


@step
def puct_step(
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
            backup(tree, b, leaf, reward[b], value[b], logits, discount, track)
        if leaf + 1 == nodes.shape[1]:
            continue
        n, slot = 0, 0
        while nodes[b, n].edges > 0:
            slot = _select_puct(tree, b, n, pb_c, unvisited)
            if slot < 0:
                break
            n = edges[b, n, slot].child
        if n > 0 and nodes[b, n].edges == 0:
            enter(tree, b, n)
        action = nodes[b, n].next_action
        open_edge(tree, b, n, action, leaf + 1)
        gather(b, n, action, latents, hidden, actions)
