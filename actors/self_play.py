"""Self-play behind Ray: follows the weights, pushes finished segments, reports after each rollout."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import replace
from pathlib import Path

import psutil
import ray
from ray.actor import ActorHandle

from muzero_ray.acting.build import build_self_play
from muzero_ray.acting.rollout_stats import RolloutStats
from muzero_ray.actors.calls import call
from muzero_ray.actors.parameter_server import ParameterServer
from muzero_ray.actors.process import crash_note, hide_gpus, limit_threads
from muzero_ray.actors.replay import ReplayWorker
from muzero_ray.actors.weights_client import ACTOR_TIMEOUT, WeightsClient
from muzero_ray.config.schema import Config
from muzero_ray.envs.chance import seed_generators
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.replay.encoding import encode_game
from muzero_ray.types import GameHistory

NICER = 4
"""Than the other workers: where cores are shared, learner and replay go first, and self-play takes all that is left."""

MAX_PUSHES = 2
"""Unacknowledged segments an actor may have on their way to replay."""


class SelfPlayWorker:
    """Shell of `SelfPlay`; holds the handles {its shard of replay, params}. note: where its calls are noted.

    tell_games: answers hold the segments, too, which replay has by then.
    """

    def __init__(
        self,
        config: Config,
        task: TaskSpec,
        actor: int,
        incarnation: int,
        replay: ActorHandle[ReplayWorker],
        params: ActorHandle[ParameterServer],
        note: Path,
        tell_games: bool = False,
    ) -> None:
        hide_gpus()
        limit_threads(config.actors.threads)
        os.nice(NICER)
        seed_generators(config.run.seed, "self_play", actor, incarnation)
        self._self_play = build_self_play(
            config, task, actor=actor, incarnation=incarnation, note=crash_note(note, config.env.id)
        )
        limit = config.actors.memory_limit
        self._most_memory = psutil.virtual_memory().total / 4 if limit is None else limit * 1e9
        self._weights = WeightsClient(params, "online", self._self_play.prepare)
        self._replay = replay
        self._pushes: deque[ray.ObjectRef[bool]] = deque()
        self._told: list[bytes] | None = [] if tell_games else None

    def rollout(self, transitions: int, temperature: float, seconds: float) -> RolloutStats:
        """Play `transitions`, or for `seconds`; every segment is acknowledged by replay before this returns."""
        if self._told:
            self._told.clear()  # of a call that failed, whose statistics are lost, too
        stats = self._self_play.play(
            transitions,
            temperature=temperature,
            emit=self._push,
            seconds=seconds,
            newer=self._weights.poll,
        )
        self._settle(0)
        return replace(stats, memory_exceeded=self._memory_exceeded(), games=tuple(self._told or ()))

    def _memory_exceeded(self) -> str | None:
        """Why this process holds too much, if it does. Its network and games in flight are of constant size."""
        memory = psutil.Process().memory_info()
        held = memory.rss - memory.shared
        if held <= self._most_memory:
            return None
        return (
            f"{self._self_play.where}: its process holds {held / 1e9:.1f} GB, above "
            f"{self._most_memory / 1e9:.1f} (actors.memory_limit)"
        )

    def _push(self, game: GameHistory) -> None:
        """Send it packed: a hundredth of the bytes for screens, and what replay has to write to disk anyway."""
        self._settle(MAX_PUSHES - 1)
        packed = encode_game(game)
        if self._told is not None:
            self._told.append(packed)
        self._pushes.append(call(self._replay, ReplayWorker.add, packed))

    def _settle(self, pending: int) -> None:
        """Wait until at most `pending` pushes are unacknowledged."""
        while len(self._pushes) > pending:
            ray.get(self._pushes.popleft(), timeout=ACTOR_TIMEOUT)
