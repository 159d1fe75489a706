"""No test depends on how fast the machine is: none compares a clock, and none gives up after a time of its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "time"}
WAITS = {"wait", "join", "communicate", "poll", "result", "exception", "close", "until", "wait_for", "wait_procs"}
LONGEST_STEP = 1.0
"""Seconds that a test may wait in a loop, or for what it shows never to come."""


def is_clock(node: ast.AST) -> bool:
    """`time.monotonic()` and the like, alone or within a sum or difference."""
    return any(
        isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr in CLOCKS
        for part in ast.walk(node)
        if not isinstance(part, ast.Attribute)
    )


def name_of(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def is_short(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value > LONGEST_STEP


def limits(source: str) -> list[int]:
    """Lines with a comparison of clocks, or with a wait whose limit is a number of its own."""
    found = []
    for node in ast.walk(ast.parse(source)):
        ordered = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
        clock = ordered and any(map(is_clock, [node.left, *node.comparators]))
        waits = isinstance(node, ast.Call) and (
            any(keyword.arg == "timeout" and is_short(keyword.value) for keyword in node.keywords)
            or (name_of(node) in WAITS and any(map(is_short, node.args)))
        )
        if clock or waits:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    "line",
    [
        "assert time.monotonic() < deadline",
        "while time.perf_counter() - begin < 5: pass",
        "subprocess.run(command, timeout=30)",
        "process.wait(10)",
        "until(ready, 20)",
        "assert job.exception(timeout=30) is None",
    ],
)
def test_a_limit_of_time_is_seen(line: str) -> None:
    assert limits(line) == [1]


@pytest.mark.parametrize("line", ["process.wait(PATIENCE)", "until(ready)", "writer.close(0.1)", "time.sleep(0.5)"])
def test_what_waits_patiently_may_stay(line: str) -> None:
    assert limits(line) == []


def test_no_test_depends_on_the_speed_of_the_machine() -> None:
    found = {
        f"{path.relative_to(TESTS)}:{line}"
        for path in TESTS.rglob("*.py")
        if path.name != "patience.py"
        for line in limits(path.read_text())
    }
    assert not found, "Wait with tests/patience.py"
