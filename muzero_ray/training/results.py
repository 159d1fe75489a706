"""What learner steps leave: results of one, of a call of several, and the learner's state in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from muzero_ray.types import FloatArray


@dataclass(frozen=True)
class TrainResult:
    """One learner step.

    losses: `loss/{total,policy,value,reward,consistency}` (batch means under importance weights; consistency only when
    trained), `learner/grad_norm` (before clipping), `learner/lr`. Empty when skipped. In a group, of the whole batch.
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


LearnerState = tuple[dict[str, FloatArray], dict[str, Any]]
"""What `Learner.state` returns: named arrays and JSON."""
