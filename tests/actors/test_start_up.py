"""What is said of workers that do not start, or that were killed for lack of memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muzero_ray.actors import memory_kills, start_up
from muzero_ray.actors.memory_kills import MemoryKills

RAYS = "[2026-11-30 08:57:24,642 E 1392 1392] (raylet) worker_pool.cc:660: Some workers have not registered in time"


def worker(name: str, *, started: float | None = None) -> Any:
    """started: when it was made, of one that still has not started; None: it runs."""
    kind = name.rsplit(" ", 1)[0]
    return SimpleNamespace(name=name, kind=kind, ready=None if started is None else object(), started=started or 0.0)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the processes of a private Ray write before they have a log of their own."""
    monkeypatch.setattr(start_up, "is_private", lambda: True)
    monkeypatch.setattr(start_up, "logs_folder", lambda: tmp_path)
    return tmp_path / "raylet.err"


def test_the_last_words_are_those_of_the_worker_and_not_of_ray(log: Path) -> None:
    assert start_up.last_words() is None
    log.write_text(f"Traceback\nImportError: libfoo.so.1: cannot open shared object file\n{RAYS}\n\n")
    assert start_up.last_words() == "ImportError: libfoo.so.1: cannot open shared object file"
    log.write_text(f"{RAYS}\n")
    assert start_up.last_words() == "Some workers have not registered in time"


def test_a_worker_that_has_not_started_is_named_with_the_reason(log: Path) -> None:
    log.write_text("ImportError: no module\n")
    waiting = [worker("replay 0", started=1.0), worker("params", started=1.0), worker("self_play 0", started=1.0)]
    assert start_up.placement(waiting, waiting) == (
        "0 of 1 self-play actors placed; not started either: replay 0, params. Ray's log says: ImportError: no module"
    )
    # Those that only wait for CPUs have nothing to do with what is in the log.
    handles = [worker("self_play 0"), worker("self_play 1", started=1.0)]
    assert start_up.placement(handles, handles[1:]) == "1 of 2 self-play actors placed"


def test_a_private_ray_whose_workers_never_start_ends_the_run_with_the_reason(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_text("ImportError: no module\n")
    late = 1.0 + start_up.START_SECONDS + 1.0
    replay, learner = worker("replay 0", started=1.0), worker("learner", started=1.0)
    running, waiting = worker("self_play 0"), worker("self_play 1", started=1.0)
    assert start_up.stuck([replay, learner, running], late - 2.0) is None
    reason = start_up.stuck([replay, learner, running], late)
    assert reason is not None
    assert reason.startswith("replay 0, learner did not start within 600 s. Ray's log says: ImportError: no module.")
    assert "self-play did not start" in str(start_up.stuck([worker("replay 0"), waiting], late))
    assert start_up.stuck([worker("replay 0"), running, waiting], late) is None  # it waits for CPUs, as it may
    monkeypatch.setattr(start_up, "is_private", lambda: False)
    assert start_up.stuck([replay, learner, running], late) is None  # a cluster may grow


@pytest.mark.parametrize(
    ("own", "file", "content"),
    [
        ("0::/\n", "memory.events", "low 0\noom 3\noom_kill {}\n"),
        ("0::/kube/pod7\n", "kube/memory.events", "oom 3\noom_kill {}\noom_group_kill 0\n"),
        ("4:memory:/docker/ab\n1:cpu:/\n", "memory/docker/ab/memory.oom_control", "under_oom 0\noom_kill {}\n"),
        ("4:memory:/elsewhere\n", "memory/memory.oom_control", "under_oom 0\noom_kill {}\n"),
        ("", "vmstat", "nr_free_pages 5\noom_kill {}\n"),
    ],
)
def test_the_kernels_kills_are_counted_wherever_it_counts_them(
    own: str, file: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_kills, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory_kills, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(memory_kills, "VMSTAT", tmp_path / "vmstat")
    (tmp_path / "own").write_text(own)
    assert memory_kills.kills() == 0
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content.format(2))
    watch = MemoryKills()
    assert not watch.newly()
    path.write_text(content.format(3))
    assert watch.newly()
    assert not watch.newly()
