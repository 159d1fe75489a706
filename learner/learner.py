"""The learner behind Ray: prefetches batches, trains, returns priorities, publishes weights."""

from __future__ import annotations

import time
from collections import deque

import ray
import torch
from ray.actor import ActorHandle

from muzero_ray.config import Config
from muzero_ray.runtime.build import TaskShape, build_learner
from muzero_ray.runtime.run_book import TrainStats, TrainTally
from muzero_ray.runtime.run_output import LearnerState
from muzero_ray.types import Weights, WeightsVersion

TIMEOUT = 120.0
"""Seconds after which replay or the parameter server counts as hung."""

PREFETCH = 2
"""Batches on their way while one is trained on."""

PUBLISH_SECONDS = 1.0
"""At most one publication per this time within a call; one more ends it."""


class LearnerWorker:
    """Shell of `Learner`; holds the handles {replay, params}. incarnation: grows with every re-creation."""

    def __init__(
        self, config: Config, shape: TaskShape, incarnation: int, replay: ActorHandle, params: ActorHandle
    ) -> None:
        torch.set_num_threads(config.actors.learner_threads)
        self._learner = build_learner(config, shape)
        self._batch_size = config.learner.batch_size
        self._publish_target = config.reanalyze.share > 0
        self._incarnation = incarnation
        self._replay = replay
        self._params = params

    def train(self, steps: int, beta: float, seconds: float) -> TrainStats:
        """Up to `steps` updates, or as many as start within `seconds`; then the weights are published."""
        begin = published = time.monotonic()
        tally = TrainTally()
        updates: deque[ray.ObjectRef] = deque()
        batches = deque(self._sample(beta) for _ in range(min(PREFETCH, steps)))
        asked = len(batches)
        while batches:
            batch = ray.get(batches.popleft(), timeout=TIMEOUT)
            if asked < steps and time.monotonic() - begin < seconds:
                batches.append(self._sample(beta))
                asked += 1
            result = self._learner.train_step(batch)
            tally.add(result)
            updates.append(self._replay.update_priorities.remote(batch.keys, result.priorities))
            if len(updates) > PREFETCH:
                ray.get(updates.popleft(), timeout=TIMEOUT)
            if time.monotonic() - published > PUBLISH_SECONDS:
                self.publish()
                published = time.monotonic()
        ray.get(list(updates), timeout=TIMEOUT)
        self.publish()
        return tally.stats(self._learner.step)

    def _sample(self, beta: float) -> ray.ObjectRef:
        return self._replay.sample.remote(self._batch_size, beta)

    def publish(self) -> int:
        """Hand the current weights to the parameter server; returns the learner step when it has them."""
        version = WeightsVersion(self._incarnation, self._learner.step)
        sent = [self._params.publish.remote("online", Weights(version, self._learner.weights()))]
        if self._publish_target:
            sent.append(self._params.publish.remote("target", Weights(version, self._learner.target_weights())))
        ray.get(sent, timeout=TIMEOUT)
        return self._learner.step

    def save(self) -> LearnerState:
        """Everything a checkpoint holds of the learner."""
        return self._learner.state()

    def load(self, state: LearnerState) -> int:
        """Go on from `state`, and publish it; returns its learner step."""
        self._learner.load_state(*state)
        return self.publish()
