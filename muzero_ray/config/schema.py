"""The whole configuration: frozen pydantic models, one per part. Checked once, across fields; builders unpack it.

The parts that say what is learned are in `learning`, those that say where and how long a run goes on in `running`.
Other modules import them from here.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import SerializeAsAny, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator, model_validator

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
    ReanalyzeConfig,
    ReplayConfig,
)
from muzero_ray.config.network import MlpConfig, NetworkConfig, ResnetConfig, SupportConfig
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


def _search(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    return SearchConfig.kinds.validate(value, handler, info.context)


def _network(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    return NetworkConfig.kinds.validate(value, handler, info.context)


class Config(FrozenConfig):
    """Everything a run needs; `config.yaml` of a run holds it in full."""

    run: RunConfig = RunConfig()
    env: EnvConfig = EnvConfig()
    network: Annotated[SerializeAsAny[NetworkConfig], WrapValidator(_network)] = MlpConfig()
    search: Annotated[SerializeAsAny[SearchConfig], WrapValidator(_search)] = GumbelConfig()
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
