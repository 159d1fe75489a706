"""Who plays in an evaluation: the network with its search, or uniformly random play."""

from __future__ import annotations

import numpy as np

from muzero_ray.evaluation.episodes import Policy
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.search.policies import SearchFunction
from muzero_ray.types import Array, BoolArray, IntArray


def search_policy(engine: InferenceEngine, search: SearchFunction) -> Policy:
    """The network and its search, noise-free: the most visited (or best improved) action."""
    rng = np.random.default_rng(0)  # breaks exact ties only

    def act(observations: Array, legal: BoolArray) -> IntArray:
        root = engine.initial(observations)
        temperature = np.zeros(len(observations), np.float32)
        return search(root, engine, legal, rng, explore=False, temperature=temperature).action

    return act


def random_policy(seed: int) -> Policy:
    """Uniform over legal actions."""
    rng = np.random.default_rng(seed)

    def act(observations: Array, legal: BoolArray) -> IntArray:
        del observations
        actions: IntArray = np.argmax(rng.random(legal.shape) * legal, axis=1).astype(np.int32)
        return actions

    return act
