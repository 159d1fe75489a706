"""Self-play of one actor with its environments, with every engine."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from benchmarks.engines import Choice, changed, engines_for, fresh_player
from benchmarks.measure import Effort, Row, Trial, make_row, rate, take_turns
from muzero_ray.acting.self_play import SelfPlay
from muzero_ray.config.files import load_preset
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.atari import AtariEnvironment
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.registry import make_environment
from muzero_ray.types import GameHistory

SEED = 0
ENVIRONMENT_STEPS = 500
CARTPOLE_SIMULATIONS = 50
ATARI_GAMES = ("Breakout", "Pong", "Qbert", "Seaquest")
ATARI_RESETS = 10


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
    yield from _atari_resets(breakout, effort)


def discard(_game: GameHistory) -> None:
    """Self-play without a replay behind it."""


def play(key: str, player: SelfPlay, seconds: float) -> dict[str, float]:
    """Env steps/s, of everything and of the searches alone."""
    stats = player.play(sys.maxsize, temperature=1.0, emit=discard, seconds=seconds)
    return {key: stats.transitions / stats.seconds, f"{key} searches": stats.transitions / stats.search_seconds}


def _engines(name: str, config: Config, effort: Effort) -> Iterator[Row]:
    task = probe(config)
    players = {label: fresh_player(choice, config, task) for label, choice in engines_for(config).items()}
    trials: list[Trial] = [partial(play, label, player, effort.seconds) for label, player in players.items()]
    samples = take_turns(trials, effort.repeats)
    reference = next(iter(players))
    for label, player in players.items():
        place = f"{name}/{label}/S{config.search.simulations}"
        yield make_row(f"selfplay/{place}", "steps/s", samples, label, f"{label} searches", "its searches alone")
        if label != reference:
            yield make_row(f"selfplay-gain/{place}", "steps/s", samples, label, reference, f"with {reference}")
        player.close()


def _atari_resets(config: Config, effort: Effort) -> Iterator[Row]:
    """A new game, which restores the emulator, against loading the ROM again for each as gymnasium does; CPU time."""
    for game in ATARI_GAMES:
        environment = make_environment(changed(config, "env", id=game).env)
        trials: list[Trial] = [partial(_resets, environment), loading_the_rom(partial(_resets, environment, "loading"))]
        samples = take_turns(trials, effort.repeats)
        name = f"environment/atari-reset/{game}"
        yield make_row(name, "CPU ms", samples, "restoring", "loading", "loading the ROM")
        environment.close()
    player = fresh_player(Choice("compiled", "bf16"), config, probe(config))
    seconds = 20 * effort.seconds  # several games in each environment
    trials = [partial(_cpu_play, player, seconds, "restoring")]
    trials.append(loading_the_rom(partial(_cpu_play, player, seconds, "loading")))
    samples = take_turns(trials, effort.repeats)
    name = "selfplay-gain/breakout/atari-reset"
    yield make_row(name, "steps/CPU s", samples, "restoring", "loading", "loading the ROM for each game")
    player.close()


def loading_the_rom(trial: Trial) -> Trial:
    """`trial` with Atari games that begin as they did before: the ROM is loaded for each."""

    def load(environment: AtariEnvironment, seed: int) -> None:
        environment._env.reset(seed=seed)

    def run() -> dict[str, float]:
        restoring = AtariEnvironment._power_on
        AtariEnvironment._power_on = load  # type: ignore[method-assign]
        try:
            return trial()
        finally:
            AtariEnvironment._power_on = restoring  # type: ignore[method-assign]

    return run


def _resets(environment: Environment, key: str = "restoring") -> dict[str, float]:
    begin = time.process_time()
    for seed in range(ATARI_RESETS):
        environment.reset(seed)
    return {key: 1e3 * (time.process_time() - begin) / ATARI_RESETS}


def _cpu_play(player: SelfPlay, seconds: float, key: str) -> dict[str, float]:
    begin = time.process_time()
    stats = player.play(sys.maxsize, temperature=1.0, emit=discard, seconds=seconds)
    return {key: stats.transitions / (time.process_time() - begin)}


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
