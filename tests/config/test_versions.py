"""Config files of older versions are read under the names of today, and those of newer ones refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import parse_args
from muzero_ray.config.files import dump_config, load_config, read_config
from muzero_ray.config.renamed import RENAMED
from muzero_ray.config.schema import Config
from muzero_ray.config.validation import leaf_paths
from muzero_ray.errors import ConfigError
from muzero_ray.runs.run_config import load_run_config

OLD = """run:
  training_steps: 77
learner:
  lr: 0.5
reanalyze:
  share: 0.25
actors:
  learner_cpus: 2.5
  learner_gpus: 3.5
  learner_threads: 7
  count: 4
"""
"""As a program without versions wrote it."""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_old_names_are_read_as_those_of_today(tmp_path: Path) -> None:
    for config in (load_config(write(tmp_path, OLD)), load_run_config(tmp_path)):
        learner = config.learner
        assert (config.run.learner_steps, config.reanalyze.ratio, config.actors.count) == (77, 0.25, 4)
        assert (learner.lr, learner.cpus, learner.gpus, learner.threads) == (0.5, 2.5, 3.5, 7)


def test_what_was_converted_is_listed(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, OLD)).changes == (
        "run.training_steps is now called run.learner_steps",
        "actors.learner_cpus is now called learner.cpus",
        "actors.learner_gpus is now called learner.gpus",
        "actors.learner_threads is now called learner.threads",
        "reanalyze.share is now called reanalyze.ratio",
    )


def test_a_written_file_says_its_version_and_needs_no_conversion(tmp_path: Path) -> None:
    text = dump_config(Config())
    assert text.startswith("version: 2\n")
    assert read_config(write(tmp_path, text)).changes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env:\n  id: X-v0\nversion: 3\n", r"config.yaml:3: version: the file was written by a newer muzero_ray \(got"),
        ("version: two\n", r"config.yaml:1: version: must be a whole number from 1 on \(got 'two'\)"),
        ("version: 0\n", r"whole number from 1 on \(got 0\)"),
        ("version: true\n", r"whole number from 1 on \(got True\)"),
        (
            "version: 2\nactors:\n  learner_cpus: 1.0\n",
            r"config.yaml:3: actors.learner_cpus: .* now called learner.cpus",
        ),
        (
            "learner:\n  cpus: 1.0\nactors:\n  learner_cpus: 2.0\n",
            "config.yaml:4: actors.learner_cpus and learner.cpus are the same setting, and both are given",
        ),
        ("actors:\n  learner_cpus: -1.0\n", r"config.yaml:2: learner.cpus: must be above 0.0 \(got -1.0\)"),
        ("learner: 5\nactors:\n  learner_cpus: 1.0\n", "config.yaml:1: learner: must be a section"),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


def test_a_file_of_old_names_on_a_preset_of_new_ones(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "base: atari\nactors:\n  learner_gpus: 2.0\n"))
    assert (config.learner.gpus, config.learner.cpus) == (2.0, 1.0)


def test_old_options_do_what_the_new_ones_do_and_a_hint_names_those(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--run.training-steps=9", "--actors.learner_cpus", "3", "--reanalyze.share", "0.5", "--iterations", "8"]
    command = parse_args(["train", "cartpole", *words])
    assert isinstance(command, TrainCommand)
    config = command.config
    assert (config.run.learner_steps, config.learner.cpus, config.reanalyze.ratio) == (8, 3.0, 0.5)
    assert capsys.readouterr().err.splitlines() == [
        "hint: --run.training-steps is now called --run.learner-steps",
        "hint: --actors.learner_cpus is now called --learner.cpus",
        "hint: --reanalyze.share is now called --reanalyze.ratio",
    ]


def test_every_name_of_today_exists_and_no_old_one_does() -> None:
    settings = set(leaf_paths(Config))
    assert set(RENAMED.values()) <= settings
    assert not settings & set(RENAMED)


def test_a_newer_run_is_refused_without_the_hint_at_a_copy_which_is_newer_too(tmp_path: Path) -> None:
    write(tmp_path, "version: 3\n")
    copy = tmp_path / "checkpoints" / "10" / "run_config.yaml"
    copy.parent.mkdir(parents=True)
    copy.write_text("version: 3\n")
    with pytest.raises(ConfigError, match=r"written by a newer muzero_ray .* Update muzero_ray$"):
        load_run_config(tmp_path)
