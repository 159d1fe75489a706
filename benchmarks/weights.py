"""New weights: what publishing, preparing and adopting them costs, and whether a move waits for them."""

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
"""Made during refreshes, for one sample: there are some ten in a refresh, and games that start anew in between."""


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


def _rows(place: str, label: str, samples: Samples) -> Iterator[Row]:
    interval, move = f"{label} interval", f"{label} move"
    yield make_row(f"weights-prepare/{place}", "ms", samples, f"{label} prepare", move, "a median move")
    yield make_row(f"weights-interval/{place}", "ms", samples, interval, f"{label} least", "the least interval")
    yield make_row(f"weights-share/{place}", "ms CPU", samples, f"{label} cost", interval, "the interval")
    yield make_row(f"weights-during/{place}", "ms", samples, f"{label} during", f"{label} mean", "a mean move")
    yield make_row(f"weights-gap/{place}", "ms", samples, f"{label} gap", move, "a median move")
    yield make_row(f"weights-gap-without/{place}", "ms", samples, f"{label} calm", move, "a median move")


def _refresh(label: str, player: SelfPlay, fresh: Weights) -> dict[str, float]:
    """Refreshes, until `MOVES` were made during them: each time a thread prepares weights, which `play` adopts between
    two moves, as in an actor; then as many moves without one. Times in ms, of moves from one's end to the next one's:
    `during` is their mean while the thread is at it and `gap` the longest, `mean` and `calm` are the same of the moves
    without, `move` is their median; `cost` the CPU time of a refresh in all threads, `interval` what an actor would
    wait between two.
    """
    during: list[float] = []
    calm: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        while len(during) < MOVES:
            ends = [time.monotonic()]
            job = pool.submit(player.prepare, fresh)
            while not job.done():
                ends.append(_move(player))
            ends.append(_move(player, job.result))
            during += (1000 * np.diff(ends)).tolist()
            begin = time.monotonic()
            while len(calm) < len(during):
                now = _move(player)
                calm.append(1000 * (now - begin))
                begin = now

    begin, processor, thread = time.perf_counter(), time.process_time(), time.thread_time()
    player.prepare(fresh)
    prepare, cost = time.perf_counter() - begin, time.process_time() - processor
    return {
        f"{label} move": float(np.median(calm)),
        f"{label} mean": float(np.mean(calm)),
        f"{label} calm": max(calm),
        f"{label} during": float(np.mean(during)),
        f"{label} gap": max(during),
        f"{label} prepare": 1000 * prepare,
        f"{label} cost": 1000 * cost,
        # The rule of `muzero_ray.actors.weights_client`, which sees the time of its own thread only.
        f"{label} interval": 1000 * max(INTERVAL, (time.thread_time() - thread) / SHARE),
        f"{label} least": 1000 * INTERVAL,
    }


def _move(player: SelfPlay, newer: Callable[[], PreparedWeights] | None = None) -> float:
    """One move in every environment; returns when it ended."""
    player.play(1, temperature=1.0, emit=discard, newer=newer)
    return time.monotonic()
