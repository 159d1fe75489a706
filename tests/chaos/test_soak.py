"""What the long experiments see and judge, without a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chaos.pressure import adds, mapped_bytes, most_pending
from chaos.soak import CAPACITY, Series, folder_mb, growth, named_processes, process_row, run_row

Points = list[tuple[float, float]]


def minutes(values: list[float]) -> Points:
    """Two samples a minute: a value, and something momentary on top."""
    return [(t + half, value + 20.0 * half) for t, value in enumerate(values) for half in (0.0, 0.5)]


def series(slope: float, files: Points | None = None) -> Series:
    level = minutes([40.0] * 50)
    return Series(minutes([300.0 + slope / 60 * t for t in range(50)]), files or level, level)


@pytest.mark.parametrize(("slope", "met"), [(0.0, True), (0.9, True), (1.2, False), (-3.0, True)])
def test_memory_may_grow_by_one_megabyte_an_hour(slope: float, met: bool) -> None:
    found = process_row("learner", series(slope), pids=1, minutes=60.0)
    assert found.met is met
    assert found.figures["MB/h"] == pytest.approx(slope, abs=0.01)
    assert found.lost == 0


def test_a_short_soak_says_that_slopes_are_not_judged() -> None:
    found = process_row("learner", series(50.0), pids=1, minutes=3.0)
    assert found.met
    assert "not judged" in found.bar


def test_files_that_stay_open_and_replacements_are_counted() -> None:
    leaking = minutes([40.0] * 20 + [43.0] * 30)
    found = process_row("learner", series(0.0, leaking), pids=1, minutes=60.0)
    assert (found.met, found.lost) == (False, 3)
    assert process_row("learner", series(0.0), pids=3, minutes=60.0).lost == 2
    assert not process_row("learner", Series(), pids=1, minutes=60.0).met


def test_what_is_open_for_a_minute_is_no_growth() -> None:
    assert growth(minutes([40.0, 40.0, 52.0, 40.0, 40.0, 47.0, 40.0, 40.0])) == 0.0
    assert growth(minutes([40.0, 41.0, 40.0, 41.0, 40.0, 41.0])) == -1.0
    assert growth(minutes([40.0, 40.0, 42.0, 42.0])) == 2.0


def test_a_run_that_did_not_go_on_is_noted() -> None:
    rows = [{"replay/size": CAPACITY, "episodes": 600, "wall_s": 60.0, "learner_steps": 100}]
    assert run_row(rows, 3, 130, 60.0, []).met
    assert run_row(rows, 3, 130, 60.0, []).figures["a second"] == 10.0
    for bad in (
        run_row([], 0, 130, 60.0, []),
        run_row(rows, 3, 1, 60.0, []),
        run_row(rows, 3, 130, 60.0, ["it ended"]),
    ):
        assert not bad.met
        assert bad.notes


def test_processes_and_folders_are_looked_at(tmp_path: Path) -> None:
    assert named_processes(os.getpid())["driver"].pid == os.getpid()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(1 << 20))
    assert folder_mb(tmp_path) == 1.0
    assert folder_mb(tmp_path / "none") == 0.0


def test_pushes_and_adds_are_read_from_notes(tmp_path: Path) -> None:
    (tmp_path / "pending-0-0.txt").write_text("10.0 2\n20.0 1\n")
    (tmp_path / "pending-1-0.txt").write_text("20.5 2\n30.0 3\n")
    assert most_pending(tmp_path, 15.0, 25.0) == 2
    assert most_pending(tmp_path, 20.0, 20.0) == 1
    (tmp_path / "adds.txt").write_text("0 0.001 100\n1 0.002 200\n")
    assert adds(tmp_path, True) == [(0.002, 200)]
    assert adds(tmp_path, False) == [(0.001, 100)]


def test_files_mapped_in_place_of_shared_memory_are_seen() -> None:
    maps = """7f0000000000-7f0000100000 rw-s 00000000 00:15 77 /tmp/ray/session_x/plasmaAbC (deleted)
7f0000200000-7f0000300000 rw-s 00000000 00:15 78 /dev/shm/plasmaXyZ (deleted)
7f0000400000-7f0000500000 r--p 00000000 00:15 79 /tmp/ray/session_x/logs/raylet.out
7f0000600000-7f0000700000 rw-p 00000000 00:00 0
"""
    assert mapped_bytes(maps, Path("/tmp/ray/session_x")) == 1 << 20
