"""Every example runs, in small form."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import muzero_ray as mz
from tests.small_runs import small_settings

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def _examples_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def example(name: str) -> Any:
    return import_module(name)


def test_each_example_is_run_by_a_test_and_named_in_the_readme() -> None:
    text = Path(__file__).read_text()
    readme = (EXAMPLES.parent / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".ipynb"):
            assert f'"{path.stem}"' in text or f'"{path.name}"' in text
            assert f"examples/{path.name}" in readme


def test_quick_start_and_a_loop_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("quick_start").main(small_settings(tmp_path))
    assert "one game in a loop of our own:" in capsys.readouterr().out
    example("own_loop").main(mz.Run(tmp_path / "run"), moves=3)
    said = capsys.readouterr().out
    assert "move 2: action" in said
    assert "of 50 simulations" in said


def test_an_environment_with_action_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is paid is the amount, whatever was learned: coins that are too large are not legal."""
    example("custom_environment").main(small_settings(tmp_path))
    said = capsys.readouterr().out.splitlines()[-1]
    amount, _, paid = said.removeprefix("change for ").partition(": ")
    assert sum(map(int, paid.strip("[]").split(","))) == int(amount)


def test_callbacks_end_a_run_at_a_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = example("callbacks").main(small_settings(tmp_path), score=1.0)
    assert run.steps() == [20]
    assert "StopAtScore.on_evaluation returned STOP" in capsys.readouterr().out


def test_the_command_for_callbacks_is_executed_as_it_is_written(tmp_path: Path) -> None:
    text = example("callbacks").__doc__
    (words,) = (span.split() for span in re.findall(r"`(python launch\.py [^`]+)`", text))
    small = "--serial --iterations 2 --replay.min-size 16 --learner.batch-size 4 --evaluation.final-episodes 1"
    own = (
        f"--run.wandb disabled --evaluation.video False --actors.rollout-steps 10 --runs-dir {tmp_path} --run.name run"
    )
    answer = subprocess.run(
        [sys.executable, *words[1:], *small.split(), *own.split()],
        cwd=EXAMPLES.parent,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert mz.Run(tmp_path / "run").config.run.callbacks == ("examples.callbacks:StopAtScore",)


def test_a_loop_of_ones_own_for_masks_stacks_and_keywords(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The environment refuses an action that is not legal. The last plan sees what `act` has stacked."""
    env = {"env.id": "tests.depot_environment:Depot-v0", "env.frame_stack": 3, "env.kwargs": {"lots": 3, "capacity": 5}}
    small = small_settings(tmp_path) | env | {"run.learner_steps": 3, "evaluation.final_episodes": 1}
    run = mz.train("cartpole", small, serial=True)
    plans, acts = [], []
    with pytest.MonkeyPatch.context() as patch:
        search = mz.Agent._search

        def recorded(agent: mz.Agent, stacked: Any, *rest: Any) -> Any:
            (acts if stacked is agent._stacker.stacked else plans).append(stacked.copy())
            return search(agent, stacked, *rest)

        patch.setattr(mz.Agent, "_search", recorded)
        example("own_loop").main(run, moves=8)
    assert "move 7: action" in capsys.readouterr().out
    np.testing.assert_array_equal(plans, acts)
    assert np.shape(plans) == (8, 1, 15)


def test_the_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("nbmake")
    shutil.copy(EXAMPLES / "notebook.ipynb", tmp_path)
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", "notebook.ipynb"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    shown = (tmp_path / "notebook.ipynb").read_text()
    assert "training is over; final evaluation" in shown  # what a run says is shown in the notebook
    assert "return_mean=" in shown
