"""What a score is measured under: stamped on every score, so that unlike ones are not compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from muzero_ray.config import Config

NOT_OF_THE_GAME = ("opening_moves", "channels", "scaling", "instances")
"""Settings of the environment that do not change the game that is scored: for training, and for how it is read."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """What a score was measured under. Scores are comparable only if these are equal."""

    environment: dict[str, Any]
    search: str
    simulations: int
    noise: bool
    opponent: str | None

    @property
    def digest(self) -> str:
        """Short identity, the same for equal protocols."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def describe(self) -> str:
        """One line for people."""
        against = f", against {self.opponent} on both sides" if self.opponent else ""
        return (
            f"{self.environment['id']}, raw undiscounted return, {self.search} search with {self.simulations} "
            f"simulations, no noise{against}"
        )


def evaluation_protocol(config: Config, *, num_players: int) -> EvaluationProtocol:
    """The protocol of `config`'s evaluations."""
    environment = config.env.model_dump(mode="json", exclude=set(NOT_OF_THE_GAME))
    del environment["atari"]["terminal_on_life_loss"]
    if config.env.kind != "atari":
        del environment["atari"]
    return EvaluationProtocol(
        environment=environment,
        search=config.search.kind,
        simulations=config.evaluation.simulations or config.search.simulations,
        noise=False,
        opponent=config.evaluation.opponent if num_players == 2 else None,
    )
