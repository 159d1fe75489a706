"""Commands beside `train`: what they take, what they refuse; and what makes several runs of one command."""

from __future__ import annotations

from pathlib import Path

import pytest

from muzero_ray import launch
from muzero_ray.cli.commands import EvaluateCommand, PlayCommand, PresetsCommand, ReportCommand, ResumeCommand
from muzero_ray.cli.parse import parse_args
from muzero_ray.config import files as config_file
from tests.command_lines import make_run, refused, train


def test_evaluate_play_resume_presets(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    step = run / "checkpoints" / "100"
    assert parse_args(["evaluate", str(run)]) == EvaluateCommand(run=run)
    expected = EvaluateCommand(run=step, episodes=5, seed=2, simulations=50, c_scale=0.5, json=True)
    words = ["--episodes", "5", "--seed", "2", "--simulations", "50", "--c-scale", "0.5", "--json"]
    assert parse_args(["evaluate", str(step), *words]) == expected
    assert "simulations" in refused("evaluate", str(run), "--simulations", "0")
    assert expected.as_json
    expected_play = PlayCommand(run=run, episodes=3, seed=1, video=Path("x.mp4"))
    assert parse_args(["play", "--episodes", "3", "--seed", "1", "--video", "x.mp4", str(run)]) == expected_play
    assert parse_args(["resume", str(run)]) == ResumeCommand(run=run)
    assert parse_args(["presets"]) == PresetsCommand()


def test_resume_raises_only_the_limits_given(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    config = config_file.load_config(run / "config.yaml")
    command = parse_args(["resume", str(run), "--iterations", "123456", "--minutes", "2"])
    assert isinstance(command, ResumeCommand)
    expected = config.to_dict()
    expected["run"].update(learner_steps=123_456, minutes=2.0)
    assert command.extended(config).to_dict() == expected
    assert ResumeCommand(run=run).extended(config) == config
    long = parse_args(["resume", str(run), "--run.learner-steps", "123456", "--run.minutes", "2"])
    assert long == command
    words = ["--run.episodes", "7", "--run.address", "auto"]
    assert parse_args(["resume", str(run), *words]) == ResumeCommand(run=run, episodes=7, address="auto")
    assert refused("resume", str(run), "--run.minutes", "x").startswith("--run.minutes: ")


@pytest.mark.parametrize("option", ["--learner.lr", "--run.seed", "--seed", "--max_moves", "--run.checkpoint-steps"])
def test_resume_says_that_other_settings_stay(tmp_path: Path, option: str) -> None:
    message = refused("resume", str(make_run(tmp_path / "a")), option, "3", "--minutes", "2")
    assert message.startswith(f"{option}: a run keeps what it was started with; resume can change --run.learner-steps")
    assert message.endswith("start a new run from its config.yaml: train --config FILE")


def test_mistakes_of_the_other_commands(tmp_path: Path) -> None:
    run = make_run(tmp_path / "cartpole-1")
    assert refused("evaluat").endswith("Did you mean evaluate?")
    assert "needs the folder of a run" in refused("evaluate")
    missing = refused("resume", str(tmp_path / "cartpole-2"))
    assert missing.startswith("resume: the folder does not exist")
    assert missing.endswith(f"Did you mean {run}?")
    assert "has no config.yaml" in refused("play", str(tmp_path))
    assert refused("evaluate", str(run), "--episodes", "0").startswith("--episodes: must be above 0 (got 0).")
    assert refused("evaluate", str(run), "--sed", "1").endswith("Did you mean --seed?")
    assert refused("presets", "--all").startswith("--all: unknown option of presets.")


def test_the_table_of_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["presets"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["PRESET", "TASK", "HARDWARE", "TIME", "SCORE"]
    names = [row.split()[0] for row in rows[1:12]]
    assert names == [preset.name for preset in config_file.list_presets()]


def test_seeds_make_one_command_each() -> None:
    command = train("cartpole --seeds 0 7 --learner.lr 0.5")
    first, second = command.each_seed()
    assert (first.config.run.seed, second.config.run.seed) == (0, 7)
    assert (first.default_name, second.default_name) == ("cartpole-s0", "cartpole-s7")
    assert first.config.learner.lr == second.config.learner.lr == 0.5
    assert first.config.run.name is None
    named = train("cartpole --run.name mine --seeds 3 4 --resume").each_seed()
    assert [one.config.run.name for one in named] == ["mine-s3", "mine-s4"]
    assert all(one.resume for one in named)
    (alone,) = train("cartpole --run.name mine --seed 5").each_seed()
    assert (alone.config.run.name, alone.config.run.seed) == ("mine", 5)


@pytest.mark.parametrize("seeds", ["", "0 0", "x", "-1", "1.5", "true", "None"])
def test_seeds_that_are_none_are_refused(seeds: str) -> None:
    assert "--seeds: must be different whole numbers from 0 on" in refused(
        "train", "cartpole", "--seeds", *seeds.split()
    )


def test_seeds_go_neither_with_a_seed_nor_with_a_job() -> None:
    assert "--seeds: cannot be used with --seed" in refused("train", "cartpole", "--seed", "1", "--seeds", "2")
    address = ["--address", "http://head:8265", "--runs-dir", "/runs"]
    assert "submit: --seeds makes several runs" in refused("submit", "cartpole", *address, "--seeds", "1", "2")


def test_report_takes_runs(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    assert parse_args(["report", str(one), str(two), "--json"]) == ReportCommand(runs=(one, two), json=True)
    assert "report: the folder does not exist" in refused("report", str(one), str(tmp_path / "three"))
    assert "report: needs the folder of a run" in refused("report")
