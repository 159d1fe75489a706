"""What a score is measured under: stamped on every score, so that unlike ones are not compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from muzero_ray.config.schema import Config
from muzero_ray.types import EnvSpec

MOVE_LIMIT = 27_000
"""Moves after which an episode is cut if nothing else ends it: the usual 30 minutes of an Atari game."""

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
    move_limit: int | None = None
    """Episodes are cut after this many moves. None: `env.max_moves` or the environment's own limit ends them."""

    @property
    def digest(self) -> str:
        """Short identity, the same for equal protocols."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able. Without a limit of moves it has no such entry, as scores had none before there was one."""
        return {name: value for name, value in asdict(self).items() if name != "move_limit" or value is not None}

    def describe(self) -> str:
        """One line for people."""
        against = f", against {self.opponent} on both sides" if self.opponent else ""
        cut = f", episodes cut after {self.move_limit:,} moves" if self.move_limit else ""
        return (
            f"{self.environment['id']}, raw undiscounted return, {self.search} search with {self.simulations} "
            f"simulations, no noise{against}{cut}"
        )


def evaluation_protocol(config: Config, spec: EnvSpec) -> EvaluationProtocol:
    """The protocol of `config`'s evaluations.

    spec: of the environment: how many play, and whether games end by a limit of their own.
    """
    environment = config.env.model_dump(mode="json", exclude=set(NOT_OF_THE_GAME))
    del environment["atari"]["terminal_on_life_loss"]
    if config.env.kind != "atari":
        del environment["atari"]
    return EvaluationProtocol(
        environment=environment,
        search=config.search.kind,
        simulations=config.evaluation.simulations or config.search.simulations,
        noise=False,
        opponent=config.evaluation.opponent if spec.num_players == 2 else None,
        move_limit=MOVE_LIMIT if config.env.max_moves is None and spec.max_moves is None else None,
    )
