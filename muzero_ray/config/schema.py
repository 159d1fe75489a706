"""The whole configuration: frozen pydantic models, one per part. Checked once, across fields; builders unpack it.

The parts that say what is learned are in `learning`, those that say where and how long a run goes on in `running`.
Other modules import them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from muzero_ray.config.kinds import kinds_of, of_any_kind
from muzero_ray.config.learning import (
    AtariConfig,
    EnvConfig,
    LearnerConfig,
    ReanalyzeConfig,
    ReplayConfig,
)
from muzero_ray.config.network import MlpConfig, NetworkConfig, ResnetConfig, SupportConfig
from muzero_ray.config.plugins import import_plugins, named_plugins
from muzero_ray.config.renamed import RENAMED, given_twice
from muzero_ray.config.rules import check_across
from muzero_ray.config.running import ActorsConfig, EvaluationConfig, RunConfig
from muzero_ray.config.search import GumbelConfig, PuctConfig, SearchConfig
from muzero_ray.config.validation import as_tuples, dotted, leaf_paths, nearest, validate
from muzero_ray.errors import ConfigError

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
    """Everything a run needs; `config.yaml` of a run holds it in full.

    config = mz.Config().override({"env.id": "Acrobot-v1", "network.kind": "mlp"})
    config.learner.lr
    """

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

    def override(self, settings: Mapping[str, Any]) -> Config:
        """A copy with these settings, by their dotted names, checked like a config file. Old names are taken, too.

        With another `kind`, settings that only the kind of before has are left out. Raises ConfigError with every
        mistake.

            config.override({"learner.lr": 3e-3, "network.layers": [64, 64], "env.kwargs.lanes": 3})
        """
        import_plugins(named_plugins({"run": {"plugins": as_tuples(settings.get("run.plugins"))}}))
        data = self.model_dump()
        for name in sorted(settings, key=lambda name: not name.endswith(".kind")):
            words = tuple(name.split("."))
            *sections, key = today = RENAMED.get(words, words)
            if today != words and dotted(today) in settings:
                raise ConfigError(given_twice(name, dotted(today)))
            place: Any = data
            for section in sections:
                if not isinstance(place := place.get(section), dict):
                    raise ConfigError(f"{name}: unknown setting. {nearest(name, map(dotted, leaf_paths(Config)))}")
            if isinstance(place.get(key), dict) and key != "kwargs":
                example = f"{name}.{next(iter(place[key]))}"
                raise ConfigError(f"{name}: is a section. Name one of its settings, such as {example}")
            kinds = kinds_of(Config.model_fields[sections[0]].annotation) if key == "kind" and sections else None
            if kinds is not None:
                place = data[sections[0]] = kinds.settings_for(settings[name], place)
            place[key] = as_tuples(settings[name])
        return validate(Config, data, {})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON/YAML types, every field written out."""
        return self.model_dump(mode="json")
