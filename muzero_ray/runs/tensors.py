"""Named arrays as safetensors files, which hold nothing but numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from muzero_ray.errors import CheckpointError
from muzero_ray.types import Array

# A header holds about 100 bytes per tensor; the limit keeps a forged one from costing memory before it is refused.
_MAX_HEADER_BYTES = 8 << 20


def dump_tensors(tensors: Mapping[str, Array]) -> bytes:
    """The content of a file that holds `tensors`."""
    # order="C", because safetensors writes the memory of a transposed view as it lies.
    return safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in tensors.items()})


def load_tensors(content: bytes, path: Path) -> dict[str, Array]:
    """The tensors of a safetensors file. path: where it came from; CheckpointError names it."""
    header = int.from_bytes(content[:8], "little")
    if len(content) < 8 or header > min(_MAX_HEADER_BYTES, len(content) - 8):
        raise CheckpointError(f"{path}: header of {header} bytes is beyond the file or {_MAX_HEADER_BYTES}")
    try:
        return dict(safetensors.numpy.load(content))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is no valid safetensors file: {error}") from error
