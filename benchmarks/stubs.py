"""The real self-play and learner shells around a network that sleeps: all that is left is coordination."""

from __future__ import annotations

import time
from typing import Any, Literal
from unittest import mock

import numpy as np

from muzero_ray.acting import build
from muzero_ray.acting.rollout_stats import RolloutStats
from muzero_ray.actors.self_play import SelfPlayWorker
from muzero_ray.inference.host_latents import HostLatents
from muzero_ray.learner.learner import LearnerWorker
from muzero_ray.training.build import build_learner
from muzero_ray.training.learner import Learner
from muzero_ray.training.results import TrainResult
from muzero_ray.types import Array, Batch, FloatArray, IntArray, NetworkOutput

NETWORK_SECONDS = 0.04
"""How long each call of the network that acts takes."""

UPDATE_SECONDS = 0.1
"""How long each update of the learner takes."""


class SleepingEngine(HostLatents):
    """See InferenceEngine: fixed time, no CPU, an answer that prefers nothing."""

    precision: Literal["float32", "bf16"] = "float32"

    def __init__(self, actions: int) -> None:
        super().__init__()
        self._actions = actions

    def initial(self, observations: Array) -> NetworkOutput:
        return self._answer(len(observations))

    def recurrent(self, hidden: Array, _actions: IntArray, out: NetworkOutput) -> None:
        for array, answer in zip(out, self._answer(len(hidden)), strict=True):
            array[...] = answer

    def _answer(self, rows: int) -> NetworkOutput:
        time.sleep(NETWORK_SECONDS)
        zeros: FloatArray = np.zeros(rows, np.float32)
        return NetworkOutput(zeros[:, None], zeros, zeros, np.zeros((rows, self._actions), np.float32))

    def prepare(self, flat: FloatArray) -> FloatArray:
        return flat.copy()

    def adopt(self, prepared: FloatArray) -> None:
        """There is nothing to serve from them."""

    def load(self, flat: FloatArray) -> None:
        self.adopt(self.prepare(flat))


class SleepingSelfPlay(SelfPlayWorker):
    """The shell, its environments, recorders and search as they are. It notes when each rollout ended."""

    def __init__(self, config: Any, task: Any, *arguments: Any, **options: Any) -> None:
        engine = SleepingEngine(task.spec.num_actions)
        with mock.patch.object(build, "build_engine", return_value=engine):
            super().__init__(config, task, *arguments, **options)
        self._ended: list[tuple[float, int]] = []

    def rollout(self, *arguments: Any, **options: Any) -> RolloutStats:
        stats = super().rollout(*arguments, **options)
        self._ended.append((time.monotonic(), stats.transitions))
        return stats

    def take_log(self) -> list[tuple[float, int]]:
        """(monotonic time of its end, transitions) of each rollout since the last look."""
        log, self._ended = self._ended, []
        return log


class SleepingLearner(LearnerWorker):
    """The shell, its sampling and publishing as they are, and a learner whose updates sleep. It notes their times."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._ended: list[float] = []
        make = build_learner

        def make_sleeping(*settings: Any, **more: Any) -> Learner:
            made = make(*settings, **more)

            def train_step(batch: Batch) -> TrainResult:
                time.sleep(UPDATE_SECONDS)
                made.step += 1
                self._ended.append(time.monotonic())
                return TrainResult({}, np.ones(len(batch.actions), np.float32), skipped=False)

            made.train_step = train_step  # type: ignore[method-assign]
            return made

        with mock.patch("muzero_ray.learner.rank.build_learner", make_sleeping):
            super().__init__(*arguments, **options)

    def take_log(self) -> list[float]:
        """Monotonic times of the ends of its updates since the last look."""
        log, self._ended = self._ended, []
        return log
