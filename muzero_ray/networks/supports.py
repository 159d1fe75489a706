"""Scalars as categorical distributions (MuZero, appendix F "Network Architecture").

A scalar x in env units is squashed by h (Pohlen et al., 1805.11593), then written as a two-hot distribution over
equidistant bins; a prediction is read back as the expectation over the bins, followed by the inverse of h.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F

from muzero_ray.config.network import SupportConfig
from muzero_ray.types import Array

EPSILON = 0.001
"""Slope of the linear term of h; keeps h invertible with a bounded derivative."""

Scalars = TypeVar("Scalars", torch.Tensor, Array, float)


def h_transform(x: Scalars) -> Scalars:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + eps x, elementwise, for numbers, numpy arrays and tensors.

    Written as x / (sqrt(|x| + 1) + 1) + eps x: the same function, without the cancellation near 0.
    """
    out: Scalars = x * (1.0 / ((abs(x) + 1.0) ** 0.5 + 1.0) + EPSILON)
    return out


def h_inverse(y: Scalars) -> Scalars:
    """The x with h(x) = y, elementwise; exact at 0 and free of cancellation in float32.

    With v = sqrt(|x| + 1) - 1, h reads |y| = eps v^2 + (1 + 2 eps) v: solve for v >= 0, then |x| = v (v + 2).
    """
    b = 1.0 + 2.0 * EPSILON
    slope = 2.0 / (b + (b * b + 4.0 * EPSILON * abs(y)) ** 0.5)  # v / |y|
    out: Scalars = y * slope * (abs(y) * slope + 2.0)
    return out


class Support:
    """`bins` equidistant points over [-max, max], in h-space if `transform`, else in env units."""

    @classmethod
    def of(cls, settings: SupportConfig) -> Support:
        """The support that a head is configured with."""
        return cls(settings.max, settings.bins, settings.transform)

    def __init__(self, max: float, bins: int, transform: bool) -> None:
        if bins < 3 or bins % 2 == 0 or max <= 0:
            raise ValueError(f"Support(max={max}, bins={bins}): needs max > 0 and an odd number of bins, at least 3")
        self.max = max
        self.bins = bins
        self.transform = transform
        self.half = (bins - 1) // 2
        self.delta = max / self.half
        self.limit: float = self.scalars(max)
        """The largest scalar, in env units, that is not clamped."""

    def points(self, device: torch.device | None = None) -> torch.Tensor:
        """Bin centres `[bins]` float32; exactly symmetric, the middle one exactly 0."""
        return torch.arange(-self.half, self.half + 1, dtype=torch.float32, device=device) * self.delta

    def locate(self, scalars: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two-hot position of env-unit scalars `[...]`: (lower bin int64 `[...]`, weight of the bin above it `[...]`).

        Scalars beyond the support are clamped to its ends. NaN gives a valid bin and a NaN weight, so that a broken
        target shows up in the loss instead of as an index error.
        """
        x = h_transform(scalars) if self.transform else scalars
        position = (x / self.delta).clamp(-self.half, self.half)  # in bins from the middle one
        lower = position.floor().nan_to_num().clamp(max=self.half - 1)
        return lower.long() + self.half, position - lower

    def encode(self, scalars: torch.Tensor) -> torch.Tensor:
        """Two-hot distributions `[..., bins]` of env-unit scalars `[...]`."""
        lower, weight = self.locate(scalars)
        out = torch.zeros(*scalars.shape, self.bins, dtype=scalars.dtype, device=scalars.device)
        out.scatter_(-1, lower.unsqueeze(-1), (1.0 - weight).unsqueeze(-1))
        return out.scatter_(-1, lower.unsqueeze(-1) + 1, weight.unsqueeze(-1))

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Env-unit scalars `[...]` float32 that logits `[..., bins]` stand for: h^-1 of the expected bin."""
        return self.scalars(self.expected(logits, self.points(logits.device)))

    def expected(self, logits: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """The expected bin `[...]` of logits `[..., bins]`; points: as `points` gives them."""
        return torch.softmax(logits.float(), dim=-1) @ points

    def scalars(self, expected: Scalars) -> Scalars:
        """Env-unit scalars of expected bins, for numbers, numpy arrays and tensors."""
        return h_inverse(expected) if self.transform else expected

    def cross_entropy(self, logits: torch.Tensor, scalars: torch.Tensor) -> torch.Tensor:
        """`-sum(encode(scalars) * log_softmax(logits))`, `[...]`, gathering only the two bins that matter."""
        lower, weight = self.locate(scalars)
        log_p = F.log_softmax(logits.float(), dim=-1)
        pair = log_p.gather(-1, torch.stack((lower, lower + 1), dim=-1))
        return -torch.lerp(pair[..., 0], pair[..., 1], weight)
