"""The state of a numpy generator as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from muzero_ray.errors import CheckpointError


def rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """JSON-able state of a `np.random.default_rng` generator; its 128-bit integers are exact in JSON."""
    return dict(rng.bit_generator.state)


def restore_rng(state: Mapping[str, Any]) -> np.random.Generator:
    """A generator that goes on exactly where `rng_state` was taken. Raises CheckpointError for anything else."""
    bit_generator: np.random.BitGenerator = np.random.PCG64()
    try:
        bit_generator.state = dict(state)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"random generator state cannot be restored: {error!r}") from error
    return np.random.Generator(bit_generator)
