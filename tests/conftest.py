"""What the whole suite shares: one thread per process, and one private Ray cluster for all tests that need it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from chaos.hangups import hear_hangups
from muzero_ray.stop_signals import STOP_SIGNALS

# Read when torch is first imported, here and in the programs that tests start: results then do not depend on cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray gives a worker 60 s to start, and a question to its control process as long; a busy machine needs more. A process
# that cannot reach its control process for 60 s ends at once, without a word: the tests would end with it.
os.environ.update(
    {
        "RAY_worker_register_timeout_seconds": "600",
        "RAY_gcs_server_request_timeout_seconds": "600",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        # Ray would start four processes that no test uses, for each cluster.
        "RAY_prestart_worker_first_driver": "0",
    }
)

hear_hangups()

FACTOR = "TEST_TIMEOUT_FACTOR"
"""An environment variable: how many times as long as usual a test may take, for machines with much else to do."""

RAY_STARTS = 5
"""Ray gives its own start 30 s, which cannot be set."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Limits of `--timeout` and of single tests, times the factor."""
    factor = float(os.environ.get(FACTOR, "1"))
    for item in items:
        marker = item.get_closest_marker("timeout")
        limit = marker.args[0] if marker else config.getoption("timeout")
        if factor != 1 and limit:
            item.add_marker(pytest.mark.timeout(factor * limit), append=False)


@pytest.fixture(scope="module")
def ray_cluster() -> None:
    """A private local cluster. It stays for the next module that needs one, unless a test shut Ray down meanwhile:
    starting one takes longer than most tests."""
    import ray

    from muzero_ray.actors.ray_internals import dead_processes

    if dead := dead_processes():
        ray.shutdown()
        pytest.fail(f"an earlier test ended {', '.join(dead)} of the cluster that all tests share")
    for start in range(1, RAY_STARTS + 1):
        if ray.is_initialized():
            return
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=4,
                object_store_memory=200 * 1024 * 1024,
                log_to_driver=False,
            )
        except Exception:  # Ray raises no narrower one here
            ray.shutdown()
            if start == RAY_STARTS:
                raise


def pytest_sessionfinish() -> None:
    """Leave no cluster behind."""
    if ray := sys.modules.get("ray"):
        ray.shutdown()


@pytest.fixture(autouse=True, scope="module")
def _signals_as_they_were() -> Iterator[None]:
    """Commands that run inside this process set handlers; give them back."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    """Programs set variables for the libraries that they load; the next test starts without them.

    Only what differs is touched: Ray's threads read the environment, and crash if it is emptied meanwhile.
    """
    before = dict(os.environ)
    yield
    for name in [name for name in os.environ if name not in before]:
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})
