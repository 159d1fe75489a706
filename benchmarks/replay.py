"""Replay with real Breakout frames: inserting, drawing whole batches, and memory, at growing sizes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import psutil

from benchmarks.measure import Effort, Row, Trial, make_row, milliseconds, take_turns
from muzero_ray.config import Config
from muzero_ray.config_file import load_preset
from muzero_ray.envs.registry import make_environment
from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.replay.frames import FrameCodec
from muzero_ray.runtime.build import build_buffer, probe
from muzero_ray.runtime.recorder import GameRecorder
from muzero_ray.types import Batch, GameHistory, GameId, WeightsVersion

SEED = 0
BATCH = 256
RESIDENT_FROM = 100_000
"""Below this many transitions the growth of the process says more about the allocator than about the replay."""


class Filled:
    """A full replay of `size` transitions: every insert now also evicts."""

    def __init__(self, config: Config, games: list[GameHistory], size: int) -> None:
        settings = {**config.to_dict()["replay"], "capacity": size, "min_size": min(size, config.replay.min_size)}
        settings["capacity_bytes"] = 1 << 40  # the number of transitions is the limit here
        config = Config.model_validate({**config.to_dict(), "replay": settings})
        shape = probe(config)
        self._codec = FrameCodec(shape.spec.observation_shape, shape.spec.observation_dtype)
        self._source = endless(games)
        process = psutil.Process()
        before = process.memory_info().rss
        self.buffer = build_buffer(config, shape)
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
        sample = milliseconds(lambda: self.buffer.sample(BATCH, beta=1.0), seconds)
        return {
            f"insert {self.size}": insert,
            f"pack {self.size}": pack,
            f"sample {self.size}": sample,
            # One transition in for one out, as with samples_per_insert = 1.
            f"both {self.size}": 1e-3 * BATCH * insert + sample,
        }


def replay(effort: Effort) -> Iterator[Row]:
    """Breakout preset; each size against the limits named in its rows, and against the smallest size."""
    config = load_preset("breakout")
    games = record_games(config, effort.recorded, SEED)
    filled = [Filled(config, games, size) for size in effort.replay_sizes]
    batch = filled[0].buffer.sample(BATCH, beta=1.0)
    trials: list[Trial] = [partial(one.trial, effort.seconds) for one in filled]
    trials.append(lambda: {"copy": milliseconds(lambda: _copy(batch), effort.seconds)})
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
        yield make_row(name, "ms", samples, f"sample {key}", "copy", "a copy of the batch")
        yield make_row(f"replay/bytes/{size}", "B/transition", samples, f"bytes {key}", "frame", "its frame, raw")
        if size >= RESIDENT_FROM:
            name = f"replay/resident/{size}"
            yield make_row(name, "B/transition", samples, f"resident {key}", f"bytes {key}", "bytes accounted for")
        if size != smallest:
            name, first = f"replay/insert+sample/{size}", f"both {smallest}"
            yield make_row(name, "ms", samples, f"both {key}", first, f"the same at {smallest}")


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
    while buffer.total_inserted < transitions:
        buffer.add(next(games))


def _copy(batch: Batch) -> None:
    """Read and write the observations once: what no batch can be assembled faster than."""
    assert batch.next_observations is not None
    batch.observations.copy()
    batch.next_observations.copy()
