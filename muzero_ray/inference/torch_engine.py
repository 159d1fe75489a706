"""Inference with eager torch, on the CPU or another device."""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import torch

from muzero_ray.inference.host_latents import HostLatents
from muzero_ray.networks.flat import load_flat, to_tensor
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.networks.supports import Support
from muzero_ray.types import Array, FloatArray, IntArray, NetworkOutput


class _Decoder:
    """Logits on a device to env-unit numpy scalars: one softmax, one matrix-vector product, h^-1 on `[B]` numbers."""

    def __init__(self, support: Support, device: torch.device) -> None:
        self._support = support
        self._points = support.points(device)

    def __call__(self, logits: torch.Tensor) -> FloatArray:
        expected: FloatArray = self._support.expected(logits, self._points).cpu().numpy()
        return self._support.scalars(expected)


class TorchEngine(HostLatents):
    """Eager torch. Holds its own copy of the network: later learner updates do not show until `load`.

    bf16 converts the copy once (autocast would cast the weights again at every call); latents and scalars leave as
    float32. Image latents are handed out as `[B, H, W, C]`, the memory order of channels_last, so that both ways are
    free of copies.
    """

    def __init__(self, network: MuZeroNetwork, *, device: str = "cpu", bf16: bool = False) -> None:
        super().__init__()
        self.precision: Literal["float32", "bf16"] = "bf16" if bf16 else "float32"
        self._device = torch.device(device)
        dtype = torch.bfloat16 if bf16 else torch.float32
        # Converting a channels_last module keeps its memory format.
        self._net = copy.deepcopy(network).to(self._device, dtype).eval().requires_grad_(False)
        self._image = len(network.hidden_shape) == 3
        self._dtype = dtype
        self._decode_value = _Decoder(network.value_support, self._device)
        self._decode_reward = _Decoder(network.reward_support, self._device)

    def prepare(self, flat: FloatArray) -> MuZeroNetwork:
        """See InferenceEngine."""
        net = copy.deepcopy(self._net)
        load_flat(net, flat)
        return net

    def adopt(self, prepared: MuZeroNetwork) -> None:
        """See InferenceEngine."""
        self._net = prepared

    def load(self, flat: FloatArray) -> None:
        """See InferenceEngine."""
        self.adopt(self.prepare(flat))

    def initial(self, observations: Array) -> NetworkOutput:
        """See InferenceEngine."""
        with torch.inference_mode():
            hidden = self._net.represent(to_tensor(observations, self._device))
            return self._output(hidden, np.zeros(len(observations), np.float32))

    def recurrent(self, hidden: Array, actions: IntArray, out: NetworkOutput) -> None:
        """See InferenceEngine."""
        with torch.inference_mode():
            state = to_tensor(hidden, self._device).to(self._dtype)
            if self._image:
                state = state.permute(0, 3, 1, 2)
            state, reward_logits = self._net.dynamics(state, to_tensor(actions, self._device))
            answer = self._output(state, self._decode_reward(reward_logits))
        for array, part in zip(out, answer, strict=True):
            array[...] = part

    def _output(self, hidden: torch.Tensor, reward: FloatArray) -> NetworkOutput:
        policy_logits, value_logits = self._net.predict(hidden)
        if self._image:
            hidden = hidden.permute(0, 2, 3, 1)
        return NetworkOutput(
            hidden=hidden.float().cpu().numpy(),
            reward=reward,
            value=self._decode_value(value_logits),
            policy_logits=policy_logits.float().cpu().numpy(),
        )
