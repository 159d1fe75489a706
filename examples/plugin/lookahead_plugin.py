"""A network and a search of a user's own: `--run.plugins lookahead_plugin --network.kind gru --search.kind lookahead`.

The settings stand at the top, where the command line reads them. What needs torch is in functions, so that `--help`
does not load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from muzero_ray.config.registration import register_network, register_search
from muzero_ray.config.schema import NetworkConfig, SearchConfig
from muzero_ray.types import BoolArray, EdgeAnswers, FloatArray, NetworkOutput, SearchResult

if TYPE_CHECKING:
    from muzero_ray.networks.model import MuZeroNetwork
    from muzero_ray.search.policies import SearchFunction
    from muzero_ray.search.search import Model


class GruConfig(NetworkConfig):
    """Vectors; the dynamics is a gated recurrent unit."""

    kind: Literal["gru"] = "gru"
    width: PositiveInt = 32
    """Latent size (gru)."""


def build_gru(
    settings: GruConfig, observation_shape: tuple[int, ...], num_actions: int, consistency: bool
) -> MuZeroNetwork:
    """h is one layer, g a GRU cell whose input is the action, heads are those of `mlp`."""
    import math

    import torch
    from torch import nn

    from muzero_ray.networks.mlp import VectorRepresentation, mlp
    from muzero_ray.networks.model import MuZeroNetwork, Projection
    from muzero_ray.networks.supports import Support

    class GruDynamics(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.action = nn.Embedding(num_actions, settings.width)
            self.cell = nn.GRUCell(settings.width, settings.width)

        def forward(self, hidden: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            following: torch.Tensor = self.cell(self.action(actions), hidden)
            return following

    def head(outputs: int) -> nn.Module:
        return mlp(settings.width, settings.head_layers, outputs, zero_last=True)

    return MuZeroNetwork(
        representation=VectorRepresentation(math.prod(observation_shape), (), settings.width),
        dynamics=GruDynamics(),
        policy=head(num_actions),
        value=head(settings.value.bins),
        reward=head(settings.reward.bins),
        projection=Projection((settings.width,), settings.projection) if consistency else None,
        mean_shape=None,
        unit_latents=True,
        hidden_shape=(settings.width,),
        num_actions=num_actions,
        value_support=Support.of(settings.value),
        reward_support=Support.of(settings.reward),
    )


class LookaheadConfig(SearchConfig):
    """Every action is tried once; no tree."""

    kind: Literal["lookahead"] = "lookahead"
    sharpness: PositiveFloat = 5.0
    """How far Q outweighs the prior in the improved policy (lookahead)."""


def build_lookahead(settings: LookaheadConfig, discount: float) -> SearchFunction:
    """The policy is softmax(logits + sharpness * Q) over the legal actions; Q is that of one step in the model."""

    def search(
        root: NetworkOutput,
        model: Model,
        legal: BoolArray,
        rng: np.random.Generator,
        *,
        explore: bool,
        temperature: FloatArray,  # noqa: ARG001 (its policy is what it samples from)
    ) -> SearchResult:
        batch, num_actions = root.policy_logits.shape
        q, roots = np.empty((batch, num_actions), np.float32), np.zeros(batch, np.int32)
        out = EdgeAnswers(
            *(np.empty(batch, np.float32), np.full(batch, discount), np.empty(batch, np.float32)),
            np.empty((batch, num_actions), np.float32),
        )
        pool = model.pool(root.hidden, num_actions + 1)  # node 0 is the root, node `action + 1` what follows it
        for action in range(num_actions):
            if pool is not None:
                pool.hidden[...] = pool.nodes[0]
            model.expand(action + 1, roots, np.full(batch, action, np.int32), out)
            q[:, action] = out.reward + out.discount * out.value
        scores = np.where(legal, root.policy_logits + settings.sharpness * q, -np.inf)
        policy = np.exp(scores - scores.max(1, keepdims=True))
        policy /= policy.sum(1, keepdims=True)
        drawn = (policy.cumsum(1) > rng.random((batch, 1)) * policy.sum(1, keepdims=True)).argmax(1)
        return SearchResult(
            action=(drawn if explore else policy.argmax(1)).astype(np.int32),
            policy_target=policy.astype(np.float32),
            root_value=(policy * q).sum(1).astype(np.float32),
            visit_counts=legal.astype(np.int32),
            depth=np.ones(batch, np.float32),
        )

    return search


register_network(GruConfig, build_gru)
register_search(LookaheadConfig, build_lookahead)
