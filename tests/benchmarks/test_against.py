"""Two checkouts in turns: what a ratio is, when a row is worse, and the command over stand-ins for checkouts."""

from __future__ import annotations

import runpy
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import against
from benchmarks.against import Comparison, compared, left_out
from benchmarks.measure import Row

BENCHMARKS = """
import json, sys
from pathlib import Path
figures = {figures}
log = Path({log!r})
turns = log.read_text().split() if log.exists() else []
figure = figures[turns.count({place!r})]
log.write_text(" ".join([*turns, {place!r}]))
words = sys.argv[1:]
assert words[:2] == ["tree", "replay"], words
row = {row} | {{"figure": figure}}
Path(words[words.index("--json") + 1]).write_text(json.dumps({{"rows": [row]}}))
"""
"""Stands for the benchmarks of a checkout: one row, with another figure in each turn."""


def row(name: str, unit: str, figure: float) -> Row:
    return Row(name=name, figure=figure, unit=unit, low=figure, high=figure, samples=(figure,))


def test_above_one_is_good_for_rates_and_for_costs() -> None:
    here = [[row("rate", "sims/s", 300.0), row("CPU rate", "positions/CPU s", 30.0), row("time", "us/call", 2.0)]]
    there = [[row("rate", "sims/s", 100.0), row("CPU rate", "positions/CPU s", 10.0), row("time", "us/call", 6.0)]]
    rows = compared(here, there)
    assert [(found.name, found.here, found.there) for found in rows] == [
        ("rate", 300.0, 100.0),
        ("CPU rate", 30.0, 10.0),
        ("time", 2.0, 6.0),
    ]
    assert all(found.ratio == pytest.approx(3.0) for found in rows)


def test_only_rows_of_speed_or_memory_that_both_have() -> None:
    same = [row("depth", "edges", 3.0), row("curve", "of the loss", 0.1), row("nothing", "ms", 0.0)]
    here = [*same, row("memory", "B/transition", 2.0), row("new", "ms", 1.0)]
    there = [*same, row("memory", "B/transition", 1.0), row("old", "ms", 1.0)]
    found = compared([here], [there])
    assert [(row.name, row.ratio) for row in found] == [("memory", 0.5)]
    assert left_out([here, there], found) == ["new", "nothing", "old"]


def test_a_row_that_one_turn_lacks_is_named() -> None:
    here, there = [[row("time", "ms", 1.0)], []], [[row("time", "ms", 1.0)]] * 2
    assert compared(here, there) == []
    assert left_out(here, []) == ["time"]


def test_one_turn_has_no_spread(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        against.main(["anywhere", "--turns", "1"])
    assert "--turns must be at least 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ratios", "worse"),
    [
        ((0.94, 0.94, 0.94), True),
        ((0.95, 0.95, 0.95), False),
        ((0.88, 0.9, 0.96), True),  # 0.9 + 0.04
        ((0.84, 0.9, 0.96), False),  # 0.9 + 0.06
        ((1.2, 1.1, 0.8), False),
    ],
)
def test_worse_is_what_no_spread_explains(ratios: tuple[float, ...], worse: bool) -> None:
    assert Comparison("row", "ms", 1.0, 1.0, ratios).worse is worse


def test_the_command_measures_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ratios 0.8, 0.7 and 0.9 of the three turns."""
    for place, figures in (("here", [80.0, 70.0, 180.0]), ("there", [100.0, 100.0, 200.0])):
        (tmp_path / place / "benchmarks").mkdir(parents=True)
        (tmp_path / place / "launch.py").touch()
        content = {"figures": figures, "log": str(tmp_path / "log"), "place": place}
        program = BENCHMARKS.format(**content, row=asdict(row("tree/x", "sims/s", 0.0)))
        (tmp_path / place / "benchmarks" / "__main__.py").write_text(program)
    monkeypatch.setattr(against, "HERE", tmp_path / "here")
    words = ["against", str(tmp_path / "there"), "tree", "replay", "--turns", "3"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("benchmarks", run_name="__main__")
    assert stop.value.code == 1
    assert (tmp_path / "log").read_text() == "here there here there here there"
    printed = capsys.readouterr().out
    cells = [line.replace(" ", "") for line in printed.splitlines()]
    assert "|tree/x|80.000|100.0|sims/s|0.800|0.100|YES|" in cells
    assert "1 of 1 rows are below 0.95 beyond their spread. tree/x" in printed


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert against.main([str(tmp_path)]) == 2
    with pytest.raises(SystemExit):
        against.main([str(tmp_path), "system"])
    assert "part 'system' cannot be compared. Choose from: tree search" in capsys.readouterr().err
