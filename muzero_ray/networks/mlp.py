"""The `mlp` network and its parts: vector (or small flattened board) observations, vector latents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from muzero_ray.config.network import MlpConfig
from muzero_ray.errors import ConfigError
from muzero_ray.networks.model import MuZeroNetwork, Projection
from muzero_ray.networks.supports import Support


def mlp(inputs: int, layers: Sequence[int], outputs: int, *, zero_last: bool = False) -> nn.Sequential:
    """Linear, LayerNorm, ReLU for each of `layers`, then a linear output.

    LayerNorm keeps the small networks trainable at high learning rates and, unlike BatchNorm, makes every row
    independent of its batch and leaves no statistics to synchronise. `zero_last` starts the output at 0: uniform
    policies and zero values and rewards, so that early searches are led by nothing but what has been observed.
    """
    parts: list[nn.Module] = []
    for width in layers:
        parts += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU()]
        inputs = width
    last = nn.Linear(inputs, outputs)
    if zero_last:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*parts, last)


class VectorRepresentation(nn.Module):
    """Observations `[B, ...]`, flattened, to raw latents `[B, hidden]`.

    symlog (DreamerV3, 2301.04104) leaves small inputs as they are and tames unbounded ones, such as velocities,
    without running statistics that actors and learner would have to share.
    """

    def __init__(self, inputs: int, layers: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.body = mlp(inputs, layers, hidden)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        x = observations.flatten(1)
        out: torch.Tensor = self.body(x.sign() * x.abs().log1p())
        return out


class VectorDynamics(nn.Module):
    """(latents `[B, hidden]`, actions `[B]`) to raw next latents `[B, hidden]`, as a change of the latent.

    Residual: predicting "almost nothing changed" is easy, and gradients reach the root through K steps. The action
    adds a learned row to the first layer, which equals feeding it as one-hot inputs, without building them.
    """

    def __init__(self, hidden: int, layers: Sequence[int], num_actions: int) -> None:
        super().__init__()
        first = layers[0]
        self.state = nn.Linear(hidden, first)
        self.action = nn.Embedding(num_actions, first)
        # About the spread of the state's contribution: the action is heard from the first update on.
        nn.init.normal_(self.action.weight, std=0.5)
        self.norm = nn.LayerNorm(first)
        self.body = mlp(first, layers[1:], hidden)

    def forward(self, hidden: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.state(hidden) + self.action(actions)))
        out: torch.Tensor = hidden + self.body(x)
        return out


def build_mlp(cfg: MlpConfig, observation_shape: tuple[int, ...], num_actions: int, consistency: bool) -> MuZeroNetwork:
    """See `build.make_network`."""
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
        value_support=Support.of(cfg.value),
        reward_support=Support.of(cfg.reward),
    )


def is_mlp(network: MuZeroNetwork) -> bool:
    """Whether a network computes exactly what one of kind `mlp` does, whoever put it together."""
    heads = (network.policy_head, network.value_head, network.reward_head)
    return (
        type(network) is MuZeroNetwork
        and type(network.representation_part) is VectorRepresentation
        and type(network.dynamics_part) is VectorDynamics
        and network.unit_latents
        and network.input_mean is None
        and all(_is_chain(head) for head in heads)
    )


def _is_chain(head: nn.Module) -> bool:
    """Whether `head` is one that `mlp` makes."""
    kinds = [type(part) for part in head.children()] if type(head) is nn.Sequential else []
    return len(kinds) % 3 == 1 and kinds == [nn.Linear, nn.LayerNorm, nn.ReLU] * (len(kinds) // 3) + [nn.Linear]
