"""What `RunOutput` needs from the state of a run."""

from __future__ import annotations

from typing import Any, Protocol

from muzero_ray.evaluation.result import Evaluation


class RunCounts(Protocol):
    """The part of `control.run_state.RunState` that `runs` uses: a protocol, since `runs` may not import `control`."""

    learner_steps: int
    env_steps: int
    ended_by: str | None
    """Who ended the run before a limit did, in words."""

    @property
    def seconds(self) -> float:
        """Time spent so far, as `run.minutes` counts it."""

    def display_values(self) -> dict[str, float | None]:
        """What the progress display shows."""

    def row(self) -> dict[str, float]:
        """The next row of metrics.jsonl."""

    def evaluated(self, result: Evaluation) -> bool:
        """Record an evaluation; returns whether its score is the best so far."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, JSON-able."""
