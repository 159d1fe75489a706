"""New weights: what publishing and preparing them costs, and how long moves take until they are adopted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from benchmarks.engines import engines_for, fresh_player, fresh_weights
from benchmarks.measure import Effort, Row, Samples, Trial, make_row, milliseconds, take_turns
from benchmarks.self_play import discard
from muzero_ray.acting.self_play import PreparedWeights, SelfPlay
from muzero_ray.actors.weights_client import INTERVAL, SHARE
from muzero_ray.config.files import load_preset
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.training.build import build_learner
from muzero_ray.types import Weights

MOVES = 100
"""Moves during refreshes, for one sample: several refreshes of about ten moves, with starts of games among them."""


def weights(effort: Effort) -> Iterator[Row]:
    """CartPole and Breakout presets, every engine that can run them."""
    for name in ("cartpole", "breakout"):
        yield from _refreshes(name, load_preset(name), effort)


def _refreshes(name: str, config: Config, effort: Effort) -> Iterator[Row]:
    task = probe(config)
    fresh, learner = fresh_weights(config, task), build_learner(config, task)
    players = {label: fresh_player(choice, config, task) for label, choice in engines_for(config).items()}
    trials: list[Trial] = [lambda: {"publish": milliseconds(learner.weights, effort.seconds)}]
    for label, player in players.items():
        trials.append(partial(_refresh, label, player, fresh))
    samples = take_turns(trials, effort.repeats)
    yield make_row(f"weights-publish/{name}/{fresh.flat.nbytes // 1000}kB", "ms", samples, "publish")
    for label, player in players.items():
        yield from _rows(f"{name}/{label}", label, samples)
        player.close()


def _rows(name: str, label: str, samples: Samples) -> Iterator[Row]:
    interval, move = f"{label} interval", f"{label} move"
    yield make_row(f"weights-prepare/{name}", "ms", samples, f"{label} prepare", move, "a median move")
    yield make_row(f"weights-interval/{name}", "ms", samples, interval, f"{label} shortest", "the least interval")
    yield make_row(f"weights-share/{name}", "ms CPU", samples, f"{label} cost", interval, "the interval")
    yield make_row(f"weights-during/{name}", "ms", samples, f"{label} during", f"{label} mean", "a mean move")
    yield make_row(f"weights-gap/{name}", "ms", samples, f"{label} gap", move, "a median move")
    yield make_row(f"weights-gap-without/{name}", "ms", samples, f"{label} longest", move, "a median move")


def _refresh(label: str, player: SelfPlay, fresh: Weights) -> dict[str, float]:
    """Refreshes until `MOVES` moves were made during them, each followed by as many moves without one.

    In a refresh a thread prepares weights, which `play` adopts between two moves, as in an actor. All times are in ms;
    that of a move counts from the end of the one before.

    `during`, `gap`: mean and longest of the moves during refreshes.
    `mean`, `longest`, `move`: mean, longest and median of the others.
    `prepare`, `cost`: of one preparation alone, wall clock and CPU time of all threads.
    `interval`: how long an actor waits between two refreshes. `shortest`: the least that it may wait.
    """
    during: list[float] = []
    without: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        while len(during) < MOVES:
            ends = [time.monotonic()]
            job = pool.submit(player.prepare, fresh)
            while not job.done():
                ends.append(_move(player))
            ends.append(_move(player, job.result))
            during += (1000 * np.diff(ends)).tolist()
            begin = time.monotonic()
            while len(without) < len(during):
                now = _move(player)
                without.append(1000 * (now - begin))
                begin = now

    begin, cpu, thread = time.perf_counter(), time.process_time(), time.thread_time()
    player.prepare(fresh)
    prepare, cost = time.perf_counter() - begin, time.process_time() - cpu
    return {
        f"{label} move": float(np.median(without)),
        f"{label} mean": float(np.mean(without)),
        f"{label} longest": max(without),
        f"{label} during": float(np.mean(during)),
        f"{label} gap": max(during),
        f"{label} prepare": 1000 * prepare,
        f"{label} cost": 1000 * cost,
        # As in `muzero_ray.actors.weights_client`, which measures the CPU time of its own thread only.
        f"{label} interval": 1000 * max(INTERVAL, (time.thread_time() - thread) / SHARE),
        f"{label} shortest": 1000 * INTERVAL,
    }


def _move(player: SelfPlay, newer: Callable[[], PreparedWeights] | None = None) -> float:
    """Move once in every environment; returns the monotonic time at its end. newer: gives weights to adopt first."""
    player.play(1, temperature=1.0, emit=discard, newer=newer)
    return time.monotonic()
