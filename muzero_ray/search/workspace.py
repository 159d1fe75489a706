"""Memory of a batch of search trees: record layouts, and arrays kept from move to move."""

from __future__ import annotations

from typing import Any

import numpy as np

from muzero_ray.host_memory import allocate
from muzero_ray.types import EdgeAnswers, HostPool, LongArray

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
        ("discount", np.float64),  # of the edge from the parent
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
        ("considered", np.int32),  # actions that sequential halving starts from (Gumbel only)
    ],
    align=True,
)

BATCH, NODES, ACTIONS, SLOTS = range(4)
AT_NODES, AT_EDGES, AT_ROWS, AT_PRIORS, AT_REWARD, AT_DISCOUNT, AT_VALUE, AT_LOGITS = range(4, 12)
AT_PARENTS, AT_ACTIONS, AT_SCORES = range(12, 15)
LATENT_BYTES, AT_LATENTS, AT_HIDDEN = range(15, 18)
"""Where `Workspace.pointers` has what: sizes, addresses in the order in which the arrays are allocated, and the model's
pool of latents."""


class Workspace:
    """Arrays for one search shape. Letters as in `tree`: `B` roots, `N` nodes, `A` actions, `S = min(A, N - 1)`.

    nodes `[B, N]`, edges `[B, N, S]`, rows `[B]`: records above. priors `[B, N, A]`: of unvisited children, -1 once
    visited or where illegal; raw logits until the first visit below a node. parents `[B]`, actions `[B]`: the edges
    that the model is asked about next. answers: where it says what they lead to, the same memory for all leaves.
    root_scores `[B, A]`: noise + logits of the root actions, -inf where illegal (Gumbel only). pointers: the sizes B,
    N, A and S, the addresses of these arrays, and where the model keeps latents, for the compiled steps.
    """

    def __init__(self, batch: int, nodes: int, num_actions: int) -> None:
        slots = min(num_actions, nodes - 1)
        floats, integers = np.dtype(np.float32), np.dtype(np.int32)
        arrays = allocate(
            ((batch, nodes), NODE),
            ((batch, nodes, slots), EDGE),
            ((batch,), ROW),
            ((batch, nodes, num_actions), floats),
            ((batch,), floats),
            ((batch,), np.dtype(np.float64)),
            ((batch,), floats),
            ((batch, num_actions), floats),
            ((batch,), integers),
            ((batch,), integers),
            ((batch, num_actions), floats),
        )
        self.nodes, self.edges, self.rows, self.priors = arrays[:4]
        self.answers = EdgeAnswers(*arrays[4:8])
        self.parents, self.actions, self.root_scores = arrays[8:]
        sizes = (batch, nodes, num_actions, slots)
        self.pointers: LongArray = np.array([*sizes, *(array.ctypes.data for array in arrays), 0, 0, 0], np.int64)
        self._pool: HostPool | None = None

    def gather_from(self, pool: HostPool | None) -> None:
        """The steps gather latents there from now on; None: the model keeps them elsewhere."""
        if pool is self._pool:
            return
        self._pool = pool
        places = (0, 0, 0)
        if pool is not None:
            places = (pool.hidden[0].nbytes, pool.latents.ctypes.data, pool.hidden.ctypes.data)
        self.pointers[LATENT_BYTES:] = places


class WorkspaceCache:
    """The last few workspaces, so that move after move of one shape allocates nothing. Not for use by two threads."""

    def __init__(self, size: int = 2) -> None:
        self._size = size
        self._kept: dict[tuple[Any, ...], Workspace] = {}

    def get(self, batch: int, nodes: int, num_actions: int) -> Workspace:
        """The one of this shape, with what was left in it."""
        key = (batch, nodes, num_actions)
        workspace = self._kept.get(key)
        if workspace is None:
            while len(self._kept) >= self._size:
                del self._kept[next(iter(self._kept))]
            workspace = self._kept[key] = Workspace(batch, nodes, num_actions)
        return workspace
