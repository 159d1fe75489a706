"""Asking an engine as a search does."""

import numpy as np

from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.types import IntArray, NetworkOutput


def child_of(engine: InferenceEngine, parent: NetworkOutput, actions: IntArray) -> NetworkOutput:
    """What the engine says of the states that `actions` `[B]` lead to, in new arrays full of garbage before."""
    out = NetworkOutput(*(np.full(array.shape, 99, array.dtype) for array in parent))
    engine.recurrent(parent.hidden, actions, out)
    return out
