"""Reanalyze as a Ray actor: takes old games from replay, and sends it new targets for them."""

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
"""Seconds after which a call to replay fails, since replay counts as hung."""


class ReanalyzeWorker:
    """Ray's shell of `Reanalyzer`. replays: all shards of replay. params: the parameter server."""

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
        """The shard to ask next comes first."""
        self._weights = WeightsClient(params, "target", self._reanalyzer.set_weights)

    def reanalyze(self, transitions: int, seconds: float) -> int:
        """Search about `transitions` positions again, with the newest target weights. Returns how many it searched.

        It ends early when `seconds` have passed, or when no shard has a game left that older weights searched.
        """
        begin = time.monotonic()
        self._weights.fetch()
        done = fresh_shards = 0  # fresh_shards: how many in a row had no game for which to search again
        while done < transitions and fresh_shards < len(self._replays) and time.monotonic() - begin < seconds:
            replay, before = self._replays[0], done
            self._replays.rotate(-1)
            stale = ray.get(call(replay, ReplayWorker.stale_games, 1), timeout=REANALYZE_TIMEOUT)
            for fresh in self._reanalyzer.refresh(stale):
                ray.get(call(replay, ReplayWorker.replace_targets, *fresh), timeout=REANALYZE_TIMEOUT)
                done += len(fresh.root_values)
            fresh_shards = fresh_shards + 1 if done == before else 0
        return done
