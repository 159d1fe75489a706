"""What the whole suite shares: one thread per process, and one private Ray cluster for all tests that need it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Read when torch is first imported, here and in the programs that tests start: results then do not depend on cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A private local cluster. One for the session: starting one takes longer than most tests."""
    import ray

    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=4,
        object_store_memory=200 * 1024 * 1024,
        log_to_driver=False,
    )
    yield
    ray.shutdown()
