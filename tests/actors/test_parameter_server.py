"""Weights by name: the newest, of the newest learner; nobody gets nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import ray

from muzero_ray.actors.parameter_server import ParameterServer
from muzero_ray.types import Weights, WeightsVersion
from tests.patience import PATIENCE, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


async def publish(server: ParameterServer, incarnation: int, step: int, name: Any = "online") -> None:
    await server.publish({name: Weights(WeightsVersion(incarnation, step), np.full(3, step, np.float32))})


async def latest(server: ParameterServer, have: WeightsVersion | None, name: Any = "online") -> tuple[int, int] | None:
    refs = await server.latest(name, have)
    if not refs:
        return None
    weights: Weights = await refs[0]
    assert weights.flat.tolist() == [weights.version.step] * 3
    return tuple(weights.version)


def test_it_hands_out_what_is_newer_and_refuses_older_incarnations() -> None:
    async def scenario() -> None:
        server = ParameterServer()
        await publish(server, 0, 100)
        assert await latest(server, None) == (0, 100)
        assert await latest(server, WeightsVersion(0, 100)) is None
        await publish(server, 1, 60)  # restored from a checkpoint: back in steps, yet newer
        assert await latest(server, WeightsVersion(0, 100)) == (1, 60)
        await publish(server, 0, 101)  # a zombie
        assert await latest(server, None) == (1, 60)
        await publish(server, 1, 59)
        assert await latest(server, WeightsVersion(1, 60)) == (1, 59)
        await publish(server, 0, 5, "target")
        assert await latest(server, None, "target") == (0, 5)
        assert await latest(server, None) == (1, 59)

    asyncio.run(scenario())


def test_an_empty_one_makes_newcomers_wait_and_nobody_else() -> None:
    async def scenario() -> None:
        server = ParameterServer()
        assert await latest(server, WeightsVersion(0, 7)) is None
        newcomer = asyncio.create_task(latest(server, None))
        await asyncio.sleep(0)
        await publish(server, 0, 8, "target")
        await asyncio.sleep(0)
        assert not newcomer.done()
        await publish(server, 0, 8)
        assert await asyncio.wait_for(newcomer, PATIENCE) == (0, 8)

    asyncio.run(scenario())


def test_a_restarted_one_has_another_identity_and_gets_weights_again() -> None:
    server = ray.remote(ParameterServer).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    try:
        before = ray.get(server.identity.remote(), timeout=PATIENCE)
        weights = Weights(WeightsVersion(0, 3), np.ones(2, np.float32))
        ray.get(server.publish.remote({"online": weights}), timeout=PATIENCE)
        assert ray.get(server.identity.remote(), timeout=PATIENCE) == before
        ray.kill(server, no_restart=False)
        until(lambda: ray.get(server.identity.remote(), timeout=PATIENCE) != before)
        waiting = server.latest.remote("online", None)
        ray.get(server.publish.remote({"online": weights}), timeout=PATIENCE)
        assert len(ray.get(waiting, timeout=PATIENCE)) == 1
    finally:
        ray.kill(server)
