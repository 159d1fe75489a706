"""Inference of `mlp` networks in compiled loops: one call, and no allocation, per simulation.

Networks this small are all overhead in eager torch: with layers of 64 it takes 100-150 us on one core, for one state as
for 64; this engine takes 5 and 60. Packing is here, the loops are in `mlp_kernels`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import nn

from muzero_ray.inference import mlp_kernels as kernels
from muzero_ray.inference.host_latents import HostLatents
from muzero_ray.networks.flat import check_flat, flatten_state
from muzero_ray.networks.mlp import VectorDynamics, VectorRepresentation
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.networks.supports import Support
from muzero_ray.types import Array, FloatArray, IntArray, LongArray, NetworkOutput


@dataclass(frozen=True)
class _Layer:
    """Names of a layer's parameters in the network, and where and how large they are when packed."""

    linear: str
    inputs: int
    width: int
    norm: str = ""
    embedding: str = ""
    actions: int = 1
    offset: int = 0

    @property
    def padded(self) -> tuple[int, int]:
        return _pad(self.width, kernels.WIDTH_BLOCK), _pad(self.inputs, kernels.WIDTH_BLOCK)

    @property
    def size(self) -> int:
        high, wide = self.padded
        return high * (wide + self.actions + (2 if self.norm else 0))


class CompiledMlpEngine(HostLatents):
    """See InferenceEngine; for networks of kind `mlp`, float32. Agrees with TorchEngine up to rounding.

    Both functions raise ValueError for inputs of another shape than the network's, `recurrent` IndexError for an action
    that it does not have.
    """

    precision: Literal["float32", "bf16"] = "float32"

    def __init__(self, network: MuZeroNetwork) -> None:
        """ValueError for a network of another kind."""
        super().__init__()
        self._shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        self._layers, parts, size = _lay_out(network)
        supports = {kernels.REWARD_HEAD: network.reward_support, kernels.VALUE_HEAD: network.value_support}
        self._points: list[tuple[int, Support]] = []
        rows = []
        for part, (first, last) in enumerate(parts):
            support = supports.get(part)
            if support is not None:
                self._points.append((size, support))
            rows.append(
                (first + kernels.PARTS, last + kernels.PARTS, size, int(support is not None and support.transform), 0)
            )
            size += 0 if support is None else support.bins
        self._size = size
        rows += [(x.inputs, x.width, x.offset, x.actions, int(bool(x.norm))) for x in self._layers]
        self._plan: LongArray = np.array(rows, np.int64)
        self._stride = _pad(max(max(layer.inputs, layer.width) for layer in self._layers), 16)
        self._hidden, self._actions = network.hidden_shape[0], network.num_actions
        self._space: FloatArray = np.zeros((kernels.SHEETS, 0, self._stride), np.float32)
        self.load(flatten_state(network))

    def prepare(self, flat: FloatArray) -> FloatArray:
        """See InferenceEngine; CheckpointError if `flat` is of another network."""
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        check_flat(flat, sum(sizes))
        pieces = np.split(flat, np.cumsum(sizes)[:-1])
        state = {name: piece.reshape(shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)}
        packed: FloatArray = np.zeros(self._size, np.float32)
        for layer in self._layers:
            _pack(layer, state, packed[layer.offset : layer.offset + layer.size])
        for offset, support in self._points:
            packed[offset : offset + support.bins] = support.points().numpy()
        return packed

    def adopt(self, prepared: FloatArray) -> None:
        """See InferenceEngine."""
        self._weights = prepared

    def load(self, flat: FloatArray) -> None:
        """See InferenceEngine; CheckpointError if `flat` is of another network."""
        self.adopt(self.prepare(flat))

    def initial(self, observations: Array) -> NetworkOutput:
        """See InferenceEngine."""
        rows = observations.reshape(len(observations), -1)
        inputs = rows / np.float32(255) if rows.dtype == np.uint8 else rows
        actions = np.zeros(len(rows), np.int32)
        batch = len(rows)
        answer = NetworkOutput(
            hidden=np.empty((batch, self._hidden), np.float32),
            reward=np.zeros(batch, np.float32),
            value=np.empty(batch, np.float32),
            policy_logits=np.empty((batch, self._actions), np.float32),
        )
        self._evaluate(inputs, actions, answer, kernels.REPRESENT)
        return answer

    def recurrent(self, hidden: Array, actions: IntArray, out: NetworkOutput) -> None:
        """See InferenceEngine."""
        self._evaluate(hidden, actions, out, kernels.DYNAMICS)

    def _evaluate(self, inputs: Array, actions: IntArray, out: NetworkOutput, part: int) -> None:
        rows = _pad(len(actions), kernels.ROW_BLOCK)
        if rows != self._space.shape[1]:
            self._space = np.zeros((kernels.SHEETS, rows, self._stride), np.float32)
        inputs, actions = _own(inputs, np.float32), _own(actions, np.int32)
        kernels.evaluate(self._weights, self._plan, self._space, inputs, actions, *out, part)


def _own(array: Array, dtype: type[np.generic]) -> Array:
    """The array itself if it is of the type that `evaluate` was compiled for (another means compiling), or a copy."""
    flags = array.flags
    if array.dtype == dtype and flags.c_contiguous and flags.writeable:
        return array
    return np.array(array, dtype, order="C")


def _pad(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _lay_out(network: MuZeroNetwork) -> tuple[list[_Layer], list[tuple[int, int]], int]:
    """All layers with their offsets, the first and last layer of each part, and the numbers they take together."""
    representation, dynamics = network.representation_part, network.dynamics_part
    if not (isinstance(representation, VectorRepresentation) and isinstance(dynamics, VectorDynamics)):
        raise ValueError("CompiledMlpEngine computes networks of kind mlp: use TorchEngine for others")
    state = replace(
        _Layer("dynamics_part.state", dynamics.state.in_features, dynamics.state.out_features),
        norm="dynamics_part.norm",
        embedding="dynamics_part.action",
        actions=network.num_actions,
    )
    chains = {
        kernels.REPRESENT: _chain("representation_part.body", representation.body),
        kernels.DYNAMICS: [state, *_chain("dynamics_part.body", dynamics.body)],
        kernels.REWARD_HEAD: _chain("reward_head", network.reward_head),
        kernels.POLICY_HEAD: _chain("policy_head", network.policy_head),
        kernels.VALUE_HEAD: _chain("value_head", network.value_head),
    }
    layers: list[_Layer] = []
    parts, size = [], 0
    for part in range(kernels.PARTS):
        first = len(layers)
        for layer in chains[part]:
            layers.append(replace(layer, offset=size))
            size += layer.size
        parts.append((first, len(layers)))
    return layers, parts, size


def _chain(name: str, body: nn.Module) -> list[_Layer]:
    """Layers of an `mlp.mlp`: each Linear, but for the last one, is followed by LayerNorm and ReLU."""
    layers: list[_Layer] = []
    for child, module in body.named_children():
        if isinstance(module, nn.Linear):
            layers.append(_Layer(f"{name}.{child}", module.in_features, module.out_features))
        elif isinstance(module, nn.LayerNorm):
            layers[-1] = replace(layers[-1], norm=f"{name}.{child}")
    return layers


def _pack(layer: _Layer, state: dict[str, FloatArray], out: FloatArray) -> None:
    """Copies a layer's parameters into `out` `[layer.size]`, which is 0."""
    high, wide = layer.padded
    rows = out[high * wide :].reshape(-1, high)[:, : layer.width]
    out[: high * wide].reshape(high, wide)[: layer.width, : layer.inputs] = state[layer.linear + ".weight"]
    rows[: layer.actions] = state[layer.linear + ".bias"]
    if layer.embedding:
        rows[: layer.actions] += state[layer.embedding + ".weight"]
    if layer.norm:
        rows[layer.actions :] = state[layer.norm + ".weight"], state[layer.norm + ".bias"]
