"""How an actor follows the weights: it asks for newer ones when a call starts, or in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import ray
from ray.actor import ActorHandle

from muzero_ray.actors.calls import call
from muzero_ray.actors.parameter_server import ParameterServer, WeightsName
from muzero_ray.types import Weights, WeightsVersion

ACTOR_TIMEOUT = 60.0
"""Seconds after which a cross-actor call counts as hung."""

INTERVAL = 1.0
"""Seconds between two looks at the parameter server: the learner publishes once in this time."""

SHARE = 0.015
"""Share of an actor's time its thread may spend preparing weights: what takes 0.15 s is looked for every 10 s.

The threads of a compiler that it starts come on top: 2 % in all, measured with OpenVINO."""

Prepared = TypeVar("Prepared")


class WeightsClient(Generic[Prepared]):
    """Pulls one name's weights from the parameter server and hands out what `prepare` makes of them."""

    def __init__(
        self,
        params: ActorHandle[ParameterServer],
        name: WeightsName,
        prepare: Callable[[Weights], Prepared],
    ) -> None:
        self._params = params
        self._name = name
        self._prepare = prepare
        self._cost = 0.0
        self._look_at = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="weights")
        self._job: Future[Prepared | None] | None = None
        self.version: WeightsVersion | None = None
        """The version of the newest weights that were prepared."""

    def fetch(self) -> Prepared | None:
        """Wait for the newest weights; None if they are known already. Raises if none were ever published."""
        refs = ray.get(call(self._params, ParameterServer.latest, self._name, self.version), timeout=ACTOR_TIMEOUT)
        if not refs:
            if self.version is None:
                raise RuntimeError(f"no {self._name!r} weights were published yet: the learner must start first")
            return None
        weights = ray.get(refs[0], timeout=ACTOR_TIMEOUT)
        begin = time.thread_time()
        prepared = self._prepare(weights)
        self._cost = time.thread_time() - begin
        self.version = weights.version
        return prepared

    def poll(self) -> Prepared | None:
        """Newer weights if the background has some ready. Only the first ones are waited for."""
        if self.version is None:
            return self.fetch()
        if self._job is None:
            if time.monotonic() >= self._look_at:
                self._job = self._pool.submit(self.fetch)
            return None
        if not self._job.done():
            return None
        job, self._job = self._job, None
        self._look_at = time.monotonic() + max(INTERVAL, self._cost / SHARE)
        return job.result()
