"""Commands about a run that another program is writing, and about one that is finished."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muzero_ray import launch
from muzero_ray.cli import start as run_start
from muzero_ray.runs.checkpoint import list_checkpoints, load_checkpoint
from muzero_ray.runs.lock import RunLock
from tests import patience
from tests.small_runs import rows, run_serial, small_config
from tests.test_command_line_runs import SMALL, start

ENDLESS = [*SMALL, "--iterations", "1000000", "--run.checkpoint-steps", "10"]


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    def holds() -> bool:
        assert process.poll() is None, process.communicate()
        return condition()

    patience.until(holds)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A run that goes on, and the program that writes it."""
    runs = tmp_path_factory.mktemp("runs")
    process = start("train", "cartpole", *ENDLESS, "--runs-dir", runs, "--run.name", "live")
    try:
        until(lambda: bool(list_checkpoints(runs / "live" / "checkpoints")), process)
        yield runs / "live", process
    finally:
        process.kill()
        process.communicate()


def as_it_is(folder: Path) -> list[str]:
    """What no second writer may change."""
    kept = ("config.yaml", "lock.1")
    return [(folder / name).read_text() for name in kept] + [path.name for path in folder.glob("lock.*")]


def test_every_command_that_would_write_is_refused_and_every_reader_works(
    live: tuple[Path, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, process = live
    before = as_it_is(folder)
    monkeypatch.setattr(run_start, "PATIENCE_SECONDS", 0.1)
    name = ["--runs-dir", str(folder.parent), "--run.name", folder.name]
    for words in (
        ["resume", str(folder)],
        ["resume", str(list_checkpoints(folder / "checkpoints")[-1]), "--iterations", "2000000"],
        ["train", "cartpole", *ENDLESS, *name],
        ["train", "cartpole", *ENDLESS, *name, "--resume"],
    ):
        assert launch.main(words) == 2, words
        said = capsys.readouterr()
        assert f"pid {process.pid} on " in said.err
        assert "launch.py resume" not in said.err
        assert ("waiting up to 0.1 s" in said.out) == ("--resume" in words)
    assert launch.main(["report", str(folder)]) == 2
    assert f"no final evaluation yet; a process writes to it (pid {process.pid} on" in capsys.readouterr().err
    assert launch.main(["evaluate", str(folder), "--episodes", "2"]) == 0
    assert as_it_is(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    step = rows(folder)[-1]["learner_steps"]
    until(lambda: rows(folder)[-1]["learner_steps"] > step, process)


def test_a_second_train_resume_before_the_first_checkpoint_leaves_the_run_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("of the first\n")
    monkeypatch.setattr(run_start, "PATIENCE_SECONDS", 0.1)
    command = ["train", "cartpole", *SMALL, "--iterations", "5", "--runs-dir", str(tmp_path), "--run.name", "run"]
    with RunLock.acquire(folder) as lock:
        assert launch.main([*command, "--resume"]) == 2
        lock.confirm()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (folder / "config.yaml").read_text() == "of the first\n"
    # Once it is over, the name is free, and the lock was never given up on the way.
    assert launch.main([*command, "--resume"]) == 0
    assert (tmp_path / "run.abandoned-1" / "config.yaml").read_text() == "of the first\n"
    assert load_checkpoint(folder).step == 5
    assert not list(tmp_path.rglob("lock.*"))
    capsys.readouterr()


def test_a_killed_run_is_resumed_at_once(tmp_path: Path) -> None:
    process = start("train", "cartpole", *ENDLESS, "--runs-dir", tmp_path, "--run.name", "run")
    try:
        until(lambda: bool(list_checkpoints(tmp_path / "run" / "checkpoints")), process)
    finally:
        process.kill()
        process.communicate()
    assert (tmp_path / "run" / "lock.1").exists()
    step = load_checkpoint(tmp_path / "run").step
    assert launch.main(["resume", str(tmp_path / "run"), "--iterations", str(step + 5)]) == 0
    assert load_checkpoint(tmp_path / "run").step == step + 5
    assert not list((tmp_path / "run").glob("lock.*"))


# --- a run that is finished ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "done"
    assert run_serial(small_config(run={"learner_steps": 5, "name": "done"}), folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_resume_of_a_finished_run_does_nothing_and_says_how_to_go_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(finished, tmp_path / "done")
    before = contents(folder)
    score = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    for _ in range(2):
        assert launch.main(["resume", str(folder)]) == 0
        out = capsys.readouterr().out
        assert f"run {folder} is finished" in out
        assert f"trained: return_mean={score[-2]['return_mean']:.3f}" in out
        assert f"random:  return_mean={score[-1]['return_mean']:.3f}" in out
        assert "run.learner_steps=5 is reached" in out
        assert out.splitlines()[-1] == f"resume:  python launch.py resume {folder} --iterations 10"
    assert contents(folder) == before


def test_what_lacks_its_final_scores_is_still_evaluated(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "done")
    lines = (folder / "scores.jsonl").read_text().splitlines(keepends=True)
    (folder / "scores.jsonl").write_text("".join(line for line in lines if '"random"' not in line))
    assert launch.main(["resume", str(folder)]) == 0
    kinds = [json.loads(line)["kind"] for line in (folder / "scores.jsonl").read_text().splitlines()]
    assert kinds[-2:] == ["final", "random"]


def test_final_scores_of_older_weights_are_not_those_of_the_run(finished: Path, tmp_path: Path) -> None:
    """It went on, and was stopped in its second final evaluation."""
    folder = shutil.copytree(finished, tmp_path / "done")
    text = (folder / "scores.jsonl").read_text()
    (folder / "scores.jsonl").write_text(text.replace('"learner_step": 5', '"learner_step": 3'))
    assert launch.main(["resume", str(folder)]) == 0
    assert (folder / "scores.jsonl").read_text().count('"kind": "final"') == 2


def test_train_resume_of_a_finished_run_ends_well(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What restarts programs by itself must learn that there is nothing to restart."""
    folder = shutil.copytree(finished, tmp_path / "done")
    words = ["train", "--config", str(folder / "config.yaml"), "--runs-dir", str(tmp_path), "--resume"]
    assert launch.main(words) == 0
    assert f"run {folder} is finished" in capsys.readouterr().out


# --- a new run from an old one's file ------------------------------------------------------------------------------


def test_the_config_file_of_a_named_run_starts_a_new_one(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "done")
    words = ["train", "--config", str(folder / "config.yaml"), "--runs-dir", str(tmp_path)]
    assert launch.main(words) == 0
    (new,) = [path for path in tmp_path.iterdir() if path != folder]
    assert re.fullmatch(r"done-s3-\d{8}-\d{6}", new.name)
    assert launch.main([*words, "--run.name", "mine"]) == 0
    assert load_checkpoint(tmp_path / "mine").step == 5
    # A file of the user's own keeps its word: a name that is taken is refused.
    shutil.copy(folder / "config.yaml", tmp_path / "config.yaml")
    words[2] = str(tmp_path / "config.yaml")
    assert launch.main(words) == 2
