"""What one call to self-play reports: statistics of the moves, games and searches in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from muzero_ray.types import MetricKind, WeightsVersion

METRICS: Final[Mapping[str, MetricKind]] = {
    "train/return_mean": "mean",
    "train/length_mean": "mean",
    "search/sims_per_s": "rate",
    "search/depth": "mean",
    "search/root_entropy": "mean",
    "search/kl_prior": "mean",
    "actors/environment_faults": "sum",
    "actors/env_steps_per_s": "rate",
    "actors/weights_lag": "mean",
}
"""Names of these metrics, and how a row of metrics.jsonl sums up each since the row before."""


class Episode(NamedTuple):
    """One finished game. score: undiscounted return of player 0, in env units. length: in moves."""

    score: float
    length: int

    def metrics(self) -> dict[str, float]:
        """By their names in METRICS."""
        return {"train/return_mean": self.score, "train/length_mean": self.length}


class PlayInterrupted(Exception):
    """`SelfPlay.play` was told to stop before it had played all the transitions asked for."""


@dataclass(frozen=True)
class RolloutStats:
    """What one call to `SelfPlay.play` did.

    depth (of a simulation, in moves), root_entropy (of the policy targets) and kl_prior (KL divergence of the targets
    from the network's policy) are means over its searches. simulations: in all of them. seconds, search_seconds: of
    wall clock. version: of the weights that played last.
    """

    transitions: int
    inserted: int
    """Transitions owned by the segments handed out; what else was played is in games that still go on."""
    episodes: tuple[Episode, ...]
    seconds: float
    search_seconds: float
    simulations: int
    depth: float
    root_entropy: float
    kl_prior: float
    version: WeightsVersion
    faults: tuple[str, ...] = ()
    """Messages of environments that broke and were replaced. Their unfinished games are lost."""
    memory_exceeded: str | None = None
    """Set if this actor's process holds too much memory and must be replaced: a message that says how much."""
    games: tuple[bytes, ...] = ()
    """The segments handed out, as `encode_game` packs them; empty unless a callback wants games."""
    playing_for: float = 0.0
    """Seconds since this process made its first move, where start-up ended."""

    def metrics(self, learner_steps: int) -> dict[str, float]:
        """By their names in METRICS, without those of `episodes` (see `Episode.metrics`).

        learner_steps: as the learner reported last. It publishes weights before it reports, so theirs may be ahead.
        """
        return {
            "search/sims_per_s": self.simulations,
            "search/depth": self.depth,
            "search/root_entropy": self.root_entropy,
            "search/kl_prior": self.kl_prior,
            "actors/env_steps_per_s": self.transitions,
            "actors/environment_faults": len(self.faults),
            "actors/weights_lag": max(learner_steps - self.version.step, 0),
        }
