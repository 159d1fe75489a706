"""What every process of the learner does: draws its part of each batch ahead, trains on it, returns priorities."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import ray
from ray.actor import ActorHandle
from torch.distributed import Store  # type: ignore[attr-defined]

from muzero_ray.actors.calls import call
from muzero_ray.actors.process import hide_gpus, limit_threads
from muzero_ray.actors.replay import ReplayWorker
from muzero_ray.config.schema import Config
from muzero_ray.control.train_tally import TrainTally
from muzero_ray.envs.chance import seed_generators
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import PeerLost
from muzero_ray.replay.buffer import Draw
from muzero_ray.replay.shards import Part, merge, part_of, plan, split
from muzero_ray.training.build import build_learner, resolve_device
from muzero_ray.training.data_parallel import DataParallelGroup, find, listen_at
from muzero_ray.training.results import LearnerState
from muzero_ray.types import FloatArray, ItemKeys

LEARNER_TIMEOUT = 120.0
"""Seconds after which replay or the parameter server counts as hung."""

RANK_TIMEOUT = LEARNER_TIMEOUT + 30.0
"""The same for another rank, which may itself be waiting for one of those."""

Result = TypeVar("Result")

PREFETCH = 2
"""Batches on their way while one is trained on."""


def may_use_no_gpu(config: Config) -> bool:
    """Whether a GPU that a rank sees may be another's: another rank's, or on a cluster that of another program.

    A single one on a private Ray needs no reservation: the machine is the run's.
    """
    return config.learner.gpus == 0 and (config.learner.workers > 1 or config.run.address is not None)


class LearnerRank:
    """A `Learner` and the handles of {replay shards}: alone, or number `rank` of `learner.workers` ranks.

    Ranks that train together first `_join`.
    """

    def __init__(
        self, config: Config, task: TaskSpec, incarnation: int, replays: list[ActorHandle[ReplayWorker]], rank: int = 0
    ) -> None:
        limit_threads(config.learner.threads)
        if may_use_no_gpu(config):
            hide_gpus()
        seed_generators(config.run.seed, "learner", rank, incarnation)
        self._config = config
        self._task = task
        self._rank = rank
        self._part_size = config.learner.batch_size // config.learner.workers
        self._replays = replays
        self._masses: list[float] = []
        """The masses of the shards, as last reported."""
        self._rng = np.random.default_rng([config.run.seed, 2_000_001 + rank, incarnation])
        self._group: DataParallelGroup | None = None
        if config.learner.workers == 1:
            self._learner = build_learner(config, task)

    def _join(self, store: Store) -> None:
        """Become one of the ranks that meet at `store`; returns when all are there, with equal weights."""
        listen_at(ray.util.get_node_ip_address())
        settings = self._config.learner
        device = resolve_device(settings.device)
        self._group = DataParallelGroup(store, self._rank, settings.workers, device=device, timeout=RANK_TIMEOUT)
        self._learner = build_learner(self._config, self._task, self._group)
        self._group.check_equal("the first weights", self._learner.fingerprint())

    def _train(self, steps: int, beta: float, seconds: float, meanwhile: Callable[[], object]) -> TrainTally:
        """Up to `steps` learner steps, or as many as start within `seconds`. meanwhile: done before each.

        In a group, all ranks end with the same update: also if one of them gets no answer from replay. That one raises
        it, the others return, and the next call finds them in step.
        """
        begin = time.monotonic()
        tally = TrainTally()
        updates: deque[list[ray.ObjectRef[float]]] = deque()
        batches = deque(self._sample(beta) for _ in range(min(PREFETCH, steps)))
        asked = len(batches)
        while batches:
            draw: Draw | None = None
            trouble: Exception | None = None
            try:
                if len(updates) > PREFETCH:
                    self._masses = self._ask(updates.popleft())
                meanwhile()
                draw = self._receive(*batches.popleft(), beta)
            except Exception as error:
                trouble = error
            over = asked >= steps or time.monotonic() - begin >= seconds
            smallest = draw.min_probability if draw is not None else math.inf
            smallest, over, stop = self._agree(smallest, over, trouble is not None)
            if trouble is not None:
                raise trouble
            if stop or draw is None:
                return tally
            if not over:
                batches.append(self._sample(beta))
                asked += 1
            batch = part_of(draw, smallest, beta) if draw.min_probability > smallest else draw.batch
            result = self._learner.train_step(batch)
            tally.add(result)
            updates.append(self._report(batch.keys, result.priorities))
        if self._group is not None:
            self._group.check_equal(f"weights of step {self._learner.step}", self._learner.fingerprint())
        while updates:
            self._masses = self._ask(updates.popleft())
        return tally

    def _agree(self, min_probability: float, over: bool, stop: bool) -> tuple[float, bool, bool]:
        """The smallest `min_probability` of all ranks, and whether any is `over`, or must `stop`."""
        if self._group is None:
            return min_probability, over, stop
        minus_probability, any_over, any_stop = self._group.largest(-min_probability, over, stop)
        return -minus_probability, bool(any_over), bool(any_stop)

    def _sample(self, beta: float) -> tuple[list[Part], list[ray.ObjectRef[Draw]]]:
        """Have every shard draw its share of this rank's part of a batch."""
        parts = plan(self._masses, self._part_size, self._rng)
        return parts, [call(self._replays[part.shard], ReplayWorker.draw, part.size, beta) for part in parts]

    def _receive(self, parts: list[Part], draws: list[ray.ObjectRef[Draw]], beta: float) -> Draw:
        return merge(parts, self._ask(draws), beta, len(self._replays))

    def _report(self, keys: ItemKeys, priorities: FloatArray) -> list[ray.ObjectRef[float]]:
        """New priorities, each to its shard; they answer with their masses, also those that it does not concern."""
        told = zip(self._replays, split(keys, priorities, len(self._replays)), strict=True)
        return [call(replay, ReplayWorker.update_priorities, *theirs) for replay, theirs in told]

    @staticmethod
    def _ask(refs: list[ray.ObjectRef[Result]]) -> list[Result]:
        answers: list[Result] = ray.get(refs, timeout=LEARNER_TIMEOUT)
        return answers

    def _load(self, state: LearnerState) -> None:
        self._learner.load_state(*state)
        if self._group is not None:
            self._group.check_equal("the restored weights", self._learner.fingerprint())


class LearnerPeer(LearnerRank):
    """A rank beside the first, which makes it, tells it what to do, and takes it along when it dies."""

    def join(self, host: str, port: int) -> None:
        """Meet the other ranks where rank 0 serves."""
        self._join(find(host, port, RANK_TIMEOUT))

    def train(self, steps: int, beta: float, seconds: float, masses: list[float]) -> None:
        """This rank's part of rank 0's call of the same name. masses: of the replay shards."""
        self._masses = masses
        try:
            self._train(steps, beta, seconds, lambda: None)
        except PeerLost:
            os._exit(1)  # its connections close, so that the other ranks need not wait until they give up

    def load(self, state: LearnerState) -> None:
        self._load(state)
