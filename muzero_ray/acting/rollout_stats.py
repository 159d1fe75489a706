"""What self-play reports: the statistics of one call, and how they are added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from muzero_ray.types import WeightsVersion


class Episode(NamedTuple):
    """One finished game: undiscounted raw return (of player 0) and length in moves."""

    score: float
    length: int


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
    """Of environments that broke and were replaced; the games that they were in are lost."""
    memory_exceeded: str | None = None
    """Why this actor's process should be replaced, if it should."""
    playing_for: float = 0.0
    """Seconds since the first move of this process: what came before it was start-up."""
