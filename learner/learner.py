"""The learner behind Ray: prefetches batches, trains, returns priorities, publishes weights."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
import ray
import torch
from ray.actor import ActorHandle

from muzero_ray.config import Config
from muzero_ray.replay.shards import Part, merge, plan, split
from muzero_ray.runtime.build import TaskShape, build_learner
from muzero_ray.runtime.run_book import TrainStats, TrainTally
from muzero_ray.runtime.run_output import LearnerState
from muzero_ray.types import Batch, FloatArray, ItemKeys, Weights, WeightsVersion

TIMEOUT = 120.0
"""Seconds after which replay or the parameter server counts as hung."""

PREFETCH = 2
"""Batches on their way while one is trained on."""

PUBLISH_SECONDS = 1.0
"""At most one publication per this time within a call; one more ends it."""


class LearnerWorker:
    """Shell of `Learner`; holds the handles {replay shards, params}. incarnation: grows with every re-creation."""

    def __init__(
        self, config: Config, shape: TaskShape, incarnation: int, replays: list[ActorHandle], params: ActorHandle
    ) -> None:
        torch.set_num_threads(config.actors.learner_threads)
        self._learner = build_learner(config, shape)
        self._batch_size = config.learner.batch_size
        self._publish_target = config.reanalyze.share > 0
        self._incarnation = incarnation
        self._replays = replays
        self._masses: list[float] = []
        """Of the shards, as last reported."""
        self._rng = np.random.default_rng([config.run.seed, 2_000_001, incarnation])
        self._params = params

    def train(self, steps: int, beta: float, seconds: float) -> TrainStats:
        """Up to `steps` updates, or as many as start within `seconds`; then the weights are published."""
        begin = published = time.monotonic()
        tally = TrainTally()
        updates: deque[list[ray.ObjectRef]] = deque()
        self._masses = self._masses or self._ask([replay.mass.remote() for replay in self._replays])
        batches = deque(self._sample(beta) for _ in range(min(PREFETCH, steps)))
        asked = len(batches)
        while batches:
            batch = self._receive(*batches.popleft(), beta)
            if asked < steps and time.monotonic() - begin < seconds:
                batches.append(self._sample(beta))
                asked += 1
            result = self._learner.train_step(batch)
            tally.add(result)
            updates.append(self._report(batch.keys, result.priorities))
            if len(updates) > PREFETCH:
                self._masses = self._ask(updates.popleft())
            if time.monotonic() - published > PUBLISH_SECONDS:
                self.publish()
                published = time.monotonic()
        while updates:
            self._masses = self._ask(updates.popleft())
        self.publish()
        return tally.stats(self._learner.step)

    def _sample(self, beta: float) -> tuple[list[Part], list[ray.ObjectRef]]:
        """Have every shard draw its part of a batch."""
        parts = plan(self._masses, self._batch_size, self._rng)
        return parts, [self._replays[part.shard].draw.remote(part.size, beta) for part in parts]

    def _receive(self, parts: list[Part], draws: list[ray.ObjectRef], beta: float) -> Batch:
        return merge(parts, self._ask(draws), beta, len(self._replays))

    def _report(self, keys: ItemKeys, priorities: FloatArray) -> list[ray.ObjectRef]:
        """New priorities, each to its shard; they answer with their masses, also those that it does not concern."""
        told = zip(self._replays, split(keys, priorities, len(self._replays)), strict=True)
        return [replay.update_priorities.remote(*theirs) for replay, theirs in told]

    @staticmethod
    def _ask(refs: list[ray.ObjectRef]) -> list[Any]:
        answers: list[Any] = ray.get(refs, timeout=TIMEOUT)
        return answers

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
