"""Normalisation of image networks, of `[B, C, H, W]` behind a convolution: `network.norm`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

NormKind = Literal["group", "batch"]


class BatchNorm(nn.Module):
    """Each channel scaled by mean and variance: in training those of the batch, otherwise running ones (1502.03167).

    nn.BatchNorm2d would move its running numbers in the forward pass, once for each of the K unrolled steps, and in an
    update that is then skipped, too. Here a pass only adds to the batch statistics, the mean over the passes since the
    last `commit`: the learner decides. Running numbers are parameters without gradient, so that they travel with the
    weights, their moving average and their checkpoints.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.mean = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.variance = nn.Parameter(torch.ones(channels), requires_grad=False)
        self._statistics: list[torch.Tensor] = []
        self._passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias)
        if self._passes == 0:
            self._statistics = [torch.zeros_like(self.mean), torch.zeros_like(self.mean)]
        self._passes += 1
        mean, variance = self._statistics
        return F.batch_norm(x, mean, variance, self.weight, self.bias, training=True, momentum=1.0 / self._passes)

    def batch_statistics(self) -> list[torch.Tensor]:
        """Mean and variance `[C]` of the passes since the last `commit`; empty without one."""
        return self._statistics if self._passes else []

    def commit(self, rate: float) -> None:
        """Move the running numbers by the share `rate` towards the `batch_statistics`, and discard those."""
        if self._passes:
            mean, variance = self._statistics
            with torch.no_grad():
                self.mean.lerp_(mean, rate)
                self.variance.lerp_(variance, rate)
        self.discard()

    def discard(self) -> None:
        """Leave out the passes since the last `commit`."""
        self._passes = 0


def make_norm(kind: NormKind, channels: int) -> nn.Module:
    """group: each image by itself, over all its channels. batch: each channel, over the batch."""
    return BatchNorm(channels) if kind == "batch" else nn.GroupNorm(1, channels)


def batch_norms(module: nn.Module) -> Iterator[BatchNorm]:
    """All that are in `module`, always in the same order."""
    return (part for part in module.modules() if isinstance(part, BatchNorm))
