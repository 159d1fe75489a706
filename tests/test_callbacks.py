"""Callbacks end a run; those that cannot be used are named before anything is made or changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import muzero_ray as mz
from muzero_ray import launch
from muzero_ray.cli import start
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.result import Evaluation
from tests.small_runs import small_config, small_settings


class StopAtScore:
    """With any score: the example of the documentation."""

    def on_evaluation(self, score: Evaluation) -> object:
        return mz.STOP if score.mean >= 0 else None


class Fails:
    def __init__(self) -> None:
        self.calls = 0

    def on_metrics(self, row: dict[str, float]) -> None:
        self.calls += 1
        raise KeyError(f"no such thing at {row['learner_steps']}")


def test_a_callback_ends_the_run_cleanly_and_one_that_fails_does_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = Fails()
    run = mz.train("cartpole", small_settings(tmp_path), serial=True, callbacks=[failing, StopAtScore()])
    said = capfd.readouterr().out
    assert failing.calls == 1
    assert f"callback Fails.on_metrics failed (KeyError: 'no such thing at 10' at {__file__}:" in said
    assert "ended:   StopAtScore.on_evaluation returned STOP" in said
    assert run.steps()[0] == 20
    assert [score["kind"] for score in run.scores()] == ["evaluation", "final", "random"]
    # Nothing is used up: a run that is resumed goes on.
    again = mz.train("cartpole", small_settings(tmp_path), serial=True, resume=True)
    assert again.steps()[0] == 40


def test_callbacks_come_from_the_settings_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_callbacks.py").write_text(
        "class Stops:\n    def on_metrics(self, row):\n        import muzero_ray\n        return muzero_ray.STOP\n"
        "class Empty:\n    pass\nclass Needs:\n    def __init__(self, what):\n        pass\n"
        "class Fails:\n    def __init__(self):\n        raise AttributeError('no such thing')\n"
    )
    (tmp_path / "broken.py").write_text("raise AttributeError('no lods')\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def train(name: str) -> int:
        path = tmp_path / "settings.yaml"
        config = small_config().override({"run.runs_dir": str(tmp_path), "run.callbacks": [name]})
        path.write_text(json.dumps(config.to_dict()))
        return launch.main(["train", "--config", str(path), "--serial", "--run.name", "run"])

    for name, message in {
        "no_such_module:Stops": "module 'no_such_module' cannot be imported",
        "my_callbacks:Stop": "has no attribute 'Stop'",
        "my_callbacks:Needs": "making it failed",
        "broken:Stops": f"importing it failed (AttributeError: no lods at {tmp_path}/broken.py:1)",
        "my_callbacks:Fails": "making it failed (AttributeError: no such thing",
        "my_callbacks:Empty": "Empty has no method that could be called. Give it one of on_game",
    }.items():
        assert train(name) == 2
        assert message in capfd.readouterr().err
        assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="Use a module and a class in it, such as my_pkg:MyCallback"):
        small_config().override({"run.callbacks": ["my_callbacks"]})
    assert train("my_callbacks:Stops") == 0
    assert "ended:   Stops.on_metrics returned STOP" in capfd.readouterr().out


def refused(settings: dict[str, Any], *, resume: bool = False) -> None:
    """W&B is not even begun, and no environment is made."""
    settings = settings | {"run.wandb": "offline"}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("probe", "set_aside"):
            patch.setattr(start, name, lambda *_, **__: pytest.fail("too late"))
        with pytest.raises(ConfigError, match=r"StopAtScore is a class\. Pass an instance, such as StopAtScore\(\)"):
            mz.train("cartpole", settings, serial=True, resume=resume, callbacks=[StopAtScore])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_class_in_place_of_a_callback_is_named(tmp_path: Path) -> None:
    refused(small_settings(tmp_path))
    assert not (tmp_path / "run").exists()


def test_it_leaves_a_run_that_was_to_be_resumed_as_it_is(tmp_path: Path) -> None:
    settings = small_settings(tmp_path) | {"run.wandb": "offline"}
    run = mz.train("cartpole", settings | {"run.learner_steps": 20}, serial=True)
    before = contents(run.folder)
    refused(settings, resume=True)
    assert contents(run.folder) == before
    for path in run.checkpoints_folder.iterdir():  # it ended before its first checkpoint
        path.rename(tmp_path / path.name)
    before = contents(run.folder)
    refused(settings, resume=True)
    assert contents(run.folder) == before
