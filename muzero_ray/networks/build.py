"""`make_network`: from settings to a module, by the builder of their kind."""

from __future__ import annotations

import torch
from torch import nn

from muzero_ray.config.schema import Config, NetworkConfig
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import ConfigError
from muzero_ray.networks.model import MuZeroNetwork


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
        build = NetworkConfig.kinds.builder(cfg.kind)
        net: MuZeroNetwork = build(cfg, observation_shape, num_actions, consistency)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return net


def build_network(config: Config, task: TaskSpec) -> MuZeroNetwork:
    """The network as the learner starts with it, on the CPU."""
    return make_network(
        config.network,
        observation_shape=task.observation_shape,
        num_actions=task.spec.num_actions,
        consistency=config.learner.consistency_weight > 0,
        seed=config.run.seed,
    )
