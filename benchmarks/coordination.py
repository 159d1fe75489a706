"""Coordination alone: the real program with a network and an environment of fixed latency that take no CPU.

What is missing from a linear gain in actors is then Ray, replay, the supervisor and the Python around a move.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, cycle
from typing import Any
from unittest import mock

import numpy as np
import psutil
import ray
from ray.actor import ActorHandle

from benchmarks.cluster import RunningWorkers, private_ray, running_program
from benchmarks.engines import changed, engines_for, fresh_player
from benchmarks.measure import Effort, Row, Samples, make_row
from benchmarks.replay import record_games
from benchmarks.self_play import play
from benchmarks.stubs import NETWORK_SECONDS, UPDATE_SECONDS, SleepingLearner, SleepingSelfPlay
from muzero_ray.actors.worker_handle import WorkerHandle
from muzero_ray.config.files import load_preset
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.control.rate_limiter import RateLimiter
from muzero_ray.control.run_state import RunState
from muzero_ray.replay.encoding import encode_game
from muzero_ray.types import GameHistory, GameId

SEED = 0
ENVIRONMENTS, SIMULATIONS, STEP_SECONDS = 2, 4, 0.2
ROLLOUT_STEPS = 6
"""Transitions: about two seconds of an actor. What the supervisor has to do is per call, and real ones take longer."""

NEVER, PLENTY = 10**9, 10**8
FILL_SEGMENTS = 20
INTAKE_SEGMENTS = 24
"""That each actor has to send."""

INTAKE_SECONDS = 6.0
"""How long the learner draws meanwhile: longer than replay needs for the segments, if it takes 64 actors' worth."""

FOREIGN_ACTOR = 1 << 20
"""Stamped on segments that no actor of the program has played."""

TIMEOUT = 120.0


def coordination(effort: Effort) -> Iterator[Row]:
    """1 to 64 actors by default; all are up from the start, those that are not needed wait for a call."""
    with private_ray():
        yield from coordinate(effort)


def coordinate(effort: Effort) -> Iterator[Row]:
    """Ray must be up."""
    preset = load_preset("breakout")
    source = _Segments(record_games(preset, effort.recorded, SEED))
    config = _config(preset, max(effort.actors))
    samples: Samples = {}
    with (
        mock.patch("muzero_ray.actors.self_play.SelfPlayWorker", SleepingSelfPlay),
        mock.patch("muzero_ray.learner.learner.LearnerWorker", SleepingLearner),
        running_program(config) as running,
    ):
        _push(running.workers.one("replay").actor, source.pack(FILL_SEGMENTS), 2)  # so that there are batches to draw
        _level(running, config, max(effort.actors), effort.level_seconds)  # to warm up: it does not count
        handles = running.workers.handles
        for _ in range(effort.passes):
            for actors in effort.actors:
                running.workers.handles = [
                    worker for worker in handles if worker.kind != "self_play" or worker.index < actors
                ]
                for key, value in _level(running, config, actors, effort.level_seconds).items():
                    samples.setdefault(key, []).append(value)
            samples.setdefault("cores", []).append(float(psutil.cpu_count() or 1))
            # A round of moves: the root, the simulations, and one step after the other.
            round_seconds = NETWORK_SECONDS * (1 + SIMULATIONS) + STEP_SECONDS * ENVIRONMENTS
            samples.setdefault("sleeps", []).append(ENVIRONMENTS / round_seconds)
        running.workers.handles = handles
        yield from _rows(samples, effort)
        yield from _intake(running, preset, source, samples[f"play {max(effort.actors)}"], effort)


def _config(preset: Config, actors: int) -> Config:
    """Breakout's preset with its frames, its learner's batches and its weights, but where time passes in sleep."""
    latency = {"latency": STEP_SECONDS}
    config = changed(preset, "env", kind="gymnasium", id="benchmarks.slow_env:Slow-v0", kwargs=latency)
    limits = dict.fromkeys(("learner_steps", "log_steps", "checkpoint_steps"), NEVER)
    config = changed(config, "run", wandb="disabled", minutes=None, **limits)
    config = changed(config, "evaluation", interval_steps=NEVER)
    config = changed(config, "search", simulations=SIMULATIONS)
    config = changed(config, "replay", min_size=config.learner.batch_size, segment_length=20)
    share = 0.001  # of a CPU for each process: none of them computes
    config = changed(config, "learner", cpus=share)
    return changed(
        config, "actors", count=actors, envs_per_actor=ENVIRONMENTS, rollout_steps=ROLLOUT_STEPS, num_cpus=share
    )


def _level(running: RunningWorkers, config: Config, actors: int, seconds: float) -> dict[str, float]:
    """`actors` actors and the learner at full speed: neither waits for the other's budget."""
    run_state = RunState(config)
    run_state.limiter = RateLimiter(1.0, 0, config.learner.batch_size, slack=NEVER)
    run_state.limiter.inserts(PLENTY)
    players = [worker for worker in running.workers.of("self_play") if worker.index < actors]
    learner = running.workers.one("learner")
    busy: list[float] = []

    def watch() -> None:
        deadline = time.monotonic() + TIMEOUT
        while not (run_state.learner_steps and run_state.env_steps >= actors * ROLLOUT_STEPS):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{actors} actors did not get going in {TIMEOUT:.0f} s")
            time.sleep(0.1)
        psutil.cpu_percent()  # since here
        time.sleep(seconds)
        busy.append(psutil.cpu_percent() / 100)

    running.run(run_state, watch)
    rates = [_rate(log, seconds) for log in _logs(players)]
    (updates,) = _logs([learner])
    return {
        f"play {actors}": sum(rates),
        f"train {actors}": _rate([(at, 1) for at in updates], seconds),
        f"cpus {actors}": busy[0] * (psutil.cpu_count() or 1),
    }


def _logs(handles: list[WorkerHandle]) -> list[Any]:
    """What the stubs noted since the last look."""
    logs: list[Any] = ray.get([worker.actor.take_log.remote() for worker in handles], timeout=TIMEOUT)
    return logs


def _rate(ends: list[tuple[float, int]], seconds: float) -> float:
    """Work per second from the end of the first call to the end of the last, all pauses between calls included.

    Who was so starved that it ended fewer than two calls did that in `seconds`, or in more.
    """
    if len(ends) < 2:
        return sum(work for _, work in ends) / seconds
    return sum(work for _, work in ends[1:]) / (ends[-1][0] - ends[0][0])


def _rows(samples: Samples, effort: Effort) -> Iterator[Row]:
    """The fewest actors against their sleeps, all others against the fewest."""
    first, *others = effort.actors
    samples["sleeps play"] = [first * rate for rate in samples["sleeps"]]
    samples["sleeps train"] = [1.0 / UPDATE_SECONDS for _ in samples["sleeps"]]
    place, alone = f"coordination-first/{first}", "its sleeps alone"
    yield make_row(f"{place}/self-play", "steps/s", samples, f"play {first}", "sleeps play", alone)
    yield make_row(f"{place}/learner", "batches/s", samples, f"train {first}", "sleeps train", alone)
    yield make_row(f"{place}/cpus", "cores", samples, f"cpus {first}", "cores", "all cores")
    for actors in others:
        place, times = f"coordination/{actors}", actors / first
        samples["linear"] = [rate * times for rate in samples[f"play {first}"]]
        against = f"{times:g} x that of {first}"
        yield make_row(f"{place}/self-play", "steps/s", samples, f"play {actors}", "linear", against)
        against = f"with {first} actor(s)"
        yield make_row(f"{place}/learner", "batches/s", samples, f"train {actors}", f"train {first}", against)
        yield make_row(f"{place}/cpus", "cores", samples, f"cpus {actors}", "cores", "all cores")


def _intake(
    running: RunningWorkers, preset: Config, source: _Segments, played: list[float], effort: Effort
) -> Iterator[Row]:
    """Real Breakout segments into the program's replay, as fast as it acknowledges them, while its learner draws
    batches; against what the most actors of this program `played`, and in units of what a real one, with a core of its
    own, plays. They are packed before the clock starts: in the program each actor does that on its own core."""
    player = fresh_player(list(engines_for(preset).values())[-1], preset, probe(preset))
    learner = running.workers.one("learner").actor
    samples: Samples = {"taken": [], "played": [float(np.median(played))] * effort.repeats, "actors": []}
    play("", player, effort.seconds)
    for _ in range(effort.repeats):
        one = play("one", player, effort.seconds)["one"]
        segments = source.pack(INTAKE_SEGMENTS * max(effort.actors))
        training: ray.ObjectRef[Any] = learner.train.remote(NEVER, 1.0, INTAKE_SECONDS)
        samples["taken"].append(_push(running.workers.one("replay").actor, segments, max(effort.actors)))
        samples["actors"].append(samples["taken"][-1] / one)
        ray.get(training, timeout=TIMEOUT)
    player.close()
    against = f"what those {max(effort.actors)} play"
    yield make_row("coordination/replay-intake", "transitions/s", samples, "taken", "played", against)
    yield make_row("coordination/replay-intake-breakout", "actors", samples, "actors")


class _Segments:
    """Real segments, again and again, under ids of their own, packed as their actors send them."""

    def __init__(self, games: list[GameHistory]) -> None:
        self._games = cycle(games)
        self._ids = count()

    def pack(self, segments: int) -> list[tuple[int, bytes]]:
        """(transitions, what is sent) of each."""
        games = [replace(next(self._games), id=GameId(FOREIGN_ACTOR, 0, next(self._ids))) for _ in range(segments)]
        return [(game.owned, encode_game(game)) for game in games]


def _push(replay: ActorHandle[Any], segments: list[tuple[int, bytes]], pending: int) -> float:
    """Transitions/s that `replay` acknowledges, with `pending` segments on their way."""
    begin = time.monotonic()
    sent: deque[ray.ObjectRef[Any]] = deque()
    for _, packed in segments:
        if len(sent) == pending:
            _taken(sent.popleft())
        sent.append(replay.add.remote(packed))
    while sent:
        _taken(sent.popleft())
    return sum(owned for owned, _ in segments) / (time.monotonic() - begin)


def _taken(answer: ray.ObjectRef[Any]) -> None:
    if not ray.get(answer, timeout=TIMEOUT):
        raise RuntimeError("replay did not take a new segment")
