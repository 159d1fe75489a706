"""Self-play behind Ray: follows the weights, pushes finished segments, reports after each rollout."""

from __future__ import annotations

import os
from collections import deque

import ray
from ray.actor import ActorHandle

from actors.process import limit_threads
from actors.weights_client import TIMEOUT, WeightsClient
from muzero_ray.config import Config
from muzero_ray.replay.encoding import encode_game
from muzero_ray.runtime.build import TaskShape, build_self_play
from muzero_ray.runtime.self_play import PlayStats
from muzero_ray.types import GameHistory

NICER = 4
"""Than the other workers: where cores are shared, learner and replay go first, and self-play takes all that is left."""

MAX_PUSHES = 2
"""Unacknowledged segments an actor may have on their way to replay."""


class SelfPlayWorker:
    """Shell of `SelfPlay`; holds the handles {its shard of replay, params}."""

    def __init__(
        self, config: Config, shape: TaskShape, actor: int, incarnation: int, replay: ActorHandle, params: ActorHandle
    ) -> None:
        limit_threads(config.actors.threads)
        os.nice(NICER)
        self._self_play = build_self_play(config, shape, actor=actor, incarnation=incarnation)
        self._weights = WeightsClient(params, "online", self._self_play.prepare)
        self._replay = replay
        self._pushes: deque[ray.ObjectRef] = deque()

    def rollout(self, transitions: int, temperature: float, seconds: float) -> PlayStats:
        """Play `transitions`, or for `seconds`; every segment is acknowledged by replay before this returns."""
        stats = self._self_play.play(
            transitions,
            temperature=temperature,
            emit=self._push,
            seconds=seconds,
            newer=self._weights.poll,
        )
        self._settle(0)
        return stats

    def _push(self, game: GameHistory) -> None:
        """Send it packed: a hundredth of the bytes for screens, and what replay has to write to disk anyway."""
        self._settle(MAX_PUSHES - 1)
        self._pushes.append(self._replay.add.remote(encode_game(game)))

    def _settle(self, pending: int) -> None:
        """Wait until at most `pending` pushes are unacknowledged."""
        while len(self._pushes) > pending:
            ray.get(self._pushes.popleft(), timeout=TIMEOUT)
