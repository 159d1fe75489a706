"""How an actor follows the weights: it asks for newer ones at the start of every call."""

from __future__ import annotations

from collections.abc import Callable

import ray
from ray.actor import ActorHandle

from actors.parameter_server import WeightsName
from muzero_ray.types import Weights, WeightsVersion

TIMEOUT = 60.0
"""Seconds after which a cross-actor call counts as hung."""


class WeightsClient:
    """Pulls one name's weights from the parameter server into `apply`."""

    def __init__(self, params: ActorHandle, name: WeightsName, apply: Callable[[Weights], None]) -> None:
        self._params = params
        self._name = name
        self._apply = apply
        self._have: WeightsVersion | None = None

    def fetch(self) -> WeightsVersion:
        """Wait for the newest weights and apply them if they are new. Raises if none were ever published."""
        self._take(ray.get(self._params.latest.remote(self._name, self._have), timeout=TIMEOUT))
        if self._have is None:
            raise RuntimeError(f"no {self._name!r} weights were published yet: the learner must start first")
        return self._have

    def _take(self, refs: list[ray.ObjectRef]) -> None:
        if refs:
            weights: Weights = ray.get(refs[0], timeout=TIMEOUT)
            self._apply(weights)
            self._have = weights.version
