"""Reanalyze behind Ray: stale games in, fresh targets back, by id."""

from __future__ import annotations

import time
from collections import deque

import ray
from ray.actor import ActorHandle

from muzero_ray.acting.reanalyzer import Reanalyzer
from muzero_ray.actors.calls import call
from muzero_ray.actors.parameter_server import ParameterServer
from muzero_ray.actors.process import hide_gpus, limit_threads
from muzero_ray.actors.replay import ReplayWorker
from muzero_ray.actors.weights_client import WeightsClient
from muzero_ray.config.schema import Config
from muzero_ray.envs.chance import seed_generators
from muzero_ray.envs.task_spec import TaskSpec

REANALYZE_TIMEOUT = 120.0
"""Seconds after which replay counts as hung."""


class ReanalyzeWorker:
    """Shell of `Reanalyzer`; holds the handles {replay shards, params}."""

    def __init__(
        self,
        config: Config,
        task: TaskSpec,
        replays: list[ActorHandle[ReplayWorker]],
        params: ActorHandle[ParameterServer],
    ) -> None:
        hide_gpus()
        limit_threads(config.actors.threads)
        seed_generators(config.run.seed, "reanalyze")
        self._reanalyzer = Reanalyzer(config, task)
        self._replays = deque(replays)
        """Whose turn it is, first."""
        self._weights = WeightsClient(params, "target", self._reanalyzer.set_weights)

    def reanalyze(self, transitions: int, seconds: float) -> int:
        """Refresh about `transitions` positions, or for `seconds`; returns how many were."""
        begin = time.monotonic()
        self._weights.fetch()
        done = fresh_shards = 0  # shards in a row that are all as fresh as these weights
        while done < transitions and fresh_shards < len(self._replays) and time.monotonic() - begin < seconds:
            replay, before = self._replays[0], done
            self._replays.rotate(-1)
            stale = ray.get(call(replay, ReplayWorker.stale_games, 1), timeout=REANALYZE_TIMEOUT)
            for fresh in self._reanalyzer.refresh(stale):
                ray.get(call(replay, ReplayWorker.replace_targets, *fresh), timeout=REANALYZE_TIMEOUT)
                done += len(fresh.root_values)
            fresh_shards = fresh_shards + 1 if done == before else 0
        return done
