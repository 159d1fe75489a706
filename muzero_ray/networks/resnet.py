"""The `resnet` network and its parts: images and boards, latents that are small images.

Normalisation is GroupNorm with one group, or BatchNorm. Measured on one CPU core, two residual blocks of 64 channels at
6x6 in channels_last, they cost the same (0.19 ms at batch 1, 0.67 at 8, 3.7 at 64; training 13.5 and 14.0 ms at batch
64), and 0-15 % more than none at all. (Eight groups cost twice as much in bf16.) GroupNorm has no running statistics:
nothing that drifts between training and search, or that the moving average of the weights would blur. It does as well
on screens (docs/experiments/breakout-preset.md). But it scales rare features, such as three in a row, by the common
ones, such as stones, and boards are learned several times slower with it. channels_last is 1.2-1.4x faster than the
default layout, so all convolutions run in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from muzero_ray.config.network import ResnetConfig
from muzero_ray.errors import ConfigError
from muzero_ray.networks.mlp import mlp
from muzero_ray.networks.model import MuZeroNetwork, Projection
from muzero_ray.networks.norm import NormKind, make_norm
from muzero_ray.networks.supports import Support

ACTION_PLANES = 16
"""Planes that carry the action into g. 16 = one more block of the convolution kernels, whatever the number of actions
(one-hot planes would be 18 for Atari, 362 for Go)."""


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    # Padded so that the image shrinks by `stride` exactly. No bias: the normalisation that follows has one.
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=(size - stride + 1) // 2, bias=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions round a skip connection, `[B, C, H, W]` to the same."""

    def __init__(self, channels: int, norm: NormKind) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels)
        self.norm1 = make_norm(norm, channels)
        self.conv2 = _conv(channels, channels)
        self.norm2 = make_norm(norm, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


class ImageRepresentation(nn.Module):
    """Images `[B, C, H, W]` in [0, 1] to raw latents `[B, channels, H / downsample, W / downsample]`.

    Strided convolutions shrink the image, the residual blocks come after. 16x starts like the Nature DQN (8x8 with
    stride 4, then 4x4 with stride 2): the paper's 3x3 convolutions with stride 2 spend most of their time on 48x48
    images, and training costs 1.7-2.7x as much with them (27 against 10 ms for 64 images of 96x96, 32 channels, one
    CPU core). The paper also spends residual blocks on the larger images: one, at 24x24, made all this 2.3x dearer.
    """

    def __init__(self, inputs: int, channels: int, blocks: int, downsample: int, norm: NormKind) -> None:
        super().__init__()
        half = max(channels // 2, 1)
        # (channels, kernel size, stride)
        stages = {
            1: [(channels, 3, 1)],
            4: [(half, 3, 2), (channels, 3, 2)],
            16: [(half, 8, 4), (channels, 4, 2), (channels, 3, 2)],
        }[downsample]
        parts: list[nn.Module] = []
        for width, size, stride in stages:
            parts += [_conv(inputs, width, size, stride), make_norm(norm, width), nn.ReLU()]
            inputs = width
        parts += [ResidualBlock(channels, norm) for _ in range(blocks)]
        self.body = nn.Sequential(*parts)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(observations.contiguous(memory_format=torch.channels_last))
        return out


def _places(num_actions: int, height: int, width: int) -> torch.Tensor | None:
    """`[A, H, W]`, 1 on the cells that an action is about, so that one convolution can put a stone down anywhere.

    As many actions as cells, or one more (a pass): each is its cell. As many as columns: each is its column (Connect
    Four). With any other number, it is not known what they are about: None.
    """
    cells = height * width
    if num_actions in (cells, cells + 1):
        return torch.eye(num_actions, cells).view(num_actions, height, width)
    if num_actions == width:
        return torch.eye(width).view(width, 1, width).expand(width, height, width)
    return None


class ImageDynamics(nn.Module):
    """(latents `[B, C, H, W]`, actions `[B]`) to raw next latents `[B, C, H, W]`.

    Each action owns `ACTION_PLANES` learned planes, concatenated to the latent. They start constant over the image
    (a button has no place), but on a `board` the first plane shows the action's place, if it has one: `_places`.

    With BatchNorm there is no connection around the first convolution. What enters the residual blocks is normalised
    then, so latents do not grow from step to step, and need not be scaled.
    """

    def __init__(
        self, hidden_shape: tuple[int, int, int], blocks: int, num_actions: int, norm: NormKind, *, board: bool
    ) -> None:
        super().__init__()
        channels, height, width = hidden_shape
        planes = torch.randn(num_actions, 1, 1, ACTION_PLANES).repeat(1, height, width, 1)
        if board and (places := _places(num_actions, height, width)) is not None:
            planes[..., 0] = places
        # Stored [A, H, W, P]: a gathered row is channels_last already.
        self.planes = nn.Parameter(planes)
        self.conv = _conv(channels + ACTION_PLANES, channels)
        self.norm = make_norm(norm, channels)
        self.skips = norm == "group"
        self.blocks = nn.Sequential(*(ResidualBlock(channels, norm) for _ in range(blocks)))

    def forward(self, hidden: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        planes = self.planes.index_select(0, actions).permute(0, 3, 1, 2).to(hidden.dtype)
        x = self.norm(self.conv(torch.cat((hidden, planes), dim=1)))
        out: torch.Tensor = self.blocks(torch.relu(hidden + x if self.skips else x))
        return out


class ImageHead(nn.Module):
    """Latents `[B, C, H, W]` to `[B, outputs]`: a 1x1 convolution, then an mlp whose last layer starts at 0."""

    def __init__(self, hidden_shape: tuple[int, int, int], planes: int, layers: Sequence[int], outputs: int) -> None:
        super().__init__()
        channels, height, width = hidden_shape
        self.conv = nn.Conv2d(channels, planes, 1)
        self.body = mlp(planes * height * width, layers, outputs, zero_last=True)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(torch.relu(self.conv(hidden).flatten(1)))
        return out


def build_resnet(
    cfg: ResnetConfig, observation_shape: tuple[int, ...], num_actions: int, consistency: bool
) -> MuZeroNetwork:
    """See `build.make_network`."""
    if len(observation_shape) != 3:
        raise ConfigError(
            f"network.kind=resnet cannot read observations of shape {observation_shape}: it needs images or boards "
            "(C, H, W). Use network.kind=mlp"
        )
    planes, height, width = observation_shape
    if height % cfg.downsample or width % cfg.downsample:
        raise ConfigError(
            f"network.downsample={cfg.downsample} does not divide observations of {height}x{width}: the latent would "
            "not be whole. Use another downsample (1 for boards), or another image size"
        )
    hidden_shape = (cfg.channels, height // cfg.downsample, width // cfg.downsample)

    def head(outputs: int) -> nn.Module:
        return ImageHead(hidden_shape, cfg.head_channels, cfg.head_layers, outputs)

    return MuZeroNetwork(
        representation=ImageRepresentation(planes, cfg.channels, cfg.blocks, cfg.downsample, cfg.norm),
        dynamics=ImageDynamics(hidden_shape, cfg.blocks, num_actions, cfg.norm, board=cfg.downsample == 1),
        policy=head(num_actions),
        value=head(cfg.value.bins),
        reward=head(cfg.reward.bins),
        projection=Projection(hidden_shape, cfg.projection) if consistency else None,
        mean_shape=observation_shape,
        unit_latents=cfg.norm == "group",
        hidden_shape=hidden_shape,
        num_actions=num_actions,
        value_support=Support.of(cfg.value),
        reward_support=Support.of(cfg.reward),
    )


def is_resnet(network: MuZeroNetwork) -> bool:
    """Whether a network is made of the parts of kind `resnet`, whoever put it together."""
    heads = (network.policy_head, network.value_head, network.reward_head)
    return (
        type(network) is MuZeroNetwork
        and type(network.representation_part) is ImageRepresentation
        and type(network.dynamics_part) is ImageDynamics
        and all(type(head) is ImageHead for head in heads)
    )
