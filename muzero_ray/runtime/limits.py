"""The limits of a run: in words, and what becomes of those that are spent when it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muzero_ray.config import Config
from muzero_ray.errors import ConfigError
from muzero_ray.runtime.run_book import RunBook


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


def nothing_learned(config: Config, book: RunBook) -> str | None:
    """Why a run that is over made no learner step, and what to raise; None if it made one."""
    if book.learner_steps:
        return None
    played, needed = book.limiter.inserted, config.replay.min_size
    why = "no update was finished in that time"
    by_episodes = config.run.episodes is not None and book.episodes >= config.run.episodes
    raised = "run.episodes (--episodes)" if by_episodes else "run.minutes (--minutes)"
    if played < needed:
        why = f"replay.min_size={needed} transitions must be in replay before the first, and {played} were"
        raised += ", or lower replay.min_size"
    return (
        f"the run ended at {book.stop_reason()} without a learner step: {why}. The score is that of an untrained "
        f"network. Raise {raised}"
    )


def left_unfinished(book: RunBook) -> str:
    """What is said of an evaluation on the way that the limit of minutes ended."""
    return (
        f"the evaluation at learner step {book.learner_steps} was left unfinished and does not count: the run ends at "
        f"{book.stop_reason()}"
    )
