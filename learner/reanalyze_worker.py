"""Reanalyze behind Ray: stale games in, fresh targets back, by id."""

from __future__ import annotations

import time

import ray
import torch
from ray.actor import ActorHandle

from muzero_ray.config import Config
from muzero_ray.runtime.build import TaskShape
from muzero_ray.runtime.reanalyzer import Reanalyzer
from muzero_ray.types import Weights, WeightsVersion

TIMEOUT = 120.0
"""Seconds after which replay or the parameter server counts as hung."""


class ReanalyzeWorker:
    """Shell of `Reanalyzer`; holds the handles {replay, params}."""

    def __init__(self, config: Config, shape: TaskShape, replay: ActorHandle, params: ActorHandle) -> None:
        torch.set_num_threads(config.actors.threads)
        self._reanalyzer = Reanalyzer(config, shape)
        self._replay = replay
        self._params = params
        self._version: WeightsVersion | None = None

    def reanalyze(self, transitions: int, seconds: float) -> int:
        """Refresh about `transitions` positions, or for `seconds`; returns how many were."""
        begin = time.monotonic()
        if refs := ray.get(self._params.latest.remote("target", self._version), timeout=TIMEOUT):
            weights: Weights = ray.get(refs[0], timeout=TIMEOUT)
            self._reanalyzer.set_weights(weights)
            self._version = weights.version
        if self._version is None:
            return 0
        done = 0
        while done < transitions and time.monotonic() - begin < seconds:
            before = done
            for fresh in self._reanalyzer.refresh(ray.get(self._replay.stale_games.remote(1), timeout=TIMEOUT)):
                ray.get(self._replay.replace_targets.remote(*fresh), timeout=TIMEOUT)
                done += len(fresh.root_values)
            if done == before:
                break  # everything is as fresh as these weights
        return done
