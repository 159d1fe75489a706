"""`make_network`: from settings to a module, the only place here that knows the configuration."""

from __future__ import annotations

import math

import torch
from torch import nn

from muzero_ray.config.schema import Config, NetworkConfig, SupportConfig
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import ConfigError
from muzero_ray.networks.mlp import VectorDynamics, VectorRepresentation, mlp
from muzero_ray.networks.model import MuZeroNetwork, Projection
from muzero_ray.networks.resnet import ImageDynamics, ImageHead, ImageRepresentation
from muzero_ray.networks.supports import Support


def make_network(
    cfg: NetworkConfig, *, observation_shape: tuple[int, ...], num_actions: int, consistency: bool, seed: int
) -> MuZeroNetwork:
    """Build the network on the CPU, float32; the same arguments give the same parameters.

    observation_shape: stacked, `(C * stack, H, W)` or `(D * stack,)`. consistency: also build the projection.
    The global torch generator is left as it was. Raises ConfigError if the kind cannot read that shape.
    """
    if num_actions < 1 or len(observation_shape) not in (1, 3) or min(observation_shape) < 1:
        raise ConfigError(
            f"network: cannot be built for observations of shape {observation_shape} and {num_actions} actions: it "
            "reads vectors (D,) or images (C, H, W) and needs at least one action. Use an environment that has these"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if cfg.kind == "mlp":
            net = _make_mlp(cfg, observation_shape, num_actions, consistency)
        else:
            net = _make_resnet(cfg, observation_shape, num_actions, consistency)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return net


def _support(cfg: SupportConfig) -> Support:
    return Support(cfg.max, cfg.bins, cfg.transform)


def _make_mlp(
    cfg: NetworkConfig, observation_shape: tuple[int, ...], num_actions: int, consistency: bool
) -> MuZeroNetwork:
    if not cfg.layers:
        raise ConfigError("network.layers is empty: h and g need a hidden layer. Give at least one width, such as 64")

    def head(outputs: int) -> nn.Module:
        return mlp(cfg.hidden, cfg.head_layers, outputs, zero_last=True)

    return MuZeroNetwork(
        representation=VectorRepresentation(math.prod(observation_shape), cfg.layers, cfg.hidden),
        dynamics=VectorDynamics(cfg.hidden, cfg.layers, num_actions),
        policy=head(num_actions),
        value=head(cfg.value.bins),
        reward=head(cfg.reward.bins),
        projection=Projection((cfg.hidden,), cfg.projection) if consistency else None,
        mean_shape=None,
        unit_latents=True,
        hidden_shape=(cfg.hidden,),
        num_actions=num_actions,
        value_support=_support(cfg.value),
        reward_support=_support(cfg.reward),
    )


def _make_resnet(
    cfg: NetworkConfig, observation_shape: tuple[int, ...], num_actions: int, consistency: bool
) -> MuZeroNetwork:
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
        value_support=_support(cfg.value),
        reward_support=_support(cfg.reward),
    )


def build_network(config: Config, task: TaskSpec) -> MuZeroNetwork:
    """The network as the learner starts with it, on the CPU."""
    return make_network(
        config.network,
        observation_shape=task.observation_shape,
        num_actions=task.spec.num_actions,
        consistency=config.learner.consistency_weight > 0,
        seed=config.run.seed,
    )
