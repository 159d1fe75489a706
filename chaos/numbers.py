"""NaN and infinities, put in at one place and one moment of a run: which weights were published and saved?"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chaos.report import Outcome
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.control.serial import SerialRunner
from muzero_ray.errors import MuZeroRayError
from muzero_ray.runs.checkpoint import list_checkpoints, load_checkpoint
from muzero_ray.runs.output import RunOutput
from muzero_ray.types import Array

STEPS = 24
VALUES = (float("nan"), float("inf"), float("-inf"))


@dataclass(frozen=True)
class Point:
    """`value` at `place`, in learner step `moment` or about then."""

    place: str
    value: float
    moment: int


class Runner(SerialRunner):
    """The serial program, with the places where numbers come in and where weights go out laid open."""

    def spoil(self, point: Point) -> None:
        """Have `point` happen once."""
        PLACES[point.place](self, point)

    def watch(self, seen: list[Array]) -> None:
        """Collect all weights that are handed to who acts."""
        for owner, name in ((self._self_play, "set_weights"), (self._reanalyzer, "set_weights")):
            before(owner, name, lambda weights: seen.append(weights.flat))
        before(self._evaluator, "load", seen.append)


def before(owner: Any, name: str, action: Callable[..., None]) -> None:
    """Call `action` with the arguments of that method before it is called."""
    method = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        action(*arguments, **options)
        return method(*arguments, **options)

    setattr(owner, name, call)


def once(owner: Any, name: str, moment: int, change: Callable[[Any], Any]) -> None:
    """Change what the `moment`-th call of that method returns."""
    method, calls = getattr(owner, name), [0]

    def call(*arguments: Any, **options: Any) -> Any:
        result = method(*arguments, **options)
        calls[0] += 1
        return change(result) if calls[0] == moment else result

    setattr(owner, name, call)


def spoiled(array: Array, value: float) -> Array:
    """A copy with one number replaced."""
    copy = np.array(array)
    copy.reshape(-1)[0] = value
    return copy


def _move(field_name: str) -> Callable[[Runner, Point], None]:
    """What an environment answers."""

    def spoil(runner: Runner, point: Point) -> None:
        def change(step: Any) -> Any:
            if field_name == "reward":
                return step._replace(reward=point.value)
            return step._replace(observation=spoiled(step.observation, point.value))

        # Games of one of two environments: by then there is something to train on, and weights went out.
        move = 2 * point.moment + 16
        once(runner._self_play._environments[0].current.inner, "step", move, change)  # type: ignore[attr-defined]

    return spoil


def _batch(field_name: str) -> Callable[[Runner, Point], None]:
    """What the learner draws."""

    def spoil(runner: Runner, point: Point) -> None:
        def change(batch: Any) -> Any:
            return replace(batch, **{field_name: spoiled(getattr(batch, field_name), point.value)})

        once(runner._buffer, "sample", point.moment, change)

    return spoil


def _loss(runner: Runner, point: Point) -> None:
    once(runner._learner, "_loss", point.moment, lambda parts: (parts[0] * point.value, *parts[1:]))


def _gradient(runner: Runner, point: Point) -> None:
    calls = [0]

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return gradient * point.value if calls[0] == point.moment else gradient

    next(runner._learner._network.parameters()).register_hook(hook)  # type: ignore[no-untyped-call]


def _weight(runner: Runner, point: Point) -> None:
    """After an update: bad memory, or an update that was too large."""

    def change(result: Any) -> Any:
        with torch.no_grad():
            next(runner._learner._network.parameters()).view(-1)[0] = point.value
        return result

    once(runner._learner, "train_step", point.moment, change)


def _moments(runner: Runner, point: Point) -> None:
    """In the optimizer's state: loss and gradient of the next update are finite, the update is not."""

    def change(result: Any) -> Any:
        parameter = next(runner._learner._network.parameters())
        runner._learner._optimizer.state[parameter]["exp_avg"].view(-1)[0] = point.value
        return result

    once(runner._learner, "train_step", point.moment, change)


PLACES: dict[str, Callable[[Runner, Point], None]] = {
    "observation": _move("observation"),
    "reward": _move("reward"),
    "observation in a batch": _batch("frames"),
    "reward in a batch": _batch("target_reward"),
    "value in a batch": _batch("target_value"),
    "importance weight": _batch("weights"),
    "loss": _loss,
    "gradient": _gradient,
    "weight": _weight,
    "optimizer state": _moments,
}


@dataclass
class Found:
    """What a spoiled run published and saved. ended: how it ended."""

    point: Point
    ended: str = "at its target"
    published: list[Array] = field(default_factory=list)
    saved: int = 0
    bad: list[str] = field(default_factory=list)


def config() -> Config:
    data: dict[str, Any] = {
        "run": {"learner_steps": STEPS, "log_steps": 6, "checkpoint_steps": 4, "wandb": "disabled", "serial": True},
        "env": {"id": "CartPole-v1", "max_moves": 60},
        "network": {"hidden": 16, "layers": (16,), "head_layers": (16,)},
        "search": {"simulations": 2},
        "replay": {"min_size": 32, "samples_per_insert": 4.0, "segment_length": 8},
        "learner": {"batch_size": 16, "unroll_steps": 3, "td_steps": 4},
        "reanalyze": {"ratio": 0.3, "simulations": 2},
        "actors": {"count": 1, "envs_per_actor": 2, "rollout_steps": 16},
        "evaluation": {"interval_steps": 8, "episodes": 1, "video": False},
    }
    return Config.model_validate(data)


def run_with(point: Point, folder: Path) -> Found:
    """A short run with `point` in it, and all weights that came out of it."""
    found, settings = Found(point), config()
    with contextlib.redirect_stdout(io.StringIO()), RunOutput.create(settings, folder) as output:
        runner = Runner(settings, probe(settings), output, None)
        runner.watch(found.published)
        runner.spoil(point)
        try:
            runner.run()
        except MuZeroRayError as error:
            found.ended = type(error).__name__
        except Exception as error:  # a clear reason is asked for
            found.ended = f"{type(error).__name__}: {error}"
            found.bad.append("no clear reason")
    bad = sum(not np.isfinite(flat).all() for flat in found.published)
    found.bad += [f"{bad} of {len(found.published)} published weights"] if bad else []
    for path in list_checkpoints(folder / "checkpoints"):
        checkpoint = load_checkpoint(path)
        arrays = {**checkpoint.model, **checkpoint.optimizer}
        found.saved += 1
        broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        found.bad += [f"{broken[0]} saved at step {checkpoint.step}"] if broken else []
    return found


def points(tries: int) -> list[Point]:
    """The places in turns, with each value, at moments at random."""
    rng = random.Random(7)
    places = list(PLACES)
    return [
        Point(places[index % len(places)], VALUES[index // len(places) % len(VALUES)], rng.randint(1, STEPS - 6))
        for index in range(tries)
    ]


def not_finite(tries: int, folder: Path) -> Iterator[Outcome]:
    """One row for each place."""
    found = [run_with(point, folder / str(index)) for index, point in enumerate(points(tries))]
    for place in PLACES:
        here = [one for one in found if one.point.place == place]
        lost = [one for one in here if one.bad]
        yield Outcome(
            f"NaN or inf: {place}",
            "weights finite wherever published or saved; a clear reason if the run ends",
            len(here),
            len(lost),
            bool(here) and not lost,
            {
                "ended by an error": sum(one.ended != "at its target" for one in here),
                "weights published": sum(len(one.published) for one in here),
                "checkpoints": sum(one.saved for one in here),
            },
            [f"{one.point.value} at moment {one.point.moment}: {'; '.join(one.bad)} ({one.ended})" for one in lost[:2]],
        )
