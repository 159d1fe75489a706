"""The whole configuration: frozen pydantic models, one per part. Checked once, across fields; builders unpack it.

The parts that say what is learned are in `learning`, those that say where and how long a run goes on in `running`.
Other modules import them from here.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import SerializeAsAny, model_validator

from muzero_ray.config.base import (
    OPPONENT,
    FrozenConfig,
    Games,
    KwargValue,
    OpponentName,
    Simulations,
)
from muzero_ray.config.kinds import of_any_kind
from muzero_ray.config.learning import (
    AtariConfig,
    EnvConfig,
    LearnerConfig,
    ReanalyzeConfig,
    ReplayConfig,
)
from muzero_ray.config.network import MlpConfig, NetworkConfig, ResnetConfig, SupportConfig
from muzero_ray.config.plugins import import_plugins
from muzero_ray.config.rules import check_across
from muzero_ray.config.running import ActorsConfig, EvaluationConfig, RunConfig
from muzero_ray.config.search import GumbelConfig, PuctConfig, SearchConfig

__all__ = [
    "OPPONENT",
    "ActorsConfig",
    "AtariConfig",
    "Config",
    "EnvConfig",
    "EvaluationConfig",
    "FrozenConfig",
    "Games",
    "GumbelConfig",
    "KwargValue",
    "LearnerConfig",
    "MlpConfig",
    "NetworkConfig",
    "OpponentName",
    "PuctConfig",
    "ReanalyzeConfig",
    "ReplayConfig",
    "ResnetConfig",
    "RunConfig",
    "SearchConfig",
    "Simulations",
    "SupportConfig",
]


class Config(FrozenConfig):
    """Everything a run needs; `config.yaml` of a run holds it in full."""

    run: RunConfig = RunConfig()
    env: Annotated[SerializeAsAny[EnvConfig], of_any_kind(EnvConfig)] = EnvConfig()
    network: Annotated[SerializeAsAny[NetworkConfig], of_any_kind(NetworkConfig)] = MlpConfig()
    search: Annotated[SerializeAsAny[SearchConfig], of_any_kind(SearchConfig)] = GumbelConfig()
    replay: ReplayConfig = ReplayConfig()
    learner: LearnerConfig = LearnerConfig()
    reanalyze: ReanalyzeConfig = ReanalyzeConfig()
    actors: ActorsConfig = ActorsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        check_across(self)
        return self

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """In each process that is sent a config: what it names can be built there."""
        super().__setstate__(state)
        import_plugins(self.run.plugins)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON/YAML types, every field written out."""
        return self.model_dump(mode="json")
