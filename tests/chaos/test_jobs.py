"""What the experiments on running jobs see and compare, without a job."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from chaos import kills
from chaos.group import Tally, half_written, resumes
from chaos.jobs import Broken, Job, WatchedRunState, small_config
from chaos.programs import Program, until
from chaos.witness import ACKNOWLEDGED, Note, acknowledged, digest, notes
from muzero_ray.runs.checkpoint import save_checkpoint
from muzero_ray.runs.replay_archive import ARRAYS_FILE, INDEX_FILE
from muzero_ray.types import GameId
from tests.patience import PATIENCE


def line(*game: int, host: str = "a") -> str:
    """A note as an actor writes it."""
    return json.dumps(Note(GameId(*game), host, 1.0)) + "\n"


def make_job(**parts: Any) -> Job:
    """A job with only those parts."""
    nothing: Any = None
    return Job(**({"supervisor": nothing, "workers": nothing, "run_state": nothing, "output": nothing} | parts))


def test_a_run_ends_exactly_at_its_target(tmp_path: Path) -> None:
    run_state = WatchedRunState(small_config(tmp_path))
    run_state.limiter.inserts(100_000)
    assert run_state.stop_reason() is None
    assert run_state.train_budget() > 10
    run_state.target = 10
    assert run_state.train_budget() == 10
    run_state.learner_at(10)
    assert (run_state.train_budget(), run_state.stop_reason()) == (0, "10 learner steps")


def test_rates_are_of_the_window_asked_for() -> None:
    job = make_job()
    job._samples += [(0.0, 0), (1.0, 100), (2.0, 100), (3.0, 130), (4.0, 190)]
    assert job.rate(0.0, 1.0) == 100.0
    assert job.rate(1.5, 4.5) == 45.0
    assert job.rate(10.0, 20.0) == 0.0


def test_waiting_ends_with_the_run() -> None:
    job = make_job()
    job.wait(lambda: True, "nothing")
    threading.Timer(0.05, job.over.set).start()
    with pytest.raises(Broken, match="the moon"):
        job.wait(lambda: False, "the moon", PATIENCE)
    with pytest.raises(Broken):
        job.sleep(PATIENCE)


def test_what_was_acknowledged_is_read_up_to_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / ACKNOWLEDGED.format(0, 0)).write_text(line(0, 0, 1) + line(0, 0, 2) + line(0, 0, 3)[:-12])
    (tmp_path / ACKNOWLEDGED.format(0, 1)).write_text(line(0, 1, 1, host="b"))
    assert notes(tmp_path)[2] == Note(GameId(0, 1, 1), "b", 1.0)
    assert acknowledged(tmp_path) == {GameId(0, 0, 1), GameId(0, 0, 2), GameId(0, 1, 1)}


@pytest.mark.parametrize(
    ("present", "written", "lost", "twice"),
    [
        ([1, 2, 3], [[1, 2], [3]], 0, 0),
        ([1, 3], [[1], [3]], 1, 0),
        ([1, 2, 3], [[1, 2], [2, 3]], 0, 1),
        ([1, 2, 2, 3], [[1, 2, 3]], 0, 1),
    ],
)
def test_lost_and_doubled_games_are_counted(
    tmp_path: Path, present: list[int], written: list[list[int]], lost: int, twice: int
) -> None:
    (tmp_path / ACKNOWLEDGED.format(0, 0)).write_text("".join(line(0, 0, seq) for seq in (1, 2, 3)))
    index = np.array([(0, 0, seq, 0, 0, 0, 0) for seq in present], np.int64)
    chunks = [{"ids": [[0, 0, seq] for seq in chunk]} for chunk in written]
    files = {
        ARRAYS_FILE: safetensors.numpy.save({"index": index}),
        INDEX_FILE: json.dumps({"chunks": chunks}).encode(),
    }
    root = tmp_path / "run" / "checkpoints"
    save_checkpoint(root, 200, model={}, optimizer={}, state={}, extra_files=files)
    job = make_job(output=SimpleNamespace(folder=tmp_path / "run"), run_state=SimpleNamespace(target=200))
    left, notes = kills.look(job, tmp_path)
    assert (left.reached, left.acknowledged, left.lost, left.twice) == (True, 3, lost, twice)
    assert bool(notes) == bool(lost)
    job.run_state.target = 300
    job.problems.append("it did not come back")
    left, notes = kills.look(job, tmp_path)
    assert not left.reached
    assert notes[:2] == ["it did not come back", "the last checkpoint is of step 200, the target was 300"]


@pytest.mark.parametrize(
    ("last", "last_without", "met"),
    [(100.0, 100.0, True), (70.0, 100.0, False), (70.0, 75.0, True), (91.0, 300.0, True)],
)
def test_throughput_is_compared_with_the_same_job_without_kills(last: float, last_without: float, met: bool) -> None:
    first, windows = [100.0] * 9, 9
    found = kills.drift(first + [50.0] + [last] * windows, first + [50.0] + [last_without] * windows)
    assert found.met is met
    assert found.figures["kept"] == last / 100
    assert found.figures["kept without"] == last_without / 100


def test_a_few_kills_say_nothing_of_a_drift() -> None:
    found = kills.drift([100.0, 10.0], [100.0, 100.0])
    assert found.met
    assert "not judged" in found.notes[0]


def test_a_state_has_one_hash_whatever_its_order() -> None:
    a, b = np.arange(3, dtype=np.float32), np.ones((2, 2), np.float32)
    one = digest(({"a": a, "b": b}, {"step": 3, "skipped": 0}))
    assert digest(({"b": b.T, "a": a.copy()}, {"skipped": 0, "step": 3})) == one
    assert digest(({"a": a, "b": b}, {"step": 4, "skipped": 0})) != one
    assert digest(({"a": a + 1, "b": b}, {"step": 3, "skipped": 0})) != one


def test_only_a_checkpoint_that_is_made_counts_as_a_write(tmp_path: Path) -> None:
    assert half_written(tmp_path) == set()
    root = tmp_path / "checkpoints"
    (root / ".tmp-gone-abc").mkdir(parents=True)
    (root / "100").mkdir()
    assert half_written(tmp_path) == set()
    (root / ".tmp-200-abc").mkdir()
    assert half_written(tmp_path) == {".tmp-200-abc"}


def test_a_program_is_watched_to_its_end(tmp_path: Path) -> None:
    with Program(tmp_path / "log", "presets") as program:
        assert program.wait(PATIENCE) == 0
        assert until(lambda: not program.left(), PATIENCE)
    assert "cartpole" in program.printed()
    assert program.error() == ""


def test_one_that_does_not_resume_is_noted(tmp_path: Path) -> None:
    tally = Tally()
    with Program(tmp_path / "log", "resume", tmp_path / "nowhere") as program:
        assert not resumes(program, 100, tally)
        assert program.wait(PATIENCE) == 2
    assert program.error().startswith("error: ")
    assert "not 100" in tally.notes[0]
