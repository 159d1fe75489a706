"""Reanalyze behind Ray: stale games in, fresh targets back, by id."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import ray
import torch
from ray.actor import ActorHandle

from muzero_ray.acting.reanalyzer import Reanalyzer
from muzero_ray.config.schema import Config
from muzero_ray.envs.chance import seed_generators
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.training.build import hide_gpus
from muzero_ray.types import Weights, WeightsVersion

REANALYZE_TIMEOUT = 120.0
"""Seconds after which replay or the parameter server counts as hung."""


class ReanalyzeWorker:
    """Shell of `Reanalyzer`; holds the handles {replay shards, params}."""

    def __init__(
        self, config: Config, task: TaskSpec, replays: list[ActorHandle[Any]], params: ActorHandle[Any]
    ) -> None:
        hide_gpus()
        torch.set_num_threads(config.actors.threads)
        seed_generators(config.run.seed, "reanalyze")
        self._reanalyzer = Reanalyzer(config, task)
        self._replays = deque(replays)
        """Whose turn it is, first."""
        self._params = params
        self._version: WeightsVersion | None = None

    def reanalyze(self, transitions: int, seconds: float) -> int:
        """Refresh about `transitions` positions, or for `seconds`; returns how many were."""
        begin = time.monotonic()
        refs: list[ray.ObjectRef[Any]] = ray.get(
            self._params.latest.remote("target", self._version), timeout=REANALYZE_TIMEOUT
        )
        if refs:
            weights: Weights = ray.get(refs[0], timeout=REANALYZE_TIMEOUT)
            self._reanalyzer.set_weights(weights)
            self._version = weights.version
        if self._version is None:
            return 0
        done = fresh_shards = 0  # shards in a row that are all as fresh as these weights
        while done < transitions and fresh_shards < len(self._replays) and time.monotonic() - begin < seconds:
            replay, before = self._replays[0], done
            self._replays.rotate(-1)
            for fresh in self._reanalyzer.refresh(ray.get(replay.stale_games.remote(1), timeout=REANALYZE_TIMEOUT)):
                ray.get(replay.replace_targets.remote(*fresh), timeout=REANALYZE_TIMEOUT)
                done += len(fresh.root_values)
            fresh_shards = fresh_shards + 1 if done == before else 0
        return done
