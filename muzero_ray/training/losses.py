"""The MuZero loss over K unrolled steps, and the consistency loss of EfficientZero."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.networks.supports import Support


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


class MuZeroLoss(NamedTuple):
    """Each `[B]`, no mean: the caller applies importance weights. total = policy + weighted value and reward."""

    total: torch.Tensor
    policy: torch.Tensor
    value: torch.Tensor
    reward: torch.Tensor


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


def muzero_loss(
    out: UnrolledOutput,
    targets: Targets,
    *,
    value_support: Support,
    reward_support: Support,
    value_weight: float,
    reward_weight: float,
) -> MuZeroLoss:
    """Cross-entropies of policy, value and reward (MuZero, eq. 1), `[B]` each.

    The K unrolled steps share the weight of one, so the gradient does not grow with K. There is no reward at the
    root. value_mask covers value and reward, policy_mask the policy.
    """
    policy = -(targets.policy * F.log_softmax(out.policy_logits.float(), dim=-1)).sum(-1) * targets.policy_mask
    value = value_support.cross_entropy(out.value_logits, targets.value) * targets.value_mask
    reward = reward_support.cross_entropy(out.reward_logits, targets.reward[:, 1:]) * targets.value_mask[:, 1:]
    policy = policy[:, 0] + policy[:, 1:].mean(1)
    value = value[:, 0] + value[:, 1:].mean(1)
    reward = reward.mean(1)
    return MuZeroLoss(policy + value_weight * value + reward_weight * reward, policy, value, reward)


def consistency_loss(online: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
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
