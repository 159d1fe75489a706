"""One writer per run: who gets the lock of a run's folder, who is refused, and who loses it."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muzero_ray.control.probe import probe
from muzero_ray.control.serial import SerialRunner
from muzero_ray.errors import ConfigError
from muzero_ray.runs import lock as run_lock
from muzero_ray.runs.lock import STALE_SECONDS, Holder, LockLost, RunLock, live_lock
from muzero_ray.runs.output import RunOutput
from tests.patience import until
from tests.small_runs import run_serial, small_config

ELSEWHERE = "0b2f-of-another-boot pid:[4026531836]"

HOLD = """
import sys, time
from pathlib import Path
from muzero_ray.runs.lock import RunLock
RunLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def holding(folder: Path) -> subprocess.Popen[str]:
    """A process of its own that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def plant(folder: Path, *, age: float = 0.0, number: int = 1, **changes: Any) -> Path:
    """A lock file whose holder differs from this process in `changes`."""
    path = folder / f"lock.{number}"
    path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(Holder.this_process(folder), **changes))))
    set_age(path, age)
    return path


def set_age(path: Path, age: float) -> None:
    """By the clock of the file system."""
    path.touch()
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(run_lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(run_lock, "POLL_SECONDS", 0.01)
    return


# --- who gets it ---------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    lock = RunLock.acquire(tmp_path)
    with pytest.raises(ConfigError) as caught:
        RunLock.acquire(tmp_path)
    text = str(caught.value)
    assert f"another process writes to run {tmp_path} (pid {os.getpid()} on " in text
    assert "Stop that one first" in text
    lock.confirm()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    RunLock.acquire(tmp_path).release()


@pytest.mark.parametrize("reaped", [True, False])
def test_a_dead_process_of_this_machine_holds_nothing(reaped: bool, tmp_path: Path) -> None:
    """Not reaped, as in a container whose first process reaps nobody: its entry is there, and so is its lock."""
    process = holding(tmp_path)
    try:
        with pytest.raises(ConfigError, match=rf"pid {process.pid} on"):
            RunLock.acquire(tmp_path)
        process.kill()
        if reaped:
            process.wait()
        else:
            until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        with RunLock.acquire(tmp_path):
            assert [path.name for path in tmp_path.iterdir()] == ["lock.2"]
    finally:
        process.kill()
        process.wait()


def test_another_process_with_the_same_pid_is_not_the_holder(tmp_path: Path) -> None:
    plant(tmp_path, started="1")
    RunLock.acquire(tmp_path).release()
    plant(tmp_path)
    with pytest.raises(ConfigError):
        RunLock.acquire(tmp_path)


def test_a_copy_of_the_folder_of_a_living_run_is_free_and_the_same_folder_by_another_name_is_not(
    tmp_path: Path,
) -> None:
    folder, copy, link = tmp_path / "run", tmp_path / "copy", tmp_path / "link"
    folder.mkdir()
    with RunLock.acquire(folder) as lock:
        shutil.copytree(folder, copy)
        RunLock.acquire(copy).release()
        link.symlink_to(folder)
        with pytest.raises(ConfigError):
            RunLock.acquire(link)
        lock.confirm()
        folder.rename(tmp_path / "moved")
        with pytest.raises(ConfigError):
            RunLock.acquire(tmp_path / "moved")


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "elsewhere", "machine": ELSEWHERE},
        {"machine": ELSEWHERE},  # a container of the same name, with pid 1 again
        {"machine": ELSEWHERE, "started": "1"},
        {"machine": ELSEWHERE, "pid": 2**22 + 1},
    ],
)
def test_of_another_machine_the_last_touch_decides(changes: dict[str, Any], tmp_path: Path) -> None:
    path = plant(tmp_path, age=STALE_SECONDS - 30, **changes)
    with pytest.raises(ConfigError, match="another process writes"):
        RunLock.acquire(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock.1"]
    set_age(path, STALE_SECONDS + 30)
    with RunLock.acquire(tmp_path):
        assert [entry.name for entry in tmp_path.iterdir()] == ["lock.2"]


def test_a_living_process_of_this_machine_holds_it_however_long_it_was_stopped(tmp_path: Path) -> None:
    plant(tmp_path, age=10 * STALE_SECONDS)
    with pytest.raises(ConfigError):
        RunLock.acquire(tmp_path)


@pytest.mark.parametrize("hours", [-5, 5])
def test_the_clock_of_this_machine_does_not_matter(
    hours: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
    path = plant(tmp_path, machine=ELSEWHERE)
    assert live_lock(tmp_path) is not None
    set_age(path, STALE_SECONDS + 30)
    assert live_lock(tmp_path) is None


def test_a_touch_that_lies_far_ahead_is_of_a_clock_that_was_set_back(tmp_path: Path) -> None:
    plant(tmp_path, machine=ELSEWHERE, age=-10 * STALE_SECONDS)
    RunLock.acquire(tmp_path).release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 9000, b'{"pid": "x"}', b"[" * 4000])
def test_of_a_lock_that_says_nothing_the_age_decides(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lock.3"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"lock\.3"):
        RunLock.acquire(tmp_path)
    set_age(path, STALE_SECONDS + 30)
    RunLock.acquire(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_or_a_link_of_that_name_makes_nobody_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock.1")
    (tmp_path / "lock.2").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"lock\.1"):
        RunLock.acquire(tmp_path)


@pytest.mark.usefixtures("quick")
def test_who_is_patient_gets_it_as_soon_as_it_is_free_and_is_told_why_it_waits(tmp_path: Path) -> None:
    first = RunLock.acquire(tmp_path)
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        first.release()

    RunLock.acquire(tmp_path, 120, say).release()
    (text,) = told
    assert f"pid {os.getpid()}" in text
    assert "waiting up to 120 s" in text


# --- races ---------------------------------------------------------------------------------------------------------


def test_of_many_that_take_over_one_dead_lock_exactly_one_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every look and every change of the folder comes after a pause of its own length."""
    rng = random.Random(0)
    real = {name: getattr(run_lock, name) for name in ("_locks", "_read")}
    for name, function in real.items():

        def late(*arguments: Any, function: Any = function) -> Any:
            time.sleep(rng.choice((0.0, 0.0, 0.001, 0.003)))
            return function(*arguments)

        monkeypatch.setattr(run_lock, name, late)
    monkeypatch.setattr(run_lock, "POLL_SECONDS", 0.002)
    for round_number in range(15):
        folder = tmp_path / str(round_number)
        folder.mkdir()
        plant(folder, machine=ELSEWHERE, age=2 * STALE_SECONDS)
        begin, won, refused = threading.Barrier(6), [], []

        def take(folder: Path, begin: threading.Barrier, won: list[RunLock], refused: list[str]) -> None:
            begin.wait()
            try:
                won.append(RunLock.acquire(folder))
            except ConfigError as error:
                refused.append(str(error))

        takers = [threading.Thread(target=take, args=(folder, begin, won, refused)) for _ in range(6)]
        for taker in takers:
            taker.start()
        for taker in takers:
            taker.join()
        # Two may each see the other's new lock and both be refused or start over; never may both hold it.
        assert len(won) <= 1
        assert len(won) + len(refused) == 6
        for lock in won:
            lock.confirm()
            assert [path.name for path in folder.iterdir()] == [lock.path.name]
            lock.release()
        RunLock.acquire(folder).release()


def test_who_was_slow_to_take_over_a_dead_lock_does_not_take_a_living_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look at the dead lock and its own, another took over, ended, and a third one came."""
    plant(tmp_path, machine=ELSEWHERE, age=2 * STALE_SECONDS)
    claim, others = run_lock._claim, []

    def slow(folder: Path) -> RunLock | None:
        if not others:
            others.append(claim(folder))
            others[0].release()
            others.append(claim(folder))
            assert [path.name for path in folder.iterdir()] == ["lock.1"]  # the name that the dead one had
        return claim(folder)

    monkeypatch.setattr(run_lock, "_claim", slow)
    with pytest.raises(ConfigError):
        RunLock.acquire(tmp_path)
    others[1].confirm()
    others[1].release()


# --- keeping and losing it -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_the_holder_touches_its_lock(tmp_path: Path) -> None:
    with RunLock.acquire(tmp_path) as lock:
        set_age(lock.path, 1000)
        old = lock.path.stat().st_mtime
        until(lambda: lock.path.stat().st_mtime > old + 900)


def take_over(folder: Path) -> Path:
    """As a process of another machine does, which had no sign of life from here."""
    path = plant(folder, number=2, machine=ELSEWHERE, host="other-host", pid=7)
    (folder / "lock.1").unlink()
    return path


@pytest.mark.usefixtures("quick")
def test_who_was_declared_dead_finds_out_with_the_next_beat_and_names_the_new_one(tmp_path: Path) -> None:
    lock = RunLock.acquire(tmp_path)
    other = take_over(tmp_path)

    with pytest.raises(LockLost, match=r"taken it over \(pid 7 on other-host"):
        until(lambda: lock.check() is not None)
    lock.release()
    assert other.exists()  # the new one's


def test_who_was_declared_dead_writes_nothing(tmp_path: Path) -> None:
    """A suspended machine goes on in the middle of the program, before any heartbeat."""
    config = small_config()
    output = RunOutput.create(config, tmp_path / "run")
    take_over(output.folder)
    with output:
        runner = SerialRunner(config, probe(config), output, None)
        with pytest.raises(LockLost, match="It stops, so that no two processes write"):
            runner.run()
    assert (output.folder / "metrics.jsonl").read_text() == ""
    assert not (output.folder / "checkpoints").exists()


def test_a_removed_folder_is_named_as_such(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lock = RunLock.acquire(folder)
    folder.rename(tmp_path / "moved")
    with pytest.raises(LockLost, match="moved or removed"):
        lock.confirm()
    lock.release()


def test_a_run_that_ended_leaves_no_lock(tmp_path: Path) -> None:
    assert run_serial(small_config(run={"learner_steps": 5}), tmp_path / "run")
    assert not list((tmp_path / "run").glob("lock*"))
