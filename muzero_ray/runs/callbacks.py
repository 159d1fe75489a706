"""What a program of the user's is told while a run goes on, and how it may end the run."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Literal

from muzero_ray.errors import ConfigError, in_one_line

Event = Literal["on_game", "on_metrics", "on_evaluation", "on_checkpoint"]
EVENTS: tuple[Event, ...] = ("on_game", "on_metrics", "on_evaluation", "on_checkpoint")


class _Stop(Enum):
    STOP = "STOP"

    def __repr__(self) -> str:
        return "STOP"


STOP = _Stop.STOP
"""What a callback returns to end the run cleanly: with a checkpoint and the final evaluation.

    class StopAtScore:
        def on_evaluation(self, score):
            return mz.STOP if score.mean >= 195 else None

    mz.train("cartpole", callbacks=[StopAtScore()])
"""


class Callbacks:
    """Tells each callback what it has a method for. A callback that fails is named and told nothing more.

    A callback has one or more of these methods; each may return STOP:

        on_game(history, stats)     a finished game, or a segment of a long one (GameHistory), and the RolloutStats of
                                    the call in which it was played. A call that is going on when a `--serial` run
                                    ends or is stopped has none, so the games that it has finished are not told
        on_metrics(row)             a row as it was written to metrics.jsonl
        on_evaluation(score)        an Evaluation: mean, returns, learner_step, ...
        on_checkpoint(path)         the folder of a checkpoint that was just written

    They are called in the driver, between its other work: what takes long holds up the run. say: shows a message.
    Raises ConfigError for an object that has none of the methods.
    """

    def __init__(self, callbacks: Sequence[object], say: Callable[[str], None]) -> None:
        for callback in callbacks:
            _check(callback)
        self._callbacks = list(callbacks)
        self._say = say
        self.stopped_by: str | None = None
        """Which callback returned STOP, in words."""

    def wants(self, event: Event) -> bool:
        """Whether anybody has to be told of it."""
        return any(hasattr(callback, event) for callback in self._callbacks)

    def tell(self, event: Event, *what: Any) -> None:
        """Call that method of every callback that has it."""
        for callback in list(self._callbacks):
            if (method := getattr(callback, event, None)) is None:
                continue
            name = f"{type(callback).__name__}.{event}"
            try:
                answer = method(*what)
            # It is the user's code: no failure of it, of whatever kind, may end the run.
            except (Exception, SystemExit) as error:
                self._callbacks.remove(callback)
                self._say(f"callback {name} failed ({_place(error)}). The run goes on without this callback")
            else:
                if answer is STOP:
                    self.stopped_by = f"{name} returned STOP"


def load_callbacks(names: Sequence[str]) -> list[object]:
    """An instance of each class, named `my_pkg.module:MyCallback`. ConfigError for what cannot be made."""
    return [_load(name) for name in names]


def _load(name: str) -> object:
    module, _, kind = name.partition(":")
    try:
        made: object = getattr(importlib.import_module(module), kind)()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"run.callbacks={name}: module {error.name!r} cannot be imported. Install the package, or put its folder "
            "on PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"run.callbacks={name}: {in_one_line(error)}. Name a class that the module has") from error
    except Exception as error:
        raise ConfigError(
            f"run.callbacks={name}: making it failed ({_place(error)}). It is called without arguments"
        ) from error
    _check(made)
    return made


def _check(callback: object) -> None:
    if isinstance(callback, type):
        raise ConfigError(f"callbacks: {callback.__name__} is a class. Pass an instance, such as {callback.__name__}()")
    if not any(callable(getattr(callback, event, None)) for event in EVENTS):
        name = type(callback).__name__
        raise ConfigError(f"callbacks: {name} has no method that could be called. Give it one of {', '.join(EVENTS)}")


def _place(error: BaseException) -> str:
    """The error and where it was raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {in_one_line(error)}{where}"
