"""What learner steps leave: results of one, of a call of several, and the learner's state in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from muzero_ray.types import FloatArray, MetricKind

METRICS: Final[Mapping[str, MetricKind]] = {
    "learner/steps_per_s": "rate",
    "learner/grad_norm": "mean",
    "learner/lr": "last",
    "learner/skipped": "sum",
}
"""Metrics of learner steps; the terms of the loss are in `losses`."""


@dataclass(frozen=True)
class TrainResult:
    """One learner step.

    losses: `loss/total` and `loss/NAME` of each term (batch means under importance weights), `learner/grad_norm`
    (before clipping), `learner/lr`. Empty when skipped. In a group, of the whole batch.
    priorities: `[B]`, |predicted root value - n-step target|, env units; 0 where that is not finite, so that a broken
    item is not drawn again.
    skipped: the loss or gradient was not finite and nothing changed.
    clamped: what `clamped_targets` says of the batch; in a group, of this rank's part.
    """

    losses: dict[str, float]
    priorities: FloatArray
    skipped: bool
    clamped: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainStats:
    """What one call to the learner did; losses are means over its steps, or the largest, as METRICS says."""

    steps: int
    seconds: float
    losses: dict[str, float]
    skipped: int
    """Learner steps left out because they were not finite."""
    weights_step: int
    """Learner step after the call."""
    validation: dict[str, float]
    """The `model/` metrics, if a row of metrics is due after the call and replay holds games out."""

    def metrics(self) -> dict[str, float]:
        """What a row of metrics gets of the call."""
        counts = {"learner/steps_per_s": self.steps, "learner/skipped": self.skipped}
        return {**self.losses, **self.validation, **counts}


LearnerState = tuple[dict[str, FloatArray], dict[str, Any]]
"""What `Learner.state` returns: named arrays and JSON."""
