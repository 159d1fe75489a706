"""The result of an evaluation: what was scored, under which protocol, and what to tell a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from muzero_ray.evaluation.protocol import EvaluationProtocol
from muzero_ray.types import FloatArray, IntArray, MetricKind

METRICS: Final[Mapping[str, MetricKind]] = {
    "eval/return_mean": "last",
    "eval/return_std": "last",
    "eval/length_mean": "last",
    "eval/episodes": "last",
    "eval/simulations": "last",
}
"""Metrics of the newest evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """Result of some episodes: raw undiscounted returns of the evaluated player and lengths in moves."""

    returns: FloatArray
    lengths: IntArray
    protocol: EvaluationProtocol
    seed: int
    video: bytes | None = None
    """mp4 of the first episode, if it was asked for and the environment renders."""
    faults: tuple[str, ...] = ()
    """Faults of environments that broke. What they played does not count: those episodes were played again."""
    cut: int = 0
    """Episodes that reached the protocol's limit of moves, and count with their return so far."""
    learner_step: int | None = None
    """The learner step of the weights that played; None if nobody said."""

    @property
    def mean(self) -> float:
        return float(self.returns.mean())

    def summary(self) -> str:
        """The line `evaluate` ends with."""
        return (
            f"return_mean={self.mean:.3f} return_std={float(self.returns.std()):.3f} "
            f"episodes={len(self.returns)} env_steps={int(self.lengths.sum())}"
            + (f" environment_faults={len(self.faults)}" if self.faults else "")
            + (f" episodes_cut={self.cut}" if self.cut else "")
        )

    def cut_note(self) -> str | None:
        """What to know, and to do, about episodes that were cut; None if none was."""
        if not self.cut:
            return None
        return (
            f"{self.cut} of {len(self.returns)} episodes of an evaluation were cut after "
            f"{self.protocol.move_limit:,} moves and count with their return so far, because "
            f"{self.protocol.environment['id']} names no limit of its own. Set env.max_moves to choose a limit"
        )

    def metrics(self) -> dict[str, float]:
        """The `eval/` group of a metrics row."""
        return {
            "eval/return_mean": self.mean,
            "eval/return_std": float(self.returns.std()),
            "eval/length_mean": float(self.lengths.mean()),
            "eval/episodes": len(self.returns),
            "eval/simulations": self.protocol.simulations,
        }
