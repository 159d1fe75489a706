"""The trees of a search as arrays of their own, for whoever wants to look into them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from muzero_ray.search.workspace import Workspace
from muzero_ray.types import FloatArray, IntArray


@dataclass(frozen=True)
class SearchTree:
    """`B` trees of `N` nodes: node 0 is the root, node `i` was added by simulation `i`. All arrays are `[B, N]`.

    parent: node; -1 of the root. action: that leads from the parent to the node; -1 of the root. prior: probability of
    that action in the parent. reward: predicted for that action, env units, for the player who acts; 0 of the root.
    visits: simulations through the node, its own expansion included. value: mean of the network's value and all that
    was backed up, env units, for the player to move at the node. q: of that action, for the player to move at the
    parent; of the root, its value.
    """

    parent: IntArray
    action: IntArray
    prior: FloatArray
    reward: FloatArray
    visits: IntArray
    value: FloatArray
    q: FloatArray


def copied_tree(workspace: Workspace) -> SearchTree:
    """What `workspace` holds after a search."""
    nodes = workspace.nodes
    rows = np.arange(len(nodes))[:, None]
    parent, slot = nodes["parent"].copy(), nodes["slot"].copy()
    parent[:, 0], slot[:, 0] = 0, 0
    edges = workspace.edges[rows, parent, slot]
    value = (nodes["value_sum"] / nodes["visits"]).astype(np.float32)
    tree = SearchTree(
        parent=parent,
        action=edges["action"].copy(),
        prior=edges["prior"].copy(),
        reward=nodes["reward"].copy(),
        visits=nodes["visits"].copy(),
        value=value,
        q=edges["q"].copy(),
    )
    parent[:, 0] = tree.action[:, 0] = -1
    tree.prior[:, 0], tree.reward[:, 0], tree.q[:, 0] = 1.0, 0.0, value[:, 0]
    return tree
