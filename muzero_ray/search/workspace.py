"""Memory of a batch of search trees: record layouts, and arrays kept from move to move."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from muzero_ray.types import Array, FloatArray, IntArray

NODE = np.dtype(
    [
        ("parent", np.int32),
        ("slot", np.int32),  # of the edge from the parent
        ("edges", np.int32),  # visited children
        ("visits", np.int32),  # own expansion included
        ("choice", np.int32),  # child that the next descent goes to, 0: open the next unvisited (Gumbel only)
        ("next_action", np.int32),  # unvisited child with the largest prior, -1: none
        ("next_prior", np.float32),
        ("open_prior", np.float32),  # prior mass of all unvisited children
        ("reward", np.float32),  # of the edge from the parent
        ("raw_value", np.float32),  # the network's
        ("value_sum", np.float64),  # the network's value and every backup through the node
    ],
    align=True,
)
"""Values are for the player to move at the node, rewards for the player who acted."""

EDGE = np.dtype(
    [
        ("action", np.int32),
        ("child", np.int32),  # node
        ("visits", np.int32),
        ("q", np.float32),  # reward + discount * mean value of the child, for the player to move at the parent
        ("prior", np.float32),
        ("weight", np.float32),  # scratch of the Gumbel selection
    ],
    align=True,
)
"""A visited child, as its parent sees it; the first `edges` of a node are in use."""

ROW = np.dtype(
    [
        ("low", np.float32),  # range of Q: known bounds, or what this tree has seen
        ("high", np.float32),
        ("narrowest", np.float32),  # a smaller range is not stretched to [0, 1]
        ("depth", np.int32),  # edges walked, summed over simulations
    ],
    align=True,
)


class Workspace:
    """Arrays for one search shape. Letters as in `tree`: `B` roots, `N` nodes, `A` actions, `S = min(A, N - 1)`.

    nodes `[B, N]`, edges `[B, N, S]`, rows `[B]`: records above. priors `[B, N, A]`: of unvisited children, -1 once
    visited or where illegal; raw logits until a node is entered. latents `[N, B, H]`: the pool of hidden states,
    as bytes. hidden `[B, H]`, actions `[B]`: what the network is asked next. `latents_view`, `hidden_view`: of the
    network's dtype, `[N, B, ...]` and `[B, ...]`. reward `[B]`, value `[B]`, logits `[B, A]`: its newest answer.
    """

    def __init__(
        self, batch: int, nodes: int, num_actions: int, hidden_shape: tuple[int, ...], hidden_dtype: np.dtype[Any]
    ) -> None:
        self.nodes: Array = np.zeros((batch, nodes), NODE)
        self.edges: Array = np.zeros((batch, nodes, min(num_actions, nodes - 1)), EDGE)
        self.rows: Array = np.zeros(batch, ROW)
        self.priors: FloatArray = np.zeros((batch, nodes, num_actions), np.float32)
        self.latents_view: Array = np.empty((nodes, batch, *hidden_shape), hidden_dtype)
        self.latents: Array = self.latents_view.reshape(nodes, batch, -1).view(np.uint8)
        self.hidden_view: Array = np.empty((batch, *hidden_shape), hidden_dtype)
        self.hidden: Array = self.hidden_view.reshape(batch, -1).view(np.uint8)
        self.actions: IntArray = np.zeros(batch, np.int32)
        self.reward: FloatArray = np.zeros(batch, np.float32)
        self.value: FloatArray = np.zeros(batch, np.float32)
        self.logits: FloatArray = np.zeros((batch, num_actions), np.float32)

    @property
    def step_arrays(self) -> tuple[Array, ...]:
        """The arrays every step takes, in the order of its arguments."""
        tree = (self.nodes, self.edges, self.rows, self.priors)
        return (*tree, self.reward, self.value, self.logits, self.latents, self.hidden, self.actions)


class WorkspaceCache:
    """The last few workspaces, so that move after move of one shape allocates nothing. Not for use by two threads."""

    def __init__(self, size: int = 2) -> None:
        self._size = size
        self._kept: OrderedDict[tuple[Any, ...], Workspace] = OrderedDict()

    def get(self, batch: int, nodes: int, num_actions: int, hidden: Array) -> Workspace:
        """hidden `[B, ...]`: what latents are like."""
        key = (batch, nodes, num_actions, hidden.shape, hidden.dtype)
        workspace = self._kept.pop(key, None)
        if workspace is None:
            while len(self._kept) >= self._size:
                self._kept.popitem(last=False)
            workspace = Workspace(batch, nodes, num_actions, hidden.shape[1:], hidden.dtype)
        self._kept[key] = workspace
        return workspace
