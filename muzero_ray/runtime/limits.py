"""The limits of a run: in words, and what becomes of those that are spent when it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muzero_ray.config import Config
from muzero_ray.errors import ConfigError


def open_limits(config: Config, book: Mapping[str, Any], given: Mapping[str, float | None]) -> Config:
    """`config` for going on from `book` (a checkpoint's) when a person asked for the limits in `given`.

    A limit that is reached already, and that was not given anew, would end the run before it begins. Of episodes and
    minutes it is lifted; training_steps, which every schedule needs, must be given: ConfigError. Nothing given, nothing
    changed: the run then only evaluates.
    """
    if all(value is None for value in given.values()):
        return config
    run = config.run
    reached = {
        "training_steps": book["learner_steps"] >= run.training_steps,
        "episodes": run.episodes is not None and book["episodes"] >= run.episodes,
        "minutes": run.minutes is not None and book["seconds"] >= 60 * run.minutes,
    }
    options = {"training_steps": "--iterations", "episodes": "--episodes", "minutes": "--minutes"}
    for name in (name for name, is_reached in reached.items() if is_reached):
        value = getattr(run, name)
        if name == "training_steps" or given[name] is not None:
            raise ConfigError(
                f"resume: run.{name}={value} is reached already, so there is nothing to do. Give {options[name]} more"
            )
    lifted = {name: None for name in ("episodes", "minutes") if reached[name]}
    return config.model_copy(update={"run": run.model_copy(update=lifted)})


def describe_limits(config: Config) -> str:
    """The limits of a run in words."""
    run = config.run
    limits = [
        f"{run.training_steps} learner steps",
        *([f"{run.episodes} episodes"] if run.episodes is not None else []),
        *([f"{run.minutes:g} minutes"] if run.minutes is not None else []),
    ]
    return " or ".join(limits)
