"""Runs whose folder was damaged, as people meet them: what `evaluate`, `resume` and `report` do and advise."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from muzero_ray import launch
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.run_config import CONFIG_COPY
from tests.small_runs import rows, run_serial, small_config


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with 7 rows, 1 score and 3 replay chunks, stopped at learner step 35 of 40."""
    folder = tmp_path_factory.mktemp("stopped") / "a run"
    run_serial(small_config(), folder, stop_at=33)
    return folder


@pytest.fixture(scope="module")
def resumed(stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, undamaged, and come to its end."""
    folder = tmp_path_factory.mktemp("resumed") / "a run"
    shutil.copytree(stopped, folder)
    assert launch.main(["resume", str(folder)]) == 0
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    shutil.copytree(stopped, tmp_path / "a run")
    return tmp_path / "a run"


def weights(folder: Path) -> bytes:
    return (load_checkpoint(folder).path / "model.safetensors").read_bytes()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def drop(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(2_000) + b"\n\x1b[2J\n")


def pipe(path: Path) -> None:
    drop(path)
    os.mkfifo(path)


def dangling(path: Path) -> None:
    drop(path)
    path.symlink_to(path.parent / "nowhere")


SIDE: dict[str, Callable[[Path], object]] = {
    "metrics.jsonl": garbage,
    "scores.jsonl": garbage,
    "replay/snapshot": garbage,
}
DAMAGE = [(name, kind) for name in SIDE for kind in (empty, drop, garbage, pipe, dangling)]


@pytest.mark.parametrize(("name", "kind"), DAMAGE)
def test_side_files_cost_a_resumed_run_nothing_else(
    name: str, kind: Callable[[Path], None], run: Path, resumed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind(run / name)
    assert launch.main(["resume", str(run)]) == 0
    assert weights(run) == weights(resumed)
    assert rows(run)[-1]["learner_steps"] == 40
    assert launch.main(["report", str(run)]) == 0
    out = capsys.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in out)


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "scores.jsonl", "replay", "replay/snapshot", "replay_index.json", "in_flight.json"]
)
@pytest.mark.parametrize("kind", [drop, dangling])
def test_weights_can_always_be_used(
    name: str, kind: Callable[[Path], None], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = load_checkpoint(run).path
    kind(newest / name if (newest / name).exists() else run / name)
    assert launch.main(["evaluate", str(run), "--episodes", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-2].startswith(f"checkpoint {newest}, ")
    assert out[-1].startswith("return_mean=")


@pytest.mark.parametrize("lost", [1, 3])
def test_lost_replay_is_named_with_the_command_that_goes_on(
    lost: int, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks = sorted((run / "replay").glob("*.games"))
    for path in chunks[:lost]:
        path.unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert launch.main(["resume", str(run), "--iterations", "42"]) == 1
    error = capsys.readouterr().err
    assert str(chunks[0]) in error
    assert re.search(r"\d+ games with \d+ of \d+ transitions of replay are lost", error)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    command = shlex.split(error[error.index("python launch.py") :])
    assert launch.main(command[2:]) == 0
    assert load_checkpoint(run).step == 42
    assert launch.main(["resume", str(run), "--iterations", "45"]) == 0


@pytest.mark.parametrize("kind", [empty, drop, garbage, dangling])
@pytest.mark.parametrize("command", ["resume", "evaluate", "report"])
def test_a_damaged_config_is_named_with_its_copy(
    kind: Callable[[Path], None], command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (run / "config.yaml").read_text()
    kind(run / "config.yaml")
    assert launch.main([command, str(run)]) == 2
    error = capsys.readouterr().err
    assert str(run) in error
    copying = shlex.split(error[error.index("cp ") :])
    assert copying[1] == str(load_checkpoint(run).path / CONFIG_COPY)
    (run / "config.yaml").unlink(missing_ok=True)
    subprocess.run(copying, check=True)
    assert (run / "config.yaml").read_text() == good
    assert launch.main(["evaluate", str(run), "--episodes", "1"]) == 0


def test_weights_go_on_without_any_replay(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No checkpoint has whole replay files, and some games were played that no checkpoint knows of."""
    for path in (run / "checkpoints").iterdir():
        empty(path / "replay_index.json")
    step = load_checkpoint(run, read="learner").step
    assert launch.main(["resume", str(run)]) == 1
    error = capsys.readouterr().err
    assert "all games are lost" in error
    command = shlex.split(error[error.index("python launch.py resume") :])
    assert launch.main(command[2:]) == 0
    assert f"resuming at learner step {step}" in capsys.readouterr().out
    assert load_checkpoint(run).step == 40
    drop(load_checkpoint(run).path / "model.safetensors")
    for path in (run / "checkpoints").iterdir():
        empty(path / "model.safetensors") if (path / "model.safetensors").exists() else None
    assert launch.main(["resume", str(run), "--without-lost-games"]) == 1
    assert "no good checkpoint" in capsys.readouterr().err
