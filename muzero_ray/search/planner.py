"""An engine and a search wired together: from what is seen to what is best. Whatever acts or searches again uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from muzero_ray.search.policies import SearchFunction, TreeSearch
from muzero_ray.search.search_tree import SearchTree, copied_tree
from muzero_ray.types import Array, BoolArray, FloatArray, NetworkOutput, SearchResult

if TYPE_CHECKING:
    from muzero_ray.inference.engine import InferenceEngine


class Planned(NamedTuple):
    """root: what the network says of the searched states before the search. result: what the search found."""

    root: NetworkOutput
    result: SearchResult


class Planner:
    """Searches the states that `engine` reads. One thread at a time.

    engine: its weights are the caller's to load, between two plans.
    """

    def __init__(self, engine: InferenceEngine, search: SearchFunction) -> None:
        self.engine = engine
        self.search = search

    def plan(
        self, observations: Array, legal: BoolArray, rng: np.random.Generator, *, explore: bool, temperature: FloatArray
    ) -> Planned:
        """Search `B` states together. observations: `[B, ...]`, stacked. The rest: see `SearchFunction`."""
        root = self.engine.initial(observations)
        result = self.search(root, self.engine, legal, rng, explore=explore, temperature=temperature)
        return Planned(root, result)

    def values(self, observations: Array) -> FloatArray:
        """The network's own values of `B` states, without a search."""
        return self.engine.initial(observations).value

    def tree_of(self, planned: Planned) -> SearchTree | None:
        """A copy of the trees of `planned`, this planner's newest plan; None if its search shows none."""
        return copied_tree(self.search.newest(planned.root)) if isinstance(self.search, TreeSearch) else None
