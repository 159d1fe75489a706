"""The three functions of MuZero (1911.08265, eq. 1) as one module: h = represent, g = dynamics, f = predict."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from muzero_ray.networks.supports import Support
from muzero_ray.types import Array


def scale_to_unit(x: torch.Tensor) -> torch.Tensor:
    """Scale each sample's latent `[B, ...]` to [0, 1] by its own minimum and maximum (MuZero, appendix G).

    Over the whole latent, as in the paper, not plane by plane: a plane may then be constant and still say something
    (whose turn it is, that the game is over). A constant latent maps to 0, with zero gradient.
    """
    dims = tuple(range(1, x.dim()))
    low = x.amin(dims, keepdim=True)
    span = (x.amax(dims, keepdim=True) - low).clamp_min(1e-5)
    return (x - low) / span


class Projection(nn.Module):
    """SimSiam projector and predictor (2011.10566) for the consistency loss of EfficientZero (2111.00210).

    BatchNorm over the batch at hand, without running statistics: this is used in training only, where it is what
    keeps the projections spread out. Image latents are first averaged to at most 6x6, so that the first layer stays
    small for the 24x24 latents too.
    """

    def __init__(self, hidden_shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        size = hidden_shape[0]
        self.pool: nn.Module = nn.Identity()
        if len(hidden_shape) == 3:
            height, breadth = min(hidden_shape[1], 6), min(hidden_shape[2], 6)
            self.pool = nn.AdaptiveAvgPool2d((height, breadth))
            size *= height * breadth
        self.projector = nn.Sequential(
            nn.Linear(size, width, bias=False),
            nn.BatchNorm1d(width, track_running_stats=False),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width, track_running_stats=False),
        )
        narrow = max(width // 4, 1)  # the bottleneck of SimSiam's predictor
        self.predictor = nn.Sequential(
            nn.Linear(width, narrow, bias=False),
            nn.BatchNorm1d(narrow, track_running_stats=False),
            nn.ReLU(),
            nn.Linear(narrow, width),
        )

    def forward(self, hidden: torch.Tensor, with_predictor: bool) -> torch.Tensor:
        out: torch.Tensor = self.projector(self.pool(hidden).flatten(1))
        return self.predictor(out) if with_predictor else out


class MuZeroNetwork(nn.Module):
    """h, g and f assembled from the parts of one kind (`mlp` or `resnet`); built by `build.make_network`.

    mean_shape: of the stacked images that h reads, which are centred by their running mean `input_mean` (images in
    [0, 1], set by `track_mean`, not by gradients); None: not centred.

    unit_latents: latents are scaled to [0, 1] here; otherwise the parts keep them in bounds. The reward is read from
    g's output before that scaling, since the scaling may hide what only the transition, not the new state, knows.
    """

    def __init__(
        self,
        *,
        representation: nn.Module,
        dynamics: nn.Module,
        policy: nn.Module,
        value: nn.Module,
        reward: nn.Module,
        projection: nn.Module | None,
        mean_shape: tuple[int, ...] | None,
        unit_latents: bool,
        hidden_shape: tuple[int, ...],
        num_actions: int,
        value_support: Support,
        reward_support: Support,
    ) -> None:
        super().__init__()
        self.representation_part = representation
        self.dynamics_part = dynamics
        self.policy_head = policy
        self.value_head = value
        self.reward_head = reward
        self.projection = projection
        # A parameter, so that it travels with the weights, their moving average and their checkpoints.
        self.input_mean = None if mean_shape is None else nn.Parameter(torch.zeros(mean_shape), requires_grad=False)
        self.unit_latents = unit_latents
        self.hidden_shape = hidden_shape
        self.num_actions = num_actions
        self.value_support = value_support
        self.reward_support = reward_support

    def represent(self, observations: torch.Tensor) -> torch.Tensor:
        """h: stacked observations `[B, ...]` (uint8 images or float32) to latents `[B, *hidden_shape]`."""
        return self._latents(self.representation_part(self._numbers(observations)))

    def mean_of(self, observations: Array) -> torch.Tensor | None:
        """The mean of `observations` `[B, ...]`, images in [0, 1], beside `input_mean`; None if not centred."""
        if self.input_mean is None:
            return None
        largest = 255 if observations.dtype == np.uint8 else 1
        return torch.from_numpy(observations.mean(0, dtype=np.float32)).to(self.input_mean) / largest

    def track_mean(self, mean: torch.Tensor | None, rate: float) -> None:
        """Move `input_mean` towards the `mean_of` a batch by the share `rate`; nothing if not centred.

        Images of a game are nearly all the same, and the normalisation layers would scale what differs (a ball) by what
        does not (the walls): measured on 200,000 transitions of Breakout, 750 updates bring the correlation of
        predicted and observed values to 0.73 with the mean taken away, and to 0.1 without.
        """
        if self.input_mean is not None and mean is not None:
            with torch.no_grad():
                self.input_mean.lerp_(mean, rate)

    def _numbers(self, observations: torch.Tensor) -> torch.Tensor:
        """What h reads: uint8 images as fractions of 255, less the mean if images are centred."""
        mean = self.input_mean
        if observations.dtype != torch.uint8:
            numbers = observations.to(self.dtype)
            return numbers if mean is None else numbers - mean
        # Reordered while it is small, never wider than the convolution that reads it, and then changed in place:
        # fresh memory costs more than the arithmetic.
        images = observations.contiguous(memory_format=torch.channels_last)
        images = images.to(self._compute_dtype(images.device.type)).mul_(1 / 255)
        if mean is None:
            return images
        # Laid out like the images: with the default layout this subtraction takes ten times as long.
        return images.sub_(mean.to(images.dtype)[None].contiguous(memory_format=torch.channels_last))

    def dynamics(self, hidden: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """g: latents `[B, *hidden_shape]`, integer actions `[B]` to (next latents, reward logits `[B, bins]`)."""
        raw = self.dynamics_part(hidden, actions)
        return self._latents(raw), self.reward_head(raw)

    def _latents(self, raw: torch.Tensor) -> torch.Tensor:
        return scale_to_unit(raw) if self.unit_latents else raw

    def predict(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """f: latents `[B, *hidden_shape]` to (policy logits `[B, A]`, value logits `[B, bins]`)."""
        return self.policy_head(hidden), self.value_head(hidden)

    def project(self, hidden: torch.Tensor, with_predictor: bool) -> torch.Tensor:
        """Projections `[B, width]` for the consistency loss; ValueError if the network was built without."""
        if self.projection is None:
            raise ValueError("this network was built without a projection (make_network(..., consistency=False))")
        out: torch.Tensor = self.projection(hidden, with_predictor)
        return out

    def _compute_dtype(self, device: str) -> torch.dtype:
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.dtype

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters: float32, or bfloat16 in a converted inference copy."""
        return next(self.parameters()).dtype
