"""Counts the targets of a batch that are beyond the range of the value and reward heads, and so are clamped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from muzero_ray.networks.supports import Support
from muzero_ray.types import Batch, FloatArray, MetricKind

ROUNDING = 1e-4
"""A target counts as clamped if it exceeds the limit by more than this share. Less is the rounding of a value that was
decoded at the limit."""

METRICS: Final[Mapping[str, MetricKind]] = {
    "learner/reward_clamped": "mean",
    "learner/reward_largest": "max",
    "learner/value_clamped": "mean",
    "learner/value_largest": "max",
}
"""See `clamped_targets`."""


def clamped_targets(batch: Batch, *, value_support: Support, reward_support: Support) -> dict[str, float]:
    """`learner/{value,reward}_clamped`: share of the known targets that are clamped. `learner/{value,reward}_largest`:
    the largest absolute target, env units. Targets past a truncation are not known.

    A few thousand numbers, in NumPy: nothing waits for the device.
    """
    known = batch.value_mask
    return {
        **_clamped("value", batch.target_value, known, value_support.limit),
        **_clamped("reward", batch.target_reward[:, 1:], known[:, 1:], reward_support.limit),
    }


def _clamped(name: str, targets: FloatArray, known: FloatArray, limit: float) -> dict[str, float]:
    """targets, known: `[B, ...]`; unknown targets are 0. limit: the largest target that is not clamped, env units."""
    share, largest = 0.0, max(float(targets.max()), -float(targets.min()))
    if largest > limit * (1 + ROUNDING):
        share = int(np.count_nonzero(np.abs(targets) > limit * (1 + ROUNDING))) / max(int(np.count_nonzero(known)), 1)
    return {f"learner/{name}_clamped": share, f"learner/{name}_largest": largest}
