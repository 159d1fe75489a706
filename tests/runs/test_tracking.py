"""metrics.jsonl, whatever becomes of W&B."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from muzero_ray.runs.layout import METRICS_FILE
from muzero_ray.runs.side_files import keep_rows
from muzero_ray.runs.tracking import MetricsWriter
from tests.runs.metric_rows import a_row, rows_in


def test_rows_are_in_the_file_when_write_returns(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, {}, mode="disabled")
    for steps in (10, 20):
        writer.write(a_row(steps, loss__total=0.5))
        assert rows_in(tmp_path)[-1] == a_row(steps, loss__total=0.5)
    assert writer.rows == 2
    assert writer.sync() == 2
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]


def test_values_that_are_not_finite_become_null(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, {}, mode="disabled")
    writer.write(a_row(10, loss__total=math.nan, loss__value=math.inf, loss__policy=1.0))
    row = rows_in(tmp_path)[0]
    assert (row["loss/total"], row["loss/value"], row["loss/policy"]) == (None, None, 1.0)
    writer.close()


def test_bad_rows_are_refused_and_leave_the_file_alone(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, {}, mode="disabled")
    with pytest.raises(ValueError, match="my/metric"):
        writer.write({**a_row(1), "my/metric": 1.0})
    with pytest.raises(ValueError, match="env_steps"):
        writer.write({"loss/total": 1.0})
    assert rows_in(tmp_path) == []
    writer.close()


def test_resumed_file_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        writer = MetricsWriter(folder, {}, mode="disabled")
        for steps in range(6):
            writer.write(a_row(steps))
        writer.close()
    with (cut / METRICS_FILE).open("ab") as file:
        file.write(b'{"env_steps": 6, "lear')  # torn by a crash
    assert keep_rows(cut / METRICS_FILE, 4, 1) == a_row(3)
    writer = MetricsWriter(cut, {}, mode="disabled")
    assert writer.rows == 4
    for steps in range(4, 6):
        writer.write(a_row(steps))
    writer.close()
    assert (cut / METRICS_FILE).read_bytes() == (whole / METRICS_FILE).read_bytes()


def test_a_torn_line_is_cut_off_before_the_nextrow(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_bytes(b'{"env_steps": 1}\n{"env_st')
    writer = MetricsWriter(tmp_path, {}, mode="disabled")
    writer.write(a_row(2))
    writer.close()
    assert [line["env_steps"] for line in rows_in(tmp_path)] == [1, 2]


@pytest.mark.parametrize("before", [1, 2, 3])
def test_the_last_row_is_replaced_also_after_the_file_was_opened_again(before: int, tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, {}, mode="disabled")
    for steps in range(before):
        writer.write(a_row(steps))
    writer.close()
    for text in (0.5, 0.25):
        writer = MetricsWriter(tmp_path, {}, mode="disabled")
        writer.replace_last(a_row(before, loss__total=text))
        writer.replace_last(a_row(before, loss__total=text))
        assert writer.rows == before
        writer.close()
        assert rows_in(tmp_path) == [*map(a_row, range(before - 1)), a_row(before, loss__total=text)]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_a_regular_file_is_written_to(kind: str, tmp_path: Path) -> None:
    path, other = tmp_path / METRICS_FILE, tmp_path / "other"
    other.write_text("{}\n")
    {"link": lambda: path.symlink_to(other), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    with pytest.raises(OSError, match=r"."):
        MetricsWriter(tmp_path, {}, mode="disabled")
    assert other.read_text() == "{}\n"
