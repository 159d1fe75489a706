"""The terms of the loss: those of MuZero over K unrolled steps, and the consistency loss of EfficientZero."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F

from muzero_ray.config.learning import LearnerConfig
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.types import MetricKind


class UnrolledOutput(NamedTuple):
    """What the network says along K unrolled steps.

    policy_logits `[B, K+1, A]`, value_logits `[B, K+1, bins]`, reward_logits `[B, K, bins]` (the root has none),
    hidden `[K * B, *hidden_shape]`: latents after each step, step-major.
    """

    policy_logits: torch.Tensor
    value_logits: torch.Tensor
    reward_logits: torch.Tensor
    hidden: torch.Tensor


class Targets(NamedTuple):
    """Targets on the learner's device: the fields of `types.Batch` of the same names, env units."""

    value: torch.Tensor
    reward: torch.Tensor
    policy: torch.Tensor
    policy_mask: torch.Tensor
    value_mask: torch.Tensor


def halve_gradient(x: torch.Tensor) -> torch.Tensor:
    """x itself, but the gradient that flows back through it is halved."""
    return torch.lerp(x.detach(), x, 0.5)  # the difference is 0, so x stays exact


def unroll(network: MuZeroNetwork, observations: torch.Tensor, actions: torch.Tensor) -> UnrolledOutput:
    """Represent `observations` `[B, ...]`, then follow `actions` `[B, K]` (K >= 1) through the dynamics.

    The gradient is halved at the start of each dynamics step, so that the share of a step does not grow with the
    number of steps unrolled behind it (MuZero, appendix G). f runs once over all K + 1 latents: fewer, larger kernels.
    """
    steps = actions.shape[1]
    hidden = network.represent(observations)
    states, rewards = [hidden], []
    for k in range(steps):
        hidden, reward_logits = network.dynamics(halve_gradient(hidden), actions[:, k])
        states.append(hidden)
        rewards.append(reward_logits)
    joined = torch.cat(states)
    policy, value = (x.view(steps + 1, len(observations), -1).transpose(0, 1) for x in network.predict(joined))
    return UnrolledOutput(policy, value, torch.stack(rewards, dim=1), joined[len(observations) :])


@dataclass(frozen=True)
class LossInput:
    """What loss terms are computed from: a batch on the learner's device, and what the network says of it.

    next_observations: `[B, K, ...]`, or None if the batch has none. observation_mask: `[B, K]`, 0 where nothing was
    observed; None without next_observations.
    """

    network: MuZeroNetwork
    out: UnrolledOutput
    targets: Targets
    next_observations: torch.Tensor | None
    observation_mask: torch.Tensor | None


class LossTerm(NamedTuple):
    """function: from what a term is computed to `[B]`, no mean: the learner applies importance weights."""

    weight: float
    function: Callable[[LossInput], torch.Tensor]


METRICS: Final[Mapping[str, MetricKind]] = {
    "loss/total": "mean",
    "loss/policy": "mean",
    "loss/value": "mean",
    "loss/reward": "mean",
    "loss/consistency": "mean",
}
"""The weighted sum, and each term by its name, without its weight."""


def loss_terms(settings: LearnerConfig) -> dict[str, LossTerm]:
    """The terms of the loss by name, in the order in which they are added (MuZero, eq. 1; EfficientZero, section 4.1).

    A new term is a function, a line here and a line in METRICS.
    """
    terms = {
        "policy": LossTerm(1.0, policy_loss),
        "value": LossTerm(settings.value_weight, value_loss),
        "reward": LossTerm(settings.reward_weight, reward_loss),
    }
    if settings.consistency_weight > 0:
        terms["consistency"] = LossTerm(settings.consistency_weight, consistency_loss)
    return terms


def total_loss(terms: Mapping[str, LossTerm], batch: LossInput) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(the weighted sum `[B]`, each term `[B]` by name, without its weight)."""
    losses = {name: term.function(batch) for name, term in terms.items()}
    weighted = [term.weight * losses[name] for name, term in terms.items()]
    return functools.reduce(torch.add, weighted), losses


def policy_loss(batch: LossInput) -> torch.Tensor:
    """Cross-entropy of the policy, `[B]`, masked by policy_mask.

    As in the other terms, the K unrolled steps share the weight of one, so the gradient does not grow with K.
    """
    targets, log_p = batch.targets, F.log_softmax(batch.out.policy_logits.float(), dim=-1)
    policy = -(targets.policy * log_p).sum(-1) * targets.policy_mask
    return policy[:, 0] + policy[:, 1:].mean(1)


def value_loss(batch: LossInput) -> torch.Tensor:
    """Cross-entropy of the value, `[B]`, masked by value_mask."""
    targets = batch.targets
    value = batch.network.value_support.cross_entropy(batch.out.value_logits, targets.value) * targets.value_mask
    return value[:, 0] + value[:, 1:].mean(1)


def reward_loss(batch: LossInput) -> torch.Tensor:
    """Cross-entropy of the reward, `[B]`, masked by value_mask. There is no reward at the root."""
    targets, support = batch.targets, batch.network.reward_support
    reward = support.cross_entropy(batch.out.reward_logits, targets.reward[:, 1:]) * targets.value_mask[:, 1:]
    return reward.mean(1)


def consistency_loss(batch: LossInput) -> torch.Tensor:
    """How far the projections of predicted latents are from those of observed ones: `negative_similarity`, `[B]`."""
    if batch.next_observations is None or batch.observation_mask is None:
        raise ValueError("the consistency loss is on, but the batch has no next_observations")
    projections = project_unrolled(batch.network, batch.out, batch.next_observations)
    return negative_similarity(*projections, batch.observation_mask)


def negative_similarity(online: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Negative cosine similarity of predicted and observed projections (SimSiam, 2011.10566, eq. 1), `[B]` in [-1, 1].

    online (through the predictor) and target (the gradient stops here): `[B, K, width]`. mask: `[B, K]`, 0 where
    nothing was observed. Mean over K, like the other losses.
    """
    similarity = F.cosine_similarity(online.float(), target.detach().float(), dim=-1)
    return -(similarity * mask).mean(1)


def project_unrolled(
    network: MuZeroNetwork, out: UnrolledOutput, next_observations: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(online, target) projections `[B, K, width]` of the unrolled latents and of `next_observations` `[B, K, ...]`.

    Under autocast, call after `unroll`: casts of weights are cached, and casts made first without gradient would
    leave the online branch without one.
    """
    batch, steps = next_observations.shape[:2]
    online = network.project(out.hidden, with_predictor=True).view(steps, batch, -1).transpose(0, 1)
    with torch.no_grad():
        latents = network.represent(next_observations.flatten(0, 1))
        target = network.project(latents, with_predictor=False).view(batch, steps, -1)
    return online, target
