"""What the output of a run asks of the run that goes on."""

from __future__ import annotations

from typing import Any, Protocol

from muzero_ray.evaluation.result import Evaluation


class RunCounts(Protocol):
    """What a run knows of itself while it goes on, and what of that is written: `control.run_state`."""

    learner_steps: int
    env_steps: int
    ended_by: str | None

    @property
    def seconds(self) -> float: ...
    def display_values(self) -> dict[str, float | None]: ...
    def row(self) -> dict[str, float]: ...
    def evaluated(self, result: Evaluation) -> bool: ...
    def state(self) -> dict[str, Any]: ...
