"""Schedules as closed forms of the step: nothing to save, nothing to drift on resume."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    step: int, *, base: float, schedule: Literal["constant", "cosine"], final: float, warmup: int, total: int
) -> float:
    """Learning rate of learner step `step` (0-based) of `total`.

    `cosine` falls from `base` at step 0 to `final * base` at the last one and stays there; `constant` keeps `base`.
    Either is multiplied by a linear warm-up that reaches 1 at learner step `warmup` (counted from 1).
    """
    factor = 1.0
    if schedule == "cosine":
        progress = min(step / max(total - 1, 1), 1.0)
        factor = final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
    if step < warmup:
        factor *= (step + 1) / warmup
    return base * factor
