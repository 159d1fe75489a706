"""When the client looks, what it hands out, and that polling never waits but for the first weights. No Ray needed."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from muzero_ray.actors import weights_client
from muzero_ray.actors.weights_client import INTERVAL, SHARE, WeightsClient
from muzero_ray.types import Weights, WeightsVersion
from tests.patience import PATIENCE


class Server:
    """Stands for the parameter server's handle and for `ray.get`: a reference is the object itself."""

    def __init__(self) -> None:
        self.newest: Weights | None = None
        self.latest = self
        self.looks = 0

    def publish(self, step: int) -> None:
        self.newest = Weights(WeightsVersion(0, step), np.zeros(1, np.float32))

    def remote(self, name: str, have: WeightsVersion | None) -> list[Weights]:
        assert name == "online"
        self.looks += 1
        return [] if self.newest is None or self.newest.version == have else [self.newest]


class Bench:
    """A client under test. `allow` lets a background `prepare` go on; `now` is its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = Server()
        self.allow = threading.Event()
        self.allow.set()
        self.failure: Exception | None = None
        self.now = 1000.0
        self.cpu = 0.0
        self.cost = 0.0
        monkeypatch.setattr(weights_client.ray, "get", lambda ref, timeout: ref)  # noqa: ARG005
        monkeypatch.setattr(weights_client.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(weights_client.time, "thread_time", lambda: self.cpu)
        self.client: WeightsClient[int] = WeightsClient(self.server, "online", self._prepare)

    def _prepare(self, weights: Weights) -> int:
        assert self.allow.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure
        self.cpu += self.cost
        return weights.version.step

    def ready(self) -> int | None:
        """What the poll after the end of the background job returns."""
        job = self.client._job
        assert job is not None
        job.exception(timeout=PATIENCE)
        return self.client.poll()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(monkeypatch)
    yield made
    made.allow.set()


def test_fetch_waits_and_reports_each_version_once(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="published yet"):
        bench.client.fetch()
    bench.server.publish(1)
    assert bench.client.fetch() == 1
    assert bench.client.fetch() is None
    assert bench.client.version == (0, 1)
    bench.server.publish(2)
    assert bench.client.fetch() == 2


def test_poll_waits_for_the_first_weights_only(bench: Bench) -> None:
    bench.server.publish(1)
    assert bench.client.poll() == 1
    bench.server.publish(2)
    bench.allow.clear()
    assert [bench.client.poll() for _ in range(3)] == [None] * 3  # one job, still at it
    bench.allow.set()
    assert bench.ready() == 2
    assert bench.server.looks == 2
    assert bench.client.version == (0, 2)


@pytest.mark.parametrize("cost", [0.0, 0.5])
def test_looks_are_as_far_apart_as_their_cost_demands(bench: Bench, cost: float) -> None:
    bench.cost = cost
    bench.server.publish(1)
    bench.client.poll()
    bench.server.publish(2)
    bench.client.poll()
    assert bench.ready() == 2
    pause = max(INTERVAL, cost / SHARE)
    bench.server.publish(3)
    for passed, looks in ((0.0, 2), (0.99, 2), (1.01, 3)):
        bench.now = 1000.0 + passed * pause
        bench.client.poll()
        assert bench.server.looks == looks or _settled(bench, looks)
    assert bench.ready() == 3


def _settled(bench: Bench, looks: int) -> bool:
    """The background may not have begun yet."""
    job: Any = bench.client._job
    if job is not None:
        job.exception(timeout=PATIENCE)
    return bench.server.looks == looks


def test_a_failure_in_the_background_is_raised_and_the_next_look_is_a_new_one(bench: Bench) -> None:
    bench.server.publish(1)
    bench.client.poll()
    bench.server.publish(2)
    bench.failure = ValueError("broken weights")
    bench.client.poll()
    with pytest.raises(ValueError, match="broken weights"):
        bench.ready()
    assert bench.client.version == (0, 1)
    bench.failure = None
    bench.now += INTERVAL
    bench.client.poll()
    assert bench.ready() == 2
