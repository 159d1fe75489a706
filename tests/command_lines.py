"""Command lines as tests write them, and a run's folder for them to name."""

from __future__ import annotations

from pathlib import Path

import pytest

from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import parse_args
from muzero_ray.config import files as config_file
from muzero_ray.errors import ConfigError


def train(line: str) -> TrainCommand:
    command = parse_args(["train", *line.split()])
    assert isinstance(command, TrainCommand)
    return command


def refused(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_args(argv)
    return str(caught.value)


def make_run(folder: Path) -> Path:
    (folder / "checkpoints" / "100").mkdir(parents=True)
    (folder / "config.yaml").write_text(config_file.dump_config(config_file.load_preset("cartpole")))
    return folder
