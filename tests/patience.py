"""How long tests wait for what must come: however slow the machine is. No test asserts how long anything took."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 3_600.0
"""Seconds; more than pytest's limit for a whole test (`--timeout` in pyproject.toml), which ends one that hangs."""


def until(condition: Callable[[], object], what: str = "", *, pause: float = 0.05) -> None:
    """Wait until it holds. pause: seconds between two looks. what: said if it never does; it may raise by itself."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(pause)
