"""Runs that an earlier version left (`golden/make_old_runs.py`): they are evaluated, reported and gone on with."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muzero_ray import launch
from muzero_ray.runs.checkpoint import load_checkpoint
from tests.small_runs import rows

ARCHIVES = Path(__file__).parent / "golden" / "old_runs"
PRESETS = ("cartpole", "tictactoe", "breakout", "minatar-breakout")


@pytest.fixture(params=PRESETS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An old run at learner step 2, with its final scores."""
    with tarfile.open(ARCHIVES / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / request.param


def scores(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]


def final_score(run: Path) -> dict[str, Any]:
    return next(score for score in scores(run) if score["kind"] == "final")


def test_an_old_run_is_evaluated(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the protocol that it had then: the same game, search, opponent and number of simulations."""
    old = {name: value for name, value in final_score(run)["protocol"].items() if name != "digest"}
    assert launch.main(["evaluate", str(run), "--episodes", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["learner_step"] == 2
    assert len(found["returns"]) == 2
    assert np.isfinite(found["returns"]).all()
    assert {name: found["protocol"][name] for name in old} == old


def test_an_old_run_is_reported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["report", str(run), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    final, random = scores(run)[-2:]
    assert (final["kind"], random["kind"]) == ("final", "random")
    assert (found["score"], found["random"]) == (final["return_mean"], random["return_mean"])
    assert (found["seed"], found["learner_steps"]) == (1, 2)


def test_an_old_run_goes_on(run: Path) -> None:
    """With one more learner step, from its weights and games; the rows and scores that it left stay."""
    old, old_rows, old_scores = load_checkpoint(run), rows(run), scores(run)
    assert launch.main(["resume", str(run), "--iterations", "3"]) == 0
    new, new_rows, new_scores = load_checkpoint(run), rows(run), scores(run)
    assert (old.step, new.step) == (2, 3)
    assert new.model.keys() == old.model.keys()
    assert new.optimizer.keys() == old.optimizer.keys()
    moved = [float(abs(new.model[name] - array).max()) for name, array in old.model.items() if name.endswith(".weight")]
    assert 0 < max(moved) < 0.01  # the rate of learning is below 0.005, and first weights are in the tenths
    assert new_rows[:-1] == old_rows
    assert new_rows[-1]["env_steps"] > old_rows[-1]["env_steps"]
    assert new_rows[-1]["replay/games"] >= old_rows[-1]["replay/games"]
    assert new_scores[: len(old_scores)] == old_scores
    assert [score["kind"] for score in new_scores[len(old_scores) :]] == ["evaluation", "final", "random"]
