"""The whole configuration: frozen pydantic models, one per part. Checked once, across fields; builders unpack it.

The parts that say what is learned are in `learning`, those that say where and how long a run goes on in `running`.
Other modules import them from here.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from muzero_ray.config.base import (
    OPPONENT,
    FrozenConfig,
    Games,
    KwargValue,
    OpponentName,
    Simulations,
)
from muzero_ray.config.learning import (
    AtariConfig,
    EnvConfig,
    LearnerConfig,
    NetworkConfig,
    ReanalyzeConfig,
    ReplayConfig,
    SearchConfig,
    SupportConfig,
)
from muzero_ray.config.rules import check_across
from muzero_ray.config.running import ActorsConfig, EvaluationConfig, RunConfig

__all__ = [
    "OPPONENT",
    "ActorsConfig",
    "AtariConfig",
    "Config",
    "EnvConfig",
    "EvaluationConfig",
    "FrozenConfig",
    "Games",
    "KwargValue",
    "LearnerConfig",
    "NetworkConfig",
    "OpponentName",
    "ReanalyzeConfig",
    "ReplayConfig",
    "RunConfig",
    "SearchConfig",
    "Simulations",
    "SupportConfig",
]


class Config(FrozenConfig):
    """Everything a run needs; `config.yaml` of a run holds it in full."""

    run: RunConfig = RunConfig()
    env: EnvConfig = EnvConfig()
    network: NetworkConfig = NetworkConfig()
    search: SearchConfig = SearchConfig()
    replay: ReplayConfig = ReplayConfig()
    learner: LearnerConfig = LearnerConfig()
    reanalyze: ReanalyzeConfig = ReanalyzeConfig()
    actors: ActorsConfig = ActorsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        check_across(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON/YAML types, every field written out."""
        return self.model_dump(mode="json")
