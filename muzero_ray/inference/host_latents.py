"""Latents of searches in memory of the host, for engines that compute there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from muzero_ray.host_memory import allocate
from muzero_ray.types import Array, EdgeAnswers, HostPool, IntArray, NetworkOutput

POOLS = 2
"""That are kept: of the last few search shapes, so that move after move of one shape allocates nothing."""


class HostLatents(ABC):
    """`pool` and `expand` of a model whose `recurrent` reads and writes latents in memory of the host."""

    def __init__(self) -> None:
        self._pools: dict[tuple[Any, ...], HostPool] = {}
        self._pool: HostPool | None = None
        self._bound_answers: EdgeAnswers | None = None
        self._bound_outputs: list[NetworkOutput] = []

    @abstractmethod
    def recurrent(self, hidden: Array, actions: IntArray, out: NetworkOutput) -> None:
        """See InferenceEngine."""

    def pool(self, root: Array, nodes: int) -> HostPool:
        """See `search.Model`."""
        key = (nodes, root.shape, root.dtype)
        pool = self._pools.get(key)
        if pool is None:
            while len(self._pools) >= POOLS:
                del self._pools[next(iter(self._pools))]
            latents, hidden = allocate(((nodes, *root.shape), root.dtype), (root.shape, root.dtype))
            pool = self._pools[key] = HostPool(list(latents), latents, hidden)
        if pool is not self._pool:
            self._pool, self._bound_answers = pool, None
        pool.nodes[0][...] = root
        return pool

    def expand(self, leaf: int, _parents: IntArray, actions: IntArray, out: EdgeAnswers) -> None:
        """See `search.Model`; the search has gathered the latents of the parents."""
        pool = self._pool
        assert pool is not None
        if out is not self._bound_answers:  # made once for a search shape: with one root, each costs as much as a step
            reward, value, logits = out.reward, out.value, out.policy_logits
            self._bound_answers = out
            self._bound_outputs = [NetworkOutput(node, reward, value, logits) for node in pool.nodes]
        self.recurrent(pool.hidden, actions, self._bound_outputs[leaf])
