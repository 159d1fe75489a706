"""Run: what it reads of a run's folder, and that nobody else knows the names in it."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest

from muzero_ray.errors import CheckpointError, ConfigError
from muzero_ray.runs.checkpoint import save_checkpoint
from muzero_ray.runs.run import Run
from tests.test_layering import modules

NAMES = {"config.yaml", "metrics.jsonl", "scores.jsonl"}
FOLDERS = {"checkpoints", "replay", "videos"}


def spelled(path: Path) -> set[str]:
    """Names of a run's files that the code in `path` uses: as a text of their own, or joined to a path."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and node.value in NAMES:
            found.add(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            found |= {node.right.value} & FOLDERS
    return found


def test_one_module_spells_the_names_in_a_runs_folder() -> None:
    where = {name: names for name, path in modules().items() if (names := spelled(path))}
    assert where == {"muzero_ray.runs.layout": NAMES}


def checkpoints(folder: Path, scores: dict[int, float | None]) -> Run:
    for step, score in scores.items():
        weights = {"model.w": np.full(2, step, np.float32)}
        save_checkpoint(
            folder / "checkpoints", step, model=weights, optimizer={"a": np.zeros(1)}, state={}, keep=9, best=score
        )
    return Run(folder)


def test_a_checkpoint_is_the_last_the_best_or_that_of_a_step(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, {10: 1.0, 20: 7.0, 30: 7.0, 40: 3.0, 50: None})
    assert run.steps() == [50, 40, 30, 20, 10]
    assert run.checkpoint().step == run.checkpoint("last").step == 50
    assert run.checkpoint("best").step == 30
    assert run.checkpoint(20).model["model.w"].tolist() == [20.0, 20.0]


def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, {10: None, 20: None})
    with pytest.raises(CheckpointError, match=r"checkpoint=15: .* no checkpoint of that learner step.* 20, 10$"):
        run.checkpoint(15)
    with pytest.raises(CheckpointError, match=r"checkpoint=best: no checkpoint .* has a score yet"):
        run.checkpoint("best")


def test_weights_are_read_where_the_optimizer_is_gone(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, {10: 1.0})
    (tmp_path / "checkpoints" / "10" / "optimizer.safetensors").unlink()
    for which in ("last", "best", 10):
        assert run.checkpoint(which, read="weights").step == 10  # type: ignore[arg-type]
        with pytest.raises(CheckpointError, match=r"optimizer\.safetensors"):
            run.checkpoint(which, read="learner")  # type: ignore[arg-type]


def test_metrics_are_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"env_steps": 5, "learner_steps": 1, "episodes": 0, "wall_s": 0.5, "loss/total": None},
        {"env_steps": 9, "learner_steps": 2, "episodes": 1, "wall_s": 1.0, "loss/total": 2.5, "eval/return_mean": 4.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(["nonsense", *map(json.dumps, rows)]) + "\n")
    table = Run(tmp_path).metrics()
    assert list(table) == ["env_steps", "learner_steps", "episodes", "wall_s", "loss/total", "eval/return_mean"]
    assert table["env_steps"].tolist() == [5, 9]
    assert math.isnan(table["loss/total"][0])
    assert table["loss/total"][1] == 2.5
    assert "line 1 is not valid JSON" in caplog.text
    frame = pytest.importorskip("pandas").DataFrame(dict(table))
    assert table.to_pandas().equals(frame)


def test_scores_that_are_damaged_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = {"kind": "final", "learner_step": 9}
    lines = [json.dumps(good), json.dumps({"kind": "final"}), '{"kind": "fi']
    path = tmp_path / "scores.jsonl"
    path.write_text("\n".join(lines))
    assert Run(tmp_path).scores() == [good]
    expected = "line 2 has no whole number as learner_step, line 3 is cut off. These lines are left out"
    assert caplog.messages == [f"{path} is damaged: {expected}"]


def test_a_run_without_rows_has_empty_columns(tmp_path: Path) -> None:
    assert {name: len(column) for name, column in Run(tmp_path).metrics().items()} == {
        "env_steps": 0,
        "learner_steps": 0,
        "episodes": 0,
        "wall_s": 0,
    }


def test_a_folder_that_is_not_a_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml: there is no such config file"):
        _ = Run(tmp_path).config
