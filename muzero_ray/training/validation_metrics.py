"""How good the learned model is on games that it was not trained on: why a run does not learn, if it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
import torch.nn.functional as F

from muzero_ray.networks.supports import Support
from muzero_ray.training.losses import Targets, UnrolledOutput
from muzero_ray.types import MetricKind

METRICS: Final[Mapping[str, MetricKind]] = {
    "model/value_error_first": "mean",
    "model/value_error_last": "mean",
    "model/value_explained_first": "mean",
    "model/value_explained_last": "mean",
    "model/value_bias": "mean",
    "model/reward_error_first": "mean",
    "model/reward_error_last": "mean",
    "model/reward_explained_first": "mean",
    "model/reward_explained_last": "mean",
    "model/policy_kl": "mean",
    "model/policy_entropy": "mean",
}
"""See `validation_metrics`."""


def validation_metrics(
    out: UnrolledOutput, targets: Targets, *, value_support: Support, reward_support: Support
) -> dict[str, float]:
    """The `model/` group of a metrics row. Everything is predicted from the position's observation alone.

    `first` is one step away for rewards and the position itself for values; `last` is K steps away for both.
    `error`: mean |predicted - target|, env units. `explained`: 1 - Var(target - predicted) / Var(target); 0 is what
    one constant would reach, and it is absent where all targets are alike. Targets of values are n-step returns.
    `value_bias`: mean of predicted - target, at the position. `policy_kl`: KL(search policy || network policy) there;
    `policy_entropy`: of the network's. Positions past a truncation, of which nothing is known, do not count.
    """
    values = value_support.decode(out.value_logits)  # [B, K + 1]
    rewards = reward_support.decode(out.reward_logits)  # [B, K]
    known = targets.value_mask > 0
    metrics: dict[str, float] = {}
    for name, step in (("first", 0), ("last", -1)):
        pairs = {
            "value": (values[:, step], targets.value[:, step], known[:, step]),
            "reward": (rewards[:, step], targets.reward[:, 1:][:, step], known[:, 1:][:, step]),
        }
        for kind, (predicted, target, mask) in pairs.items():
            if mask.any():
                metrics |= _errors(f"model/{kind}", name, predicted[mask], target[mask])
    if known[:, 0].any():
        metrics["model/value_bias"] = float((values[:, 0] - targets.value[:, 0])[known[:, 0]].mean())
    live = targets.policy_mask[:, 0] > 0
    if live.any():
        log_prior = F.log_softmax(out.policy_logits[live, 0].float(), dim=-1)
        policy = targets.policy[live, 0]
        metrics["model/policy_kl"] = float((torch.xlogy(policy, policy) - policy * log_prior).sum(-1).mean())
        metrics["model/policy_entropy"] = float(-(log_prior.exp() * log_prior).sum(-1).mean())
    return metrics


def _errors(group: str, step: str, predicted: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    error = target - predicted
    found = {f"{group}_error_{step}": float(error.abs().mean())}
    spread = float(target.var(correction=0))
    if spread > 0.0:
        found[f"{group}_explained_{step}"] = 1.0 - float(error.var(correction=0)) / spread
    return found
