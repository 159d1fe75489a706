"""Replay with real games: inserting, drawing batches, memory, at growing sizes; writing through, and coming back."""

from __future__ import annotations

import copy
import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from benchmarks.engines import fresh_weights
from benchmarks.measure import Effort, Row, Trial, make_row, milliseconds, take_turns
from benchmarks.replay_growth import replay_growth
from muzero_ray.acting.reanalyzer import Reanalyzer
from muzero_ray.acting.recorder import GameRecorder
from muzero_ray.config.files import load_preset
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.registry import make_environment
from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.replay.build import build_buffer
from muzero_ray.replay.frames import FrameCodec
from muzero_ray.runs.replay_archive import ReplayArchive
from muzero_ray.types import GameHistory, GameId, Weights, WeightsVersion

SEED = 0
BATCH = 256
SHORT_STEPS = 20
RESIDENT_FROM = 100_000
"""Below this many transitions the growth of the process says more about the allocator than about the replay."""


class Filled:
    """A full replay of `size` transitions: every insert now also evicts."""

    def __init__(self, config: Config, games: list[GameHistory], size: int) -> None:
        settings = {**config.to_dict()["replay"], "capacity": size, "min_size": min(size, config.replay.min_size)}
        settings["capacity_bytes"] = 1 << 40  # the number of transitions is the limit here
        config = Config.model_validate({**config.to_dict(), "replay": settings})
        task = probe(config)
        self._codec = FrameCodec(task.spec.observation_shape, task.spec.observation_dtype)
        self._source = endless(games)
        self._batch_size = config.learner.batch_size
        process = psutil.Process()
        before = process.memory_info().rss
        self.buffer = build_buffer(config, task)
        # The same games, for a learner that also needs the observation after each unrolled step (consistency loss).
        self.with_next = copy.copy(self.buffer)
        self.with_next._with_next = True
        fill(self.buffer, self._source, size)
        self.resident = process.memory_info().rss - before
        self.size = size

    def insert(self, seconds: float) -> tuple[float, float]:
        """(microseconds per transition of an insert, of packing the same frames and nothing else)."""
        inserting = packing = 0.0
        transitions = 0
        while inserting < seconds:
            game = next(self._source)
            begin = time.perf_counter()
            self.buffer.add(game)
            middle = time.perf_counter()
            self._codec.pack(game.observations)
            inserting += middle - begin
            packing += time.perf_counter() - middle
            transitions += game.owned
        return 1e6 * inserting / transitions, 1e6 * packing / transitions

    def trial(self, seconds: float) -> dict[str, float]:
        insert, pack = self.insert(seconds)
        sample = milliseconds(lambda: self.with_next.sample(BATCH, beta=1.0), seconds)
        return {
            f"insert {self.size}": insert,
            f"pack {self.size}": pack,
            f"sample {self.size}": sample,
            f"small {self.size}": milliseconds(lambda: self.buffer.sample(self._batch_size, beta=1.0), seconds),
            # One transition in for one out, as with samples_per_insert = 1.
            f"both {self.size}": 1e-3 * BATCH * insert + sample,
        }


def replay(effort: Effort) -> Iterator[Row]:
    """Breakout preset; each size against the limits named in its rows, and against the smallest size."""
    config = load_preset("breakout")
    games = record_games(config, effort.recorded, SEED)
    filled = [Filled(config, games, size) for size in effort.replay_sizes]
    trials: list[Trial] = [partial(one.trial, effort.seconds) for one in filled]
    batch_size = config.learner.batch_size
    frames = {
        "copy": filled[0].with_next.sample(BATCH, beta=1.0).frames,
        "small copy": filled[0].buffer.sample(batch_size, beta=1.0).frames,
    }
    # What no batch can be assembled faster than.
    trials.append(lambda: {name: milliseconds(array.copy, effort.seconds) for name, array in frames.items()})
    samples = take_turns(trials, effort.repeats)
    smallest, frame = effort.replay_sizes[0], games[0].observations[0].nbytes
    steps = config.learner.unroll_steps
    for one in filled:
        size, count = one.size, one.buffer.size
        key = f"{size}"
        samples["frame"], samples[f"bytes {key}"] = [float(frame)], [one.buffer.bytes / count]
        samples[f"resident {key}"] = [one.resident / count]
        yield make_row(
            f"replay/insert/{size}", "us/transition", samples, f"insert {key}", f"pack {key}", "its zstd alone"
        )
        name = f"replay/sample/{size}/{BATCH}x({steps}+1)"
        yield make_row(name, "ms", samples, f"sample {key}", "copy", "a copy of its frames")
        name = f"replay/sample/{size}/preset-{batch_size}"
        yield make_row(name, "ms", samples, f"small {key}", "small copy", "a copy of its frames")
        yield make_row(f"replay/bytes/{size}", "B/transition", samples, f"bytes {key}", "frame", "its frame, raw")
        if size >= RESIDENT_FROM:
            name = f"replay/resident/{size}"
            yield make_row(name, "B/transition", samples, f"resident {key}", f"bytes {key}", "bytes accounted for")
        if size != smallest:
            name, first = f"replay/insert+sample/{size}", f"both {smallest}"
            yield make_row(name, "ms", samples, f"both {key}", first, f"the same at {smallest}")
    del filled, trials
    yield from _short_games(effort)
    yield from _durable(config, games, effort)
    short = record_games(load_preset("cartpole"), 100, SEED)
    yield from replay_growth(min(short, key=lambda game: abs(game.owned - SHORT_STEPS)), effort)


def _short_games(effort: Effort) -> Iterator[Row]:
    """CartPole: games of some 20 steps and 16 bytes a frame, where finding them is the whole cost."""
    config = load_preset("cartpole")
    games = record_games(config, effort.recorded, SEED)
    sizes = (effort.replay_sizes[0], effort.replay_sizes[-1])
    samples = take_turns([partial(Filled(config, games, size).trial, effort.seconds) for size in sizes], effort.repeats)
    small, large = (f"both {size}" for size in sizes)
    name = f"replay/cartpole/insert+sample/{sizes[-1]}"
    yield make_row(name, "ms", samples, large, small, f"the same at {sizes[0]}")
    yield from _searched_again(config, games, sizes[-1], effort)


def _searched_again(config: Config, games: list[GameHistory], size: int, effort: Effort) -> Iterator[Row]:
    """Reanalyze at `size` transitions in short games, against a twentieth of them; per second of CPU time."""
    task = probe(config)
    flat = fresh_weights(config, task).flat
    reanalyzer = Reanalyzer(config, task)
    steps = itertools.count(1)

    def trial(one: Filled) -> dict[str, float]:
        reanalyzer.set_weights(Weights(WeightsVersion(0, next(steps)), flat))  # no game has been searched with these
        positions, begin = 0, time.process_time()
        while (spent := time.process_time() - begin) < effort.seconds:
            for fresh in reanalyzer.refresh(one.buffer.stale_games(1)):
                one.buffer.replace_targets(*fresh)
                positions += len(fresh.root_values)
        return {f"again {one.size}": positions / spent}

    fewer = max(size // 20, config.learner.batch_size)
    filled = [Filled(config, games, count) for count in (fewer, size)]
    samples = take_turns([partial(trial, one) for one in filled], effort.repeats)
    few, many = (one.buffer.games for one in filled)
    name, figure, against = f"replay/searched-again/{many}-games", f"again {size}", f"again {fewer}"
    yield make_row(name, "positions/CPU s", samples, figure, against, f"the same with {few}")


def _durable(config: Config, games: list[GameHistory], effort: Effort) -> Iterator[Row]:
    """Writing every game through to disk, and the time from the death of a replay process to the first batch."""
    task, count = probe(config), sum(game.owned for game in games)

    def trial() -> dict[str, float]:
        plain, buffer, recovered = (build_buffer(config, task) for _ in range(3))
        with tempfile.TemporaryDirectory() as folder:
            archive = ReplayArchive(Path(folder))
            begin = time.perf_counter()
            for game in games:
                plain.add(game)
            middle = time.perf_counter()
            for game in games:
                archive.add(buffer, game)
            end = time.perf_counter()
            disk = sum(path.stat().st_size for path in Path(folder).iterdir()) / count
            start = time.perf_counter()
            ReplayArchive(Path(folder)).recover(recovered)
            recovered.sample(config.learner.batch_size, beta=1.0)
            back = time.perf_counter() - start
        scale = 1e6 / count
        return {
            "through": scale * (end - middle),
            "memory": scale * (middle - begin),
            "recover": 1e5 * back / count,
            "disk": disk,
            "bytes": buffer.bytes / buffer.size,
        }

    samples = take_turns([trial], effort.repeats)
    yield make_row("replay/write-through", "us/transition", samples, "through", "memory", "in memory only")
    yield make_row("replay/recover", "s/100k", samples, "recover")
    yield make_row("replay/disk", "B/transition", samples, "disk", "bytes", "in memory")


def record_games(config: Config, transitions: int, seed: int) -> list[GameHistory]:
    """Segments of whole games played at random, at least `transitions` owned in all; search results are drawn, too."""
    environment = make_environment(config.env, evaluation=True)
    rng = np.random.default_rng(seed)
    spec = environment.spec
    recorder = GameRecorder(
        segment_length=config.replay.segment_length,
        overlap=config.learner.unroll_steps + config.learner.td_steps,
        frame_stack=config.env.frame_stack,
    )
    games: list[GameHistory] = []
    owned, over = 0, True
    while owned < transitions:
        if over:
            frame = environment.reset(int(rng.integers(2**31)))
            recorder.start(frame, environment.to_play(), environment.legal_actions())
        action = int(rng.integers(spec.num_actions))
        step = environment.step(action)
        over = step.terminated or step.truncated
        recorder.record(
            action=action,
            reward=step.reward,
            policy=rng.dirichlet(np.ones(spec.num_actions)).astype(np.float32),
            root_value=float(rng.normal()),
            version=WeightsVersion(0, 0),
            frame=step.observation,
            to_play=environment.to_play(),
            legal=np.zeros(spec.num_actions, np.bool_) if step.terminated else environment.legal_actions(),
        )
        if over or recorder.segment_ready():
            game_id = GameId(0, 0, len(games))
            end = {"terminated": step.terminated, "truncated": step.truncated}
            games.append(recorder.finish(game_id, last_value=0.0, **end) if over else recorder.cut(game_id))
            owned += games[-1].owned
    environment.close()
    return games


def endless(games: list[GameHistory]) -> Iterator[GameHistory]:
    """The same games again and again under new ids: a million real transitions would take half an hour to play."""
    return (replace(game, id=GameId(0, 0, seq)) for seq, game in enumerate(itertools.cycle(games)))


def fill(buffer: ReplayBuffer, games: Iterator[GameHistory], transitions: int) -> None:
    """Insert `transitions`, by whole games."""
    inserted = 0
    while inserted < transitions:
        game = next(games)
        buffer.add(game)
        inserted += game.owned
