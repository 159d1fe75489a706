"""What self-play reports: the statistics of one call, and how they are added up."""

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
"""Metrics of self-play: its episodes, its searches, and the actors that play."""


class Episode(NamedTuple):
    """One finished game: undiscounted raw return (of player 0) and length in moves."""

    score: float
    length: int

    def metrics(self) -> dict[str, float]:
        """What a row of metrics gets of it."""
        return {"train/return_mean": self.score, "train/length_mean": self.length}


class PlayInterrupted(Exception):
    """`SelfPlay.play` was told to leave before it had played what it was asked for."""


@dataclass(frozen=True)
class RolloutStats:
    """What one `play` call did. Means are over the searches of that call."""

    transitions: int
    inserted: int
    """Transitions owned by the segments handed out; the rest is in games still in flight."""
    episodes: tuple[Episode, ...]
    seconds: float
    search_seconds: float
    simulations: int
    depth: float
    root_entropy: float
    kl_prior: float
    version: WeightsVersion
    faults: tuple[str, ...] = ()
    """Faults of environments that broke and were replaced; the games that they were in are lost."""
    memory_exceeded: str | None = None
    """Why this actor's process should be replaced, if it should."""
    games: tuple[bytes, ...] = ()
    """The segments handed out, encoded, if the driver asked for them: callbacks are told of them."""
    playing_for: float = 0.0
    """Seconds since the first move of this process: what came before it was start-up."""

    def metrics(self, learner_steps: int) -> dict[str, float]:
        """What a row of metrics gets of the call; the values of `episodes` are apart, one for each.

        learner_steps: as reported so far. The learner publishes before it reports: its newest weights may be ahead.
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
