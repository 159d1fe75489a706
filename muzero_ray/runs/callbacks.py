"""What a program of the user's is told while a run goes on, and how it may end the run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Literal

from muzero_ray.errors import ConfigError
from muzero_ray.user_modules import imported, raised

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
    """

    def __init__(self, callbacks: Sequence[object], say: Callable[[str], None]) -> None:
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
                self._say(f"callback {name} failed ({raised(error)}). The run goes on without this callback")
            else:
                if answer is STOP:
                    self.stopped_by = f"{name} returned STOP"


def all_callbacks(names: Sequence[str], given: Sequence[object]) -> list[object]:
    """An instance of each class that is named, such as `my_pkg.module:MyCallback`, and the callbacks that are given.

    Raises ConfigError for a class that cannot be made, and for an object that has none of the methods.
    """
    callbacks = [*map(_load, names), *given]
    for callback in callbacks:
        _check(callback)
    return callbacks


def _load(name: str) -> object:
    what = f"run.callbacks={name}"
    module, _, kind = name.partition(":")
    found = imported(lambda: importlib.import_module(module), what)
    if not hasattr(found, kind):
        raise ConfigError(f"{what}: module {module!r} has no attribute {kind!r}. Name a class that the module has")
    try:
        made: object = getattr(found, kind)()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what}: making it failed ({raised(error)}). It is called without arguments") from error
    return made


def _check(callback: object) -> None:
    if isinstance(callback, type):
        raise ConfigError(f"callbacks: {callback.__name__} is a class. Pass an instance, such as {callback.__name__}()")
    if not any(callable(getattr(callback, event, None)) for event in EVENTS):
        name = type(callback).__name__
        raise ConfigError(f"callbacks: {name} has no method that could be called. Give it one of {', '.join(EVENTS)}")
