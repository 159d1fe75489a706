"""Memory of a batch of search trees: record layouts, and arrays kept from move to move."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from muzero_ray.types import Array, LongArray, NetworkOutput

_LINE, _HUGE_PAGE = 64, 1 << 21
"""Bytes."""

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
        ("considered", np.int32),  # actions that sequential halving starts from (Gumbel only)
    ],
    align=True,
)

BATCH, NODES, ACTIONS, SLOTS, LATENT_BYTES = range(5)
AT_NODES, AT_EDGES, AT_ROWS, AT_PRIORS, AT_REWARD, AT_VALUE, AT_LOGITS, AT_LATENTS = range(5, 13)
AT_HIDDEN, AT_ACTIONS, AT_SCORES = range(13, 16)
"""Where `Workspace.pointers` has what: sizes, then addresses in the order in which the arrays are allocated."""


class Workspace:
    """Arrays for one search shape. Letters as in `tree`: `B` roots, `N` nodes, `A` actions, `S = min(A, N - 1)`.

    nodes `[B, N]`, edges `[B, N, S]`, rows `[B]`: records above. priors `[B, N, A]`: of unvisited children, -1 once
    visited or where illegal; raw logits until the first visit below a node. hidden `[B, ...]`, actions `[B]`: what the
    network is asked next. answers: where it says what node 0, 1 ... of all trees is; their latents, `[N, B, ...]` all
    told, stay, reward `[B]`, value `[B]` and logits `[B, A]` are the same memory for all. root_scores `[B, A]`: noise +
    logits of the root actions, -inf where illegal (Gumbel only). pointers: the sizes B, N, A, S and H, bytes of a
    latent, and the addresses of these arrays, for the compiled steps.
    """

    def __init__(
        self, batch: int, nodes: int, num_actions: int, hidden_shape: tuple[int, ...], hidden_dtype: np.dtype[Any]
    ) -> None:
        slots = min(num_actions, nodes - 1)
        floats, integers = np.dtype(np.float32), np.dtype(np.int32)
        arrays = _allocate(
            ((batch, nodes), NODE),
            ((batch, nodes, slots), EDGE),
            ((batch,), ROW),
            ((batch, nodes, num_actions), floats),
            ((batch,), floats),
            ((batch,), floats),
            ((batch, num_actions), floats),
            ((nodes, batch, *hidden_shape), hidden_dtype),
            ((batch, *hidden_shape), hidden_dtype),
            ((batch,), integers),
            ((batch, num_actions), floats),
        )
        self.nodes, self.edges, self.rows, self.priors = arrays[:4]
        reward, value, logits, latents, self.hidden, self.actions, self.root_scores = arrays[4:]
        self.answers = [NetworkOutput(place, reward, value, logits) for place in latents]
        sizes = (batch, nodes, num_actions, slots, self.hidden[0].nbytes)
        self.pointers: LongArray = np.array([*sizes, *(array.ctypes.data for array in arrays)], np.int64)


def _allocate(*layouts: tuple[tuple[int, ...], np.dtype[Any]]) -> list[Array]:
    """Arrays of these shapes and dtypes, full of zeros, side by side in one piece of memory.

    NumPy asks the kernel for huge pages from 4 MB on. Without them, a third of the time it takes to gather latents
    that the network has driven out of the caches goes into finding their pages.
    """
    sizes = [_round_up(math.prod(shape) * dtype.itemsize, _LINE) for shape, dtype in layouts]
    memory = np.empty(max(sum(sizes), _HUGE_PAGE) + _HUGE_PAGE, np.uint8)
    memory[:] = 0
    offset = -memory.ctypes.data % _HUGE_PAGE
    arrays = []
    for (shape, dtype), size in zip(layouts, sizes, strict=True):
        part = memory[offset : offset + math.prod(shape) * dtype.itemsize]
        arrays.append(part.view(dtype).reshape(shape))
        offset += size
    return arrays


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


class WorkspaceCache:
    """The last few workspaces, so that move after move of one shape allocates nothing. Not for use by two threads."""

    def __init__(self, size: int = 2) -> None:
        self._size = size
        self._kept: dict[tuple[Any, ...], Workspace] = {}

    def get(self, batch: int, nodes: int, num_actions: int, hidden: Array) -> Workspace:
        """hidden `[B, ...]`: what latents are like."""
        key = (batch, nodes, num_actions, hidden.shape, hidden.dtype)
        workspace = self._kept.get(key)
        if workspace is None:
            while len(self._kept) >= self._size:
                del self._kept[next(iter(self._kept))]
            workspace = self._kept[key] = Workspace(batch, nodes, num_actions, hidden.shape[1:], hidden.dtype)
        return workspace
