"""All that is used of Ray beyond what it documents: no other module names it.

`pyproject.toml` says up to which version of Ray this is known to work; `tests/test_private_names.py` checks it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import ray._private.services
import ray._private.utils
import ray._private.worker
import ray._raylet

_services: Any = ray._private.services  # none of these have types
_utils: Any = ray._private.utils
_worker: Any = ray._private.worker
_raylet: Any = ray._raylet


def asks_for_token() -> bool:
    """Whether the Ray that this process uses lets in only those who know its token."""
    return bool(_raylet.get_authentication_mode() == _raylet.AuthenticationMode.TOKEN)


def is_private() -> bool:
    """Whether this process started the Ray that it uses."""
    return _worker._global_node is not None and bool(_worker._global_node.all_processes)


def dead_processes() -> list[str]:
    """Names of the processes of a private Ray that are dead: `raylet`, `gcs_server`, and what else it started."""
    node = _worker._global_node
    return [name for name, _ in node.dead_processes()] if node is not None else []


def raylet_pids() -> list[int]:
    """Process ids of the raylets of a private Ray."""
    node = _worker._global_node
    return [info.process.pid for info in node.all_processes.get("raylet", [])] if node is not None else []


def kill_processes() -> None:
    """Kill all processes of a private Ray, some of which may be dead."""
    _worker._global_node.kill_all_processes(check_alive=False)


def logs_folder() -> Path | None:
    """Where the Ray that this process uses writes its logs; None without one."""
    node = _worker._global_node
    return Path(node.get_logs_dir_path()) if node is not None else None


def cluster_address(address: str) -> str | None:
    """What Ray makes of `address` (`auto` or `HOST:PORT`). Raises ConnectionError, OSError or ValueError."""
    found: str | None = _services.canonicalize_bootstrap_address(address)
    return found


@contextlib.contextmanager
def without_sigterm_handler() -> Iterator[None]:
    """In this context Ray's Python code leaves SIGTERM alone."""
    kept = _utils.set_sigterm_handler
    _utils.set_sigterm_handler = lambda _: None
    try:
        yield
    finally:
        _utils.set_sigterm_handler = kept
