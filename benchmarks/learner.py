"""Self-play with real environments, and the learner's step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from benchmarks.measure import Effort, Row, Trial, make_row, milliseconds, rate, take_turns
from benchmarks.replay import fill, record_games
from muzero_ray.config import Config
from muzero_ray.config_file import load_preset
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.registry import make_environment
from muzero_ray.runtime.build import build_buffer, build_learner, build_self_play, probe
from muzero_ray.runtime.self_play import SelfPlay
from muzero_ray.training.learner import Learner
from muzero_ray.types import Batch, GameHistory, Weights, WeightsVersion

SEED = 0
ENVIRONMENT_STEPS = 500
PRECISIONS = ("float32", "bf16")


def _discard(_game: GameHistory) -> None:
    """Self-play without a replay behind it."""


def self_play(effort: Effort) -> Iterator[Row]:
    """CartPole preset, one actor, fresh weights: games are short, so that resets count for more than in training.

    At the preset's number of simulations and at 50, each against its searches alone (the root's network output
    included); and one environment alone, random actions, against gymnasium without our checks.
    """
    preset = load_preset("cartpole")
    counts = sorted({preset.search.simulations, 50})
    players = {count: _player(_with(preset, "search", simulations=count)) for count in counts}
    bare, checked = gymnasium.make(preset.env.id), make_environment(preset.env)
    trials: list[Trial] = [partial(_play, f"S{count}", player, effort.seconds) for count, player in players.items()]
    trials.append(lambda: {"bare": rate(partial(_step_bare, bare), ENVIRONMENT_STEPS, effort.seconds)})
    trials.append(lambda: {"checked": rate(partial(_step_checked, checked), ENVIRONMENT_STEPS, effort.seconds)})
    samples = take_turns(trials, effort.repeats)
    yield make_row("environment/cartpole", "steps/s", samples, "checked", "bare", "gymnasium alone")
    for count in counts:
        key, name = f"S{count}", f"selfplay/cartpole/S{count}"
        yield make_row(name, "steps/s", samples, key, f"{key} searches", "its searches alone")
    for player in players.values():
        player.close()
    bare.close()
    checked.close()


def learner(effort: Effort) -> Iterator[Row]:
    """Breakout preset on real frames: the step in both precisions, and how long its batch takes to build."""
    preset = load_preset("breakout")
    shape = probe(preset)
    buffer = build_buffer(preset, shape)
    fill(buffer, iter(record_games(preset, effort.recorded, SEED)), effort.recorded)
    batch_size = preset.learner.batch_size
    batch = buffer.sample(batch_size, beta=1.0)
    trials: list[Trial] = [
        partial(_train, precision, build_learner(_with(preset, "learner", precision=precision), shape), batch, effort)
        for precision in PRECISIONS
    ]
    trials.append(lambda: {"batch": milliseconds(lambda: buffer.sample(batch_size, beta=1.0), effort.seconds)})
    samples = take_turns(trials, effort.repeats)
    for precision in PRECISIONS:
        samples[f"{precision} rate"] = [1000.0 / time for time in samples[precision]]
    name, used = f"learner/breakout/B{batch_size}", preset.learner.precision
    yield make_row(f"{name}/float32", "steps/s", samples, "float32 rate")
    yield make_row(f"{name}/bf16", "steps/s", samples, "bf16 rate", "float32 rate", "the step in float32")
    yield make_row(f"{name}/batch", "ms", samples, "batch", used, f"the step in {used}")


def _with(config: Config, part: str, **changes: object) -> Config:
    """`config` with some settings of one part changed."""
    return Config.model_validate({**config.to_dict(), part: {**config.to_dict()[part], **changes}})


def _train(label: str, trained: Learner, batch: Batch, effort: Effort) -> dict[str, float]:
    """Milliseconds of a step; the same batch every time, so that nothing but the step is timed."""

    def step() -> None:
        if trained.train_step(batch).skipped:
            raise RuntimeError(f"the {label} step was not finite: its time means nothing")

    return {label: milliseconds(step, effort.seconds)}


def _player(config: Config) -> SelfPlay:
    shape = probe(config)
    player = build_self_play(config, shape, actor=0)
    player.set_weights(Weights(WeightsVersion(0, 0), build_learner(config, shape).weights()))
    return player


def _play(key: str, player: SelfPlay, seconds: float) -> dict[str, float]:
    """Env steps/s, of everything and of the searches alone."""
    stats = player.play(sys.maxsize, temperature=1.0, emit=_discard, seconds=seconds)
    return {key: stats.transitions / stats.seconds, f"{key} searches": stats.transitions / stats.search_seconds}


def _step_bare(environment: gymnasium.Env[Any, Any]) -> None:
    environment.reset(seed=SEED)
    for action in _actions(2):
        _, _, terminated, truncated, _ = environment.step(action)
        if terminated or truncated:
            environment.reset(seed=action)


def _step_checked(environment: Environment) -> None:
    """The same games as `_step_bare`."""
    environment.reset(SEED)
    for action in _actions(environment.spec.num_actions):
        step = environment.step(action)
        if step.terminated or step.truncated:
            environment.reset(action)


def _actions(count: int) -> list[int]:
    actions: list[int] = np.random.default_rng(SEED).integers(count, size=ENVIRONMENT_STEPS).tolist()
    return actions
