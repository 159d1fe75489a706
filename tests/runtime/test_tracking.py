"""metrics.jsonl, whatever becomes of W&B."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from muzero_ray.runtime.tracking import METRICS_FILE, MetricsWriter, truncate_metrics
from tests.runtime.metric_rows import a_row, rows_in


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
    truncate_metrics(cut / METRICS_FILE, 4)
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


def test_missing_rows_are_reported_not_invented(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / METRICS_FILE
    path.write_bytes(b"{}\n{}\n{")
    truncate_metrics(path, 5)
    assert path.read_bytes() == b"{}\n{}\n"
    assert "2 rows" in caplog.text
    truncate_metrics(tmp_path / "absent.jsonl", 0)
    assert not (tmp_path / "absent.jsonl").exists()
