"""Network state as one flat float32 vector: cheap to put in an object store, zero-copy to get.

Order: that of `state_dict()`, each tensor in its logical (not memory) order; parameters and persistent buffers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from muzero_ray.errors import CheckpointError
from muzero_ray.types import Array, FloatArray


def to_tensor(array: Array, device: torch.device | None = None) -> torch.Tensor:
    """Tensor of a numpy array, sharing its memory on the CPU; read-only arrays (Ray's) are copied, since torch has no
    read-only tensors."""
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor if device is None else tensor.to(device)


def num_parameters(net: nn.Module) -> int:
    """Length P of the flat vector."""
    return sum(t.numel() for t in net.state_dict().values())


def flatten_state(net: nn.Module) -> FloatArray:
    """Copy of everything in `net`, `[P]` float32."""
    with torch.no_grad():
        flat = torch.cat([t.reshape(-1).float() for t in net.state_dict().values()])
    # A single tensor on the CPU could come back as a view of itself; cat always copies.
    out: FloatArray = flat.cpu().numpy()
    return out


def load_named(net: nn.Module, arrays: Mapping[str, Array], place: object) -> None:
    """Copy the arrays of `net`'s parameters and buffers, by name, into it.

    CheckpointError, naming the `place` they came from, if they are another network's; `net` is then as it was.
    """
    own = net.state_dict()
    if odd := sorted(own.keys() ^ arrays.keys()):
        raise CheckpointError(f"{place} belongs to another network: {odd[:3]} missing or unknown")
    for name, tensor in own.items():
        if arrays[name].shape != tuple(tensor.shape):
            raise CheckpointError(f"{place} does not fit this network: {name} has shape {arrays[name].shape}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(to_tensor(arrays[name]))


def check_flat(flat: FloatArray, expected: int) -> None:
    """CheckpointError if `flat` is not of `expected` numbers."""
    if flat.shape != (expected,):
        raise CheckpointError(
            f"weights of shape {flat.shape} do not fit this network of {expected} numbers: they belong to another one. "
            "Use the configuration they were trained with"
        )


def load_flat(net: nn.Module, flat: FloatArray) -> None:
    """Copy `flat` `[P]` into `net`, casting to its dtype and device. CheckpointError if P is another network's."""
    check_flat(flat, num_parameters(net))
    source = to_tensor(flat)
    offset = 0
    with torch.no_grad():
        for tensor in net.state_dict().values():
            size = tensor.numel()
            tensor.copy_(source[offset : offset + size].view(tensor.shape))
            offset += size
