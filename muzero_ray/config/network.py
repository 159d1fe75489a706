"""Settings of the network: those of every kind, and a class for each kind with those of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator

from muzero_ray.config.base import FrozenConfig, Width
from muzero_ray.config.kinds import KindConfig, Kinds


class SupportConfig(FrozenConfig):
    """Categorical support of a scalar head: `bins` equidistant points over [-max, max], in h-space if `transform`."""

    max: PositiveFloat = 300.0
    """Largest representable scalar, after the h-transform where it is used."""
    bins: Annotated[int, Field(ge=3, le=4001)] = 601
    """Number of bins; odd, so that zero is one of them."""
    transform: bool = True
    """h(x) = sign(x)(sqrt(|x|+1)-1)+0.001x before the two-hot encoding."""

    @model_validator(mode="after")
    def _odd(self) -> SupportConfig:
        if self.bins % 2 == 0:
            raise ValueError(f"bins={self.bins} is even: zero would fall between two bins. Use an odd number")
        return self


class NetworkConfig(KindConfig):
    """Representation h, dynamics g and prediction f."""

    kinds: ClassVar[Kinds[NetworkConfig]] = Kinds("network", default="mlp")

    kind: str
    """`mlp` for vector observations, `resnet` for images and boards."""
    head_layers: tuple[Width, ...] = (64,)
    """Hidden layers of the policy, value and reward heads; empty for linear heads."""
    value: SupportConfig = SupportConfig()
    """Support of the value head."""
    reward: SupportConfig = SupportConfig()
    """Support of the reward head."""
    projection: Width = 256
    """Width of the projection used by the consistency loss."""


class MlpConfig(NetworkConfig):
    """Vectors."""

    kind: Literal["mlp"] = "mlp"
    """`mlp` for vector observations, `resnet` for images and boards."""
    hidden: Width = 64
    """Latent size (mlp)."""
    layers: tuple[Width, ...] = (64, 64)
    """Hidden layer widths of h and g (mlp)."""


class ResnetConfig(NetworkConfig):
    """Images and boards."""

    kind: Literal["resnet"] = "resnet"
    """`mlp` for vector observations, `resnet` for images and boards."""
    channels: Width = 64
    """Feature planes of the latent (resnet)."""
    blocks: Annotated[int, Field(gt=0, le=1024)] = 1
    """Residual blocks in h and in g (resnet)."""
    downsample: Literal[1, 4, 16] = 16
    """How much smaller the latent image is than the observation (resnet): 96 -> 6 at 16, 24 at 4; 1 for boards."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation (resnet). `group`: of each image by itself, and latents are scaled to [0, 1]. `batch`: of each
    channel over the batch, and latents are not scaled; for boards."""
    head_channels: Width = 16
    """Planes of the 1x1 convolution in front of each head (resnet)."""


NetworkConfig.kinds.add(MlpConfig, "muzero_ray.networks.mlp:build_mlp")
NetworkConfig.kinds.add(ResnetConfig, "muzero_ray.networks.resnet:build_resnet")
