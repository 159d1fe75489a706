"""W&B when it can, and never at the expense of the run."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from muzero_ray.runs import tracking
from muzero_ray.runs.tracking import MetricsWriter
from tests.patience import PATIENCE
from tests.runs.fake_wandb import CommError, FakeRun, UsageError, fake_wandb
from tests.runs.metric_rows import a_row, rows_in


def test_disabled_never_imports_wandb(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from muzero_ray.runs.tracking import MetricsWriter;"
        f"MetricsWriter(Path({str(tmp_path)!r}), {{}}, mode='disabled').close(); print('wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_offline_wandb_holds_every_row_of_both_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read back with W&B's own tool. Axis env_steps, no host name, all files inside the run's folder."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", "restored by monkeypatch")
    run_id = None
    for part in (range(0, 30, 10), range(30, 50, 10)):
        writer = MetricsWriter(tmp_path, {"search": {"simulations": 16}}, run_name="test", run_id=run_id)
        run_id = writer.run_id
        for steps in part:
            writer.write(a_row(steps, loss__total=steps / 7, loss__value=math.nan))
        writer.log_table("eval/episodes_table", ("seed", "return"), [(0, 1.5), (1, 2.5)])
        (tmp_path / "game.mp4").write_bytes(b"not checked by W&B")
        writer.log_video(tmp_path / "game.mp4")
        writer.close(PATIENCE)
        assert writer.dropped == 0
        time.sleep(1.1)  # W&B names an offline run's folder by the second: two parts in one second would share it

    folders = sorted((tmp_path / "wandb").glob(f"offline-run-*-{run_id}"))
    assert folders
    records = []
    for folder in folders:
        tool = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(folder)]
        out = subprocess.run(tool, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
        records += [json.loads(line) for line in out.splitlines()]
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    rows = [item for item in history if "loss/total" in item]
    assert [item["env_steps"] for item in rows] == [0, 10, 20, 30, 40]
    assert [item["loss/total"] for item in rows] == [steps / 7 for steps in range(0, 50, 10)]
    assert not any("loss/value" in item for item in rows)
    assert [item["env_steps"] for item in history if "eval/video._type" in item] == [20, 40]
    assert [item["env_steps"] for item in history if "eval/episodes_table.nrows" in item] == [20, 40]
    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    assert {"env_steps"} == {metric["step_metric"] for metric in metrics if metric.get("glob_name") == "*"}
    run = next(record["run"] for record in records if record["type"] == "run")
    assert run["config"]["update"]["search"] == {"simulations": 16}
    assert "host" not in run
    assert os.environ["WANDB_DATA_DIR"] == str(tmp_path / "wandb")


def test_absent_wandb_disturbs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # import raises ImportError
    writer = MetricsWriter(tmp_path, {}, mode="offline")
    for steps in range(5):
        writer.write(a_row(steps))
    writer.log_table("eval/episodes_table", ["a"], [[1]])
    writer.close(PATIENCE)
    assert [line["env_steps"] for line in rows_in(tmp_path)] == [0, 1, 2, 3, 4]
    assert writer.dropped == 6
    assert caplog.text.count("W&B stopped") == 1


@pytest.mark.parametrize("error", [ConnectionResetError("core died"), TypeError("no"), RuntimeError("boom")])
def test_failing_log_warns_once_and_the_file_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    fake_wandb(monkeypatch, lambda **_: FakeRun(tmp_path / "wandb", fail=error))
    writer = MetricsWriter(tmp_path, {}, mode="offline")
    for steps in range(20):
        writer.write(a_row(steps))
    writer.close(PATIENCE)
    assert len(rows_in(tmp_path)) == 20
    assert [record.levelno for record in caplog.records if "W&B stopped" in record.message] == [logging.WARNING]
    assert writer.dropped == 20


@pytest.mark.parametrize("error", [CommError("unreachable"), UsageError("no key")])
def test_online_falls_back_to_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    modes, run = [], FakeRun(tmp_path / "wandb")

    def init(**kwargs: Any) -> FakeRun:
        modes.append(kwargs["mode"])
        if kwargs["mode"] == "online":
            raise error
        return run

    fake_wandb(monkeypatch, init)
    writer = MetricsWriter(tmp_path, {}, mode="auto", api_key="k" * 40)
    writer.write(a_row(7))
    writer.close(PATIENCE)
    assert modes == ["online", "offline"]
    assert [values["env_steps"] for values in run.logged] == [7]
    assert run.finished
    assert writer.dropped == 0
    assert caplog.text.count("cannot be reached") == 1


@pytest.mark.parametrize(("key", "expected"), [(None, "offline"), ("k" * 40, "online")])
def test_auto_is_online_only_with_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, expected: str
) -> None:
    calls: list[dict[str, Any]] = []

    def init(**kwargs: Any) -> FakeRun:
        calls.append(kwargs)
        return FakeRun(tmp_path / "wandb")

    fake_wandb(monkeypatch, init)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    writer = MetricsWriter(tmp_path, {"a": 1}, run_id="abc", project="p")
    writer.close(PATIENCE)
    assert [(call["mode"], call["id"], call["project"]) for call in calls] == [(expected, "abc", "p")]


def test_files_outside_the_run_folder_stop_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = FakeRun(tmp_path / "elsewhere" / "wandb")
    fake_wandb(monkeypatch, lambda **_: elsewhere)
    writer = MetricsWriter(tmp_path / "run", {}, mode="offline")
    writer.write(a_row(1))
    writer.close(PATIENCE)
    assert elsewhere.logged == []
    assert elsewhere.finished
    assert str(tmp_path / "elsewhere") in caplog.text


def test_full_queue_drops_the_oldest_and_never_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "QUEUE_SIZE", 4)
    gate, started = threading.Event(), threading.Event()
    run = FakeRun(tmp_path / "wandb", gate=gate)

    def init(**_: Any) -> FakeRun:
        started.set()
        assert gate.wait(PATIENCE)
        return run

    fake_wandb(monkeypatch, init)
    writer = MetricsWriter(tmp_path, {}, mode="offline")
    assert started.wait(PATIENCE)
    for steps in range(10):
        writer.write(a_row(steps))  # W&B stands still: these return all the same
    assert writer.dropped == 6
    gate.set()
    writer.close(PATIENCE)
    assert [values["env_steps"] for values in run.logged] == [6, 7, 8, 9]
    assert len(rows_in(tmp_path)) == 10


def test_rows_are_sent_at_most_once_per_interval_until_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "ROW_INTERVAL", 3_600.0)
    sent = threading.Event()
    run = FakeRun(tmp_path / "wandb")
    log = run.log

    def logged(values: dict[str, Any]) -> None:
        log(values)
        sent.set()

    monkeypatch.setattr(run, "log", logged)
    fake_wandb(monkeypatch, lambda **_: run)
    writer = MetricsWriter(tmp_path, {}, mode="offline")
    for steps in range(3):
        writer.write(a_row(steps))
    assert sent.wait(PATIENCE)
    assert [values["env_steps"] for values in run.logged] == [0]  # the others wait their hour
    writer.close(PATIENCE)
    assert [values["env_steps"] for values in run.logged] == [0, 1, 2]
    assert writer.dropped == 0


def test_close_does_not_wait_for_a_stuck_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate, started = threading.Event(), threading.Event()

    def init(**_: Any) -> FakeRun:
        started.set()
        gate.wait(PATIENCE)
        return FakeRun(tmp_path / "wandb")

    fake = fake_wandb(monkeypatch, init)
    released = threading.Event()
    fake.teardown = released.set  # type: ignore[attr-defined]
    writer = MetricsWriter(tmp_path, {}, mode="offline")
    assert started.wait(PATIENCE)
    writer.write(a_row(1))
    writer.close(0.1)
    assert "did not finish" in caplog.text
    assert released.wait(PATIENCE)
    assert writer.dropped == 1
    gate.set()
    assert len(rows_in(tmp_path)) == 1
