"""Where weights are published: it answers with the newest, by name."""

from __future__ import annotations

import asyncio
from typing import Literal

import ray

from muzero_ray.actors.process import Service
from muzero_ray.types import Weights, WeightsVersion

WeightsName = Literal["online", "target"]
"""`online`: what the learner trains; `target`: its moving average, for reanalyze."""


class ParameterServer(Service):
    """Holds one `Weights` per name. Objects die with the process that put them, so it puts what it hands out.

    Ray restarts it, empty, under the same handle; `identity` tells. A caller without weights waits in `latest`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._latest: dict[WeightsName, tuple[WeightsVersion, ray.ObjectRef[Weights]]] = {}
        self._published = {name: asyncio.Event() for name in ("online", "target")}

    async def publish(self, newest: dict[WeightsName, Weights]) -> None:
        """Replace those named; weights of an older learner incarnation are ignored (a zombie's)."""
        for name, weights in newest.items():
            held = self._latest.get(name)
            if held is None or weights.version.incarnation >= held[0].incarnation:
                self._latest[name] = (weights.version, ray.put(weights))
                self._published[name].set()

    async def latest(self, name: WeightsName, have: WeightsVersion | None) -> list[ray.ObjectRef[Weights]]:
        """`[ref]` of the newest weights, or `[]` if `have` is as new. With `have=None` it waits for the first.

        A list, because a bare ref would be resolved and its content copied through this process.
        """
        if have is None:
            await self._published[name].wait()
        held = self._latest.get(name)
        return [] if held is None or held[0] == have else [held[1]]
