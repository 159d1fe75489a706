"""Who plays in an evaluation: the network with its search, or uniformly random play."""

from __future__ import annotations

import numpy as np

from muzero_ray.evaluation.episodes import Policy
from muzero_ray.search.planner import Planner
from muzero_ray.types import Array, BoolArray, IntArray


def search_policy(planner: Planner) -> Policy:
    """The network and its search, noise-free: the most visited (or best improved) action."""
    rng = np.random.default_rng(0)  # breaks exact ties only

    def act(observations: Array, legal: BoolArray) -> IntArray:
        temperature = np.zeros(len(observations), np.float32)
        return planner.plan(observations, legal, rng, explore=False, temperature=temperature).result.action

    return act


def random_policy(seed: int) -> Policy:
    """Uniform over legal actions."""
    rng = np.random.default_rng(seed)

    def act(observations: Array, legal: BoolArray) -> IntArray:
        del observations
        actions: IntArray = np.argmax(rng.random(legal.shape) * legal, axis=1).astype(np.int32)
        return actions

    return act
