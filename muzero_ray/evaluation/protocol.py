"""What a score is measured under: stamped on every score, so that unlike ones are not compared.

Whatever changes what the evaluated agent does with the same weights is part of it. Parts of the agent itself are not:
its network, and how that reads a frame (`env.channels`, `env.scaling`). They belong to the weights like their number.
Nor is what only rounds differently: `actors.engine` and `actors.threads`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from muzero_ray.config.schema import Config, SearchConfig
from muzero_ray.types import EnvSpec

MOVE_LIMIT = 27_000
"""Moves after which an episode is cut if nothing else ends it: the usual 30 minutes of an Atari game."""

NOT_OF_THE_GAME = ("opening_moves", "channels", "scaling", "instances")
"""Settings of the environment that do not change the game that is scored: for training, and for how it is read."""

UNKNOWN = "unknown"
"""In place of a setting that nothing says any more."""

ADDED_LATER = ("move_limit", "search_settings", "discount", "precision", "checkpoint")
"""Parts that old scores do not have. Without a value, a protocol has no such entry."""


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
    search_settings: dict[str, Any] = field(default_factory=dict)
    """Those that a noise-free search of this kind reads, `simulations` apart."""
    discount: float | None = None
    """The discount of the search, per agent step. The return that is scored is not discounted."""
    precision: str | None = None
    """In which the network was computed: float32 or bf16. None: no network of ours played, or no engine was asked."""
    checkpoint: str | None = None
    """`best` if the checkpoint was chosen from those of its run because its score was the highest: such a score is not
    comparable with that of weights that nobody chose. None: the newest weights, or those of a step that was named."""

    @property
    def digest(self) -> str:
        """Short identity, the same for equal protocols.

        It counts all settings, those at their defaults, too. So it differs from the digest that a score got before
        its search settings were recorded: that one is shared by scores of any search settings.
        """
        return protocol_digest(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        entries = asdict(self).items()
        return {name: value for name, value in entries if name not in ADDED_LATER or value not in (None, {})}

    def describe(self) -> str:
        """One line for people."""
        settings = [f"{name} {_said(value)}" for name, value in self.search_settings.items()]
        settings += [f"discount {_said(self.discount)}"] if self.discount is not None else []
        settings += [self.precision] if self.precision is not None else []
        details = f" ({', '.join(settings)})" if settings else ""
        against = f", against {self.opponent} on both sides" if self.opponent else ""
        cut = f", episodes cut after {self.move_limit:,} moves" if self.move_limit else ""
        chosen = ", of the checkpoint with the best score of its run" if self.checkpoint == "best" else ""
        return (
            f"{self.environment['id']}, raw undiscounted return, {self.search} search with {self.simulations} "
            f"simulations{details}, no noise{against}{cut}{chosen}"
        )


def _said(value: object) -> str:
    """A setting as people read it."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def protocol_digest(entries: Mapping[str, Any]) -> str:
    """Short identity of a protocol in the form of `EvaluationProtocol.as_dict`."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:12]


def evaluation_search(config: Config) -> SearchConfig:
    """The search of `config`'s evaluations: that of self-play, with what `evaluation` has in place of it."""
    return config.search.overridden(simulations=config.evaluation.simulations, c_scale=config.evaluation.c_scale)


def search_settings(search: SearchConfig) -> dict[str, Any]:
    """Every setting that a noise-free search of this kind reads, `kind` and `simulations` apart. JSON-able."""
    settings = search.model_dump(mode="json")
    return {name: settings[name] for name in _read_by(type(search))}


def _read_by(kind: type[SearchConfig]) -> list[str]:
    """The names of `search_settings`; those of all kinds come last, as in scores that were written before."""
    names = [name for name in kind.model_fields if name not in ("kind", "simulations", *kind.exploration)]
    return sorted(names, key=lambda name: name in SearchConfig.model_fields)


def evaluation_protocol(
    config: Config, spec: EnvSpec, *, precision: str | None = None, chosen_by_score: bool = False
) -> EvaluationProtocol:
    """The protocol of `config`'s evaluations.

    spec: of the environment: how many play, and whether games end by a limit of their own. precision: of the engine.
    chosen_by_score: whether the weights are those of the checkpoint with the best score.
    """
    environment = config.env.model_dump(mode="json", exclude=set(NOT_OF_THE_GAME))
    del environment["atari"]["terminal_on_life_loss"]
    if config.env.kind != "atari":
        del environment["atari"]
    search = evaluation_search(config)
    return EvaluationProtocol(
        environment=environment,
        search=search.kind,
        simulations=search.simulations,
        noise=False,
        opponent=config.evaluation.opponent if spec.num_players == 2 else None,
        move_limit=MOVE_LIMIT if config.env.max_moves is None and spec.max_moves is None else None,
        search_settings=search_settings(search),
        discount=config.learner.discount,
        precision=precision,
        checkpoint="best" if chosen_by_score else None,
    )


def completed(entries: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The protocol of a score of the run with this `config`, with what was not recorded yet when it was written.

    A run writes its scores itself, under its own `config.yaml`, and going on with it changes no setting of play. So
    what an old score does not say, its run's settings do: with equal ones it is equal to a new score, with others it
    is not. A setting that is missing there was not there yet, and its default is what was done without it.
    Two things stay `UNKNOWN`. If the score contradicts the settings, they are not those it was made under: none is
    taken from them. And whether `auto`, or a bf16 that the processor may not have, became bf16 was up to the machine.
    """
    search = evaluation_search(config)
    parts: dict[str, Any] = {"discount": config.learner.discount, "precision": _precision(config)}
    settings = search_settings(search)
    said = {"search": search.kind, "simulations": search.simulations}
    if any(entries.get(name, value) != value for name, value in said.items()):
        parts = dict.fromkeys(parts, UNKNOWN)
        its = SearchConfig.kinds.find(entries.get("search"), installed=False)
        settings = dict.fromkeys(_read_by(its.settings) if its else (), UNKNOWN)
    recorded = entries.get("search_settings")
    if isinstance(recorded, Mapping):
        settings |= recorded
    return {**parts, **entries, "search_settings": settings}


def _precision(config: Config) -> str:
    """The precision of the engine that `config` asks for, as far as that is so on every machine."""
    compiled_loops = config.network.kind == "mlp" and config.actors.engine != "torch"
    return "float32" if compiled_loops or config.actors.precision == "float32" else UNKNOWN
