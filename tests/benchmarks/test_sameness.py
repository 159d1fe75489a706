"""The comparison of two checkouts: equal runs are called equal, and one changed number anywhere is found."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import sameness
from benchmarks.sameness import differences, game_facts, metric_facts, read_facts, setting_facts
from muzero_ray.runs.checkpoint import load_checkpoint, save_checkpoint
from tests.replay.games import make_game
from tests.small_runs import run_serial, small_config

PROGRAM = """
import shutil, sys
from pathlib import Path
if sys.argv[-1] == "--help":
    print({known!r})
else:
    given = dict(zip(sys.argv[4:], sys.argv[5:]))
    folder = Path(given["--runs-dir"], given["--run.name"])
    shutil.copytree({run!r}, folder)
    Path(__file__).with_name("given").write_text(" ".join(sys.argv[1:]))
"""
"""Stands for a checkout's launch.py: knows some settings, and leaves a run that is there already."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert run_serial(small_config("cartpole"), run)
    return run


def change_a_setting(run: Path) -> None:
    config = run / "config.yaml"
    text = config.read_text()
    assert "simulations: 4\n" in text
    config.write_text(text.replace("simulations: 4\n", "simulations: 5\n", 1))


def change_a_tensor(run: Path) -> None:
    """By the smallest step that one float32 can take."""
    checkpoint = load_checkpoint(run)
    name, array = next(iter(checkpoint.model.items()))
    array = array.copy()
    array.flat[0] = np.nextafter(array.flat[0], np.float32(np.inf))
    save_checkpoint(
        run / "checkpoints",
        checkpoint.step,
        model=checkpoint.model | {name: array},
        optimizer=checkpoint.optimizer,
        state=checkpoint.state,
        extra_files=checkpoint.files,
    )


def change_a_metric(run: Path) -> None:
    file = run / "metrics.jsonl"
    *rows, last = [json.loads(line) for line in file.read_text().splitlines()]
    last["loss/policy"] = float(np.nextafter(last["loss/policy"], 1.0))
    last["wall_s"] += 1.0  # of the clock: does not count
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, last]))


def change_a_score(run: Path) -> None:
    file = run / "scores.jsonl"
    *scores, last = [json.loads(line) for line in file.read_text().splitlines()]
    last["returns"][0] += 1.0
    file.write_text("".join(json.dumps(score) + "\n" for score in [*scores, last]))


def test_a_run_equals_itself_and_nothing_is_compared_in_vain(finished: Path) -> None:
    facts = read_facts(finished)
    assert all(facts[kind] for kind in ("settings", "tensors", "games", "metrics", "scores"))
    assert differences(facts, read_facts(finished)) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (change_a_setting, "settings"),
        (change_a_tensor, "tensors"),
        (change_a_metric, "metrics"),
        (change_a_score, "scores"),
    ],
)
def test_one_change_is_found(change: Callable[[Path], None], kind: str, finished: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(finished, tmp_path / "changed")
    change(changed)
    (line,) = differences(read_facts(finished), read_facts(changed))
    assert line.startswith(f"{kind}: 1 of ")


@pytest.mark.parametrize("field", ["actions", "rewards"])
def test_one_changed_move_is_found(field: str) -> None:
    game = make_game(np.random.default_rng(0), steps=5, seq=7)
    array = getattr(game, field).copy()
    array[3] += 1
    (line,) = differences({"games": game_facts([game])}, {"games": game_facts([replace(game, **{field: array})])})
    assert line.startswith(f"games: 1 of 2 differ, first {field} of (0, 0, 7): ")


def test_a_game_that_only_one_has_is_found() -> None:
    games = [make_game(np.random.default_rng(0), steps=2, seq=seq) for seq in (0, 1)]
    (line,) = differences({"games": game_facts(games[:1])}, {"games": game_facts(games)})
    assert line.startswith("games: 2 of 4 differ")
    assert "missing here" in line


def test_old_names_are_compared_under_the_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sameness, "RENAMED", {"run.old": "run.new", "loss/old": "loss/new"})
    assert setting_facts({"run": {"old": 1, "name": "a"}}) == setting_facts({"run": {"new": 1, "name": "b"}})
    assert metric_facts([{"loss/old": 0.5}]) == {"row 0: loss/new": 0.5}


def test_the_command_trains_with_both_checkouts(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other one calls a setting by its old name, and leaves another reward."""
    changed = shutil.copytree(finished, tmp_path / "changed")
    change_a_score(changed)
    names = [name.replace("_", "-") for name in sameness.OPTIONS]
    for place, run, first in (("here", finished, names[0]), ("there", changed, "run.old")):
        known = " ".join(f"--{name}" for name in [first, *names[1:]])
        (tmp_path / place).mkdir()
        (tmp_path / place / "launch.py").write_text(PROGRAM.format(known=known, run=str(run)))
    monkeypatch.setattr(sameness, "HERE", tmp_path / "here")
    monkeypatch.setattr(sameness, "RENAMED", {"run.old": next(iter(sameness.OPTIONS))})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = ["--presets", "cartpole", "--learner-steps", "9"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", "sameness", str(tmp_path / "there"), *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("benchmarks", run_name="__main__")
    assert stop.value.code == 1
    printed = capsys.readouterr().out
    assert "cartpole: different" in printed
    assert "scores: 1 of 4 differ, first random after 40 learner steps" in printed
    given = {place: (tmp_path / place / "given").read_text() for place in ("here", "there")}
    config = tmp_path / "there" / "configs" / "cartpole.yaml"
    same = f"train --config {config} --serial --seed 0 --iterations 9 "
    assert all(words.startswith(same) for words in given.values())
    assert "--run.wandb disabled" in given["here"]
    assert "--run.old disabled" in given["there"]


def test_a_folder_without_the_program_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sameness.main([str(tmp_path)]) == 2
    assert f"{tmp_path} is not a checkout of muzero_ray: launch.py is missing" in capsys.readouterr().err


def test_a_failed_run_says_what_the_program_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "launch.py").write_text("import sys; sys.exit('error: the disk is full')")
    monkeypatch.setattr(sameness, "HERE", tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert sameness.main([str(tmp_path)]) == 2
    assert "error: the disk is full" in capsys.readouterr().err
    assert list(tmp_path.glob("sameness-*")) == []
