"""Self-play of one actor with its environments, with every engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from benchmarks.engines import changed, engines_for, fresh_player
from benchmarks.measure import Effort, Row, Trial, make_row, rate, take_turns
from muzero_ray.config import Config
from muzero_ray.config_file import load_preset
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.registry import make_environment
from muzero_ray.runtime.build import probe
from muzero_ray.runtime.self_play import SelfPlay
from muzero_ray.types import GameHistory

SEED = 0
ENVIRONMENT_STEPS = 500
CARTPOLE_SIMULATIONS = 50


def self_play(effort: Effort) -> Iterator[Row]:
    """CartPole at its preset's simulations and at 50, Breakout at its preset's; fresh weights, a core's worth.

    Each against its searches alone (the root's network output included). CartPole's games are short then, so that
    resets count for more than in training.
    """
    cartpole, breakout = load_preset("cartpole"), load_preset("breakout")
    yield from _environment(cartpole, effort)
    for simulations in sorted({cartpole.search.simulations, CARTPOLE_SIMULATIONS}):
        yield from _engines("cartpole", changed(cartpole, "search", simulations=simulations), effort)
    yield from _engines("breakout", breakout, effort)


def discard(_game: GameHistory) -> None:
    """Self-play without a replay behind it."""


def play(key: str, player: SelfPlay, seconds: float) -> dict[str, float]:
    """Env steps/s, of everything and of the searches alone."""
    stats = player.play(sys.maxsize, temperature=1.0, emit=discard, seconds=seconds)
    return {key: stats.transitions / stats.seconds, f"{key} searches": stats.transitions / stats.search_seconds}


def _engines(task: str, config: Config, effort: Effort) -> Iterator[Row]:
    shape = probe(config)
    players = {label: fresh_player(choice, config, shape) for label, choice in engines_for(config).items()}
    trials: list[Trial] = [partial(play, label, player, effort.seconds) for label, player in players.items()]
    samples = take_turns(trials, effort.repeats)
    reference = next(iter(players))
    for label, player in players.items():
        place = f"{task}/{label}/S{config.search.simulations}"
        yield make_row(f"selfplay/{place}", "steps/s", samples, label, f"{label} searches", "its searches alone")
        if label != reference:
            yield make_row(f"selfplay-gain/{place}", "steps/s", samples, label, reference, f"with {reference}")
        player.close()


def _environment(config: Config, effort: Effort) -> Iterator[Row]:
    """One environment alone, random actions, against gymnasium without our checks."""
    bare, checked = gymnasium.make(config.env.id), make_environment(config.env)
    trials: list[Trial] = [
        lambda: {"bare": rate(partial(_step_bare, bare), ENVIRONMENT_STEPS, effort.seconds)},
        lambda: {"checked": rate(partial(_step_checked, checked), ENVIRONMENT_STEPS, effort.seconds)},
    ]
    samples = take_turns(trials, effort.repeats)
    yield make_row("environment/cartpole", "steps/s", samples, "checked", "bare", "gymnasium alone")
    bare.close()
    checked.close()


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
