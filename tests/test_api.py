"""The public API: what `import muzero_ray` costs, and that its calls do what the commands of the same names do."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import muzero_ray as mz
from muzero_ray import launch
from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import parse_args
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.runs.checkpoint import list_checkpoints
from muzero_ray.types import GameHistory
from tests.small_runs import assert_same_run, rows, run_serial, small_config, small_settings

ROOT = Path(__file__).parent.parent

HEAVY = ("torch", "ray", "numba", "gymnasium", "cv2", "wandb", "pandas", "pydantic", "numpy")


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.games: list[GameHistory] = []
        self.rows: list[dict[str, float]] = []
        self.scores: list[Evaluation] = []
        self.paths: list[Path] = []
        self.transitions = 0

    def on_game(self, history: GameHistory, stats: Any) -> None:
        self.games.append(history)
        self.transitions = stats.transitions

    def on_metrics(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def on_evaluation(self, score: Evaluation) -> None:
        self.scores.append(score)

    def on_checkpoint(self, path: Path) -> None:
        assert path.is_dir()
        self.paths.append(path)


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recorder: Recorder) -> mz.Run:
    return mz.train("cartpole", small_settings(tmp_path_factory.mktemp("runs")), serial=True, callbacks=[recorder])


def test_importing_the_package_loads_nothing_large() -> None:
    code = f"import sys, muzero_ray; print([name for name in {HEAVY} if name in sys.modules]); muzero_ray.train"
    answer = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout == "[]\n"


@pytest.mark.parametrize("name", mz.__all__)
def test_every_public_name_says_how_it_is_used(name: str) -> None:
    value = getattr(mz, name)
    source = Path(sys.modules[type(value).__module__].__file__ or "") if name == "STOP" else None
    text = source.read_text() if source else (value.__doc__ or "")
    assert "mz." in text or "config." in text, f"{name} has no example"
    assert name in dir(mz)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'muzero_ray' has no attribute 'trian'"):
        _ = mz.trian


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_code_of_the_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word; the run is smaller."""
    section = (ROOT / page).read_text().partition("# From Python")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    if importlib.util.find_spec("onnxruntime") is None:
        code = "".join(line for line in code.splitlines(keepends=True) if "export" not in line)
    train = mz.train

    def small(source: str, settings: dict[str, Any], *, serial: bool) -> mz.Run:
        assert serial
        return train(source, settings | small_settings(tmp_path), serial=True)

    monkeypatch.setattr(mz, "train", small)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(code, page, "exec"), found)
    assert found["env"].action_space.contains(found["action"])
    assert found["plan"].visits.sum() == found["run"].config.search.simulations
    assert len(found["score"].returns) == 100
    assert found["score"].learner_step == found["agent"].step == 40
    assert found["table"]["learner_steps"].tolist() == [10, 20, 30, 40]
    assert (tmp_path / "folder" / "h.onnx").exists() == ("export" in code)


def test_evaluate_scores_what_the_command_scores(run: mz.Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(run.folder), "--episodes", "4", "--seed", "7", "--simulations", "3", "--json"]
    assert launch.main(words) == 0
    expected = json.loads(capsys.readouterr().out)
    score = mz.evaluate(str(run.folder), episodes=4, seed=7, simulations=3)
    assert score.returns.tolist() == expected["returns"]
    assert score.protocol.digest == expected["protocol"]["digest"]


def test_train_makes_the_run_that_the_command_makes(tmp_path: Path) -> None:
    config = small_config()
    expected = tmp_path / "expected"
    assert run_serial(config, expected)
    named = config.override({"run.runs_dir": str(tmp_path), "run.name": "made"})
    assert mz.train(named).folder == tmp_path / "made"
    assert_same_run(config, tmp_path / "made", expected)


def test_callbacks_are_told_what_the_run_writes(run: mz.Run, recorder: Recorder) -> None:
    written = rows(run.folder)
    assert recorder.rows[:-1] == written[:-1]
    assert recorder.rows[-1]["learner_steps"] == written[-1]["learner_steps"] == 40
    scores = [score for score in run.scores() if score["kind"] != "random"]
    assert [score.mean for score in recorder.scores] == [score["return_mean"] for score in scores]
    assert [score.learner_step for score in recorder.scores] == [20, 40, 40]
    assert {int(path.name) for path in recorder.paths} == {20, 40}
    state = run.checkpoint().state["book"]
    assert sum(game.owned for game in recorder.games) == state["limiter"]["inserted"] > 0
    assert recorder.transitions > 0


class StopsAtTheFirstScore:
    def on_evaluation(self, _score: Evaluation) -> object:
        return mz.STOP


@pytest.mark.parametrize("name", ["named", None])
def test_resume_with_a_runs_own_config_goes_on_with_it(tmp_path: Path, name: str | None) -> None:
    """Wherever its folder is by now; the command line does the same."""
    settings = {**small_settings(tmp_path / "runs"), "run.name": name}
    run = mz.train("cartpole", settings, serial=True, callbacks=[StopsAtTheFirstScore()])
    assert run.steps()[0] == 20
    (tmp_path / "elsewhere").mkdir()
    moved = mz.Run(run.folder.rename(tmp_path / "elsewhere" / "moved"))
    command = parse_args(["train", "--config", str(moved.config_file), "--resume"])
    assert isinstance(command, TrainCommand)
    assert command.new_folder() == moved.folder
    again = mz.train(moved.config_file, resume=True)
    assert (again.folder, again.steps()[0]) == (moved.folder, 40)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["moved"]
    assert not list((tmp_path / "runs").iterdir())


def test_settings_alone_do_not_say_which_run_to_resume(tmp_path: Path) -> None:
    config = mz.load_config("cartpole").override({"run.runs_dir": str(tmp_path)})
    with pytest.raises(
        ConfigError, match=r"resume=True: run\.name is not set, .*Set it, or train with the config\.yaml"
    ):
        mz.train(config, resume=True)
    assert not list(tmp_path.iterdir())


class Interrupts:
    """Presses Ctrl-C."""

    def on_metrics(self, row: dict[str, float]) -> None:
        assert row["learner_steps"] == 10
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_writes_a_checkpoint_and_the_program_goes_on(tmp_path: Path) -> None:
    """And what a run sets for the whole process is as it was."""
    handler, threads = signal.getsignal(signal.SIGINT), torch.get_num_threads()
    random.seed(4)
    np.random.seed(4)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    os.environ["WANDB_API_KEY"] = "kept"
    run = mz.train("cartpole", small_settings(tmp_path), serial=True, callbacks=[Interrupts()])
    assert os.environ.pop("WANDB_API_KEY") == "kept"
    assert [int(path.name) for path in list_checkpoints(run.checkpoints_folder)] == [10]
    assert run.scores() == []
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.get_num_threads() == threads
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # type: ignore[index]  # noqa: NPY002


class ActsBeside:
    """Does what threads beside the run may do meanwhile, and what they may not."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings | {"run.name": "second"}
        self.refusal = ""

    def on_checkpoint(self, path: Path) -> None:
        assert path.is_dir()
        os.environ["SET_BESIDE"] = "new"
        os.environ.pop("REMOVED_BESIDE")
        os.environ.setdefault("WANDB_DATA_DIR", "as W&B's thread sets it")
        with pytest.raises(ConfigError) as caught:
            mz.train("cartpole", self.settings, serial=True)
        self.refusal = str(caught.value)


def test_a_run_in_another_thread_changes_nothing_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_DATA_DIR", "SET_BESIDE"):
        monkeypatch.setenv(name, "old")  # put back after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("REMOVED_BESIDE", "old")
    ended: list[mz.Run] = []
    small = small_settings(tmp_path) | {"run.learner_steps": 5}
    beside, drawn = ActsBeside(small), random.getstate()

    def train() -> None:
        ended.append(mz.train("cartpole", small, serial=True, callbacks=[beside]))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert ended[0].steps() == [5]
    assert os.environ["SET_BESIDE"] == "new"
    assert not {"REMOVED_BESIDE", "WANDB_DATA_DIR"} & os.environ.keys()
    assert random.getstate() != drawn  # nobody draws again what was drawn meanwhile
    assert "a run is going on in this process already" in beside.refusal
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("cartpol", {}, r"there is no preset of that name \(got 'cartpol'\)\. Did you mean cartpole\?"),
        ("none.yaml", {}, r"none\.yaml: there is no such config file"),
        ("cartpole", {"learner.lrr": 1}, r"learner\.lrr: unknown key"),
        ("cartpole", {"run.name": "../up"}, r"run\.name: must name a folder below --runs-dir"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_made(
    tmp_path: Path, source: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        mz.train(source, {"run.runs_dir": str(tmp_path / "runs")} | changes, serial=True)
    assert not (tmp_path / "runs").exists()


def test_a_ray_of_the_programs_own_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    with pytest.raises(
        ConfigError,
        match=r"Ray is running in this process already .* Train in a process of its own, or with serial=True",
    ):
        mz.train("cartpole", small_settings(tmp_path))


def test_a_ray_that_asks_for_no_token_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    internals = SimpleNamespace(asks_for_token=lambda: False)
    monkeypatch.setitem(sys.modules, "muzero_ray.actors.ray_internals", internals)
    with pytest.raises(ConfigError, match=r"Ray was imported .* Start Python with RAY_AUTH_MODE=token"):
        mz.train("cartpole", small_settings(tmp_path))


SCRIPT = """
import gc
import os

import muzero_ray as mz

class Games:
    seen = 0

    def on_game(self, history, stats):
        self.seen += len(history)

    def on_checkpoint(self, path):
        return mz.STOP if self.seen else None

games, variables = Games(), dict(os.environ)
run = mz.train("cartpole", SETTINGS, callbacks=[games])
assert games.seen > 0
assert dict(os.environ) == variables
assert gc.get_freeze_count() == 0
agent = mz.Agent.load(run)
print("acts:", agent.act([0.0, 0.0, 0.0, 0.0]))
"""


def test_a_script_trains_with_ray_where_other_modules_have_our_names(tmp_path: Path) -> None:
    """It has no `if __name__ == "__main__"`: no process of a run may import it once more."""
    (tmp_path / "actors").mkdir()
    for name in ("actors/__init__.py", "launch.py", "learner.py"):
        (tmp_path / name).write_text("raise RuntimeError('not ours')\n")
    small = small_settings(tmp_path) | {
        "actors.num_cpus": 0.2,
        "learner.cpus": 0.2,
        "evaluation.final_episodes": 1,
    }
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT).replace("SETTINGS", repr(small)))
    answer = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "ended:   Games.on_checkpoint returned STOP" in answer.stdout
    assert "acts: " in answer.stdout
