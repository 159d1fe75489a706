"""`muzero_ray.train` as the command that `launch.py train` makes of its words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import is_of_a_run, run_label
from muzero_ray.config.files import load_config, preset_path
from muzero_ray.config.schema import Config
from muzero_ray.user_paths import check_run_name

Source = Config | str | Path
"""Settings, the name of a preset, or a YAML file."""

FROM_PYTHON = "python"
"""What the names of runs begin with whose settings come from no file."""


def file_of(source: str | Path) -> Path:
    """The file of a preset, or the one that is named. ConfigError for neither."""
    path = Path(source)
    return path if isinstance(source, Path) or path.suffix in (".yaml", ".yml") else preset_path(source)


def config_of(source: Source) -> Config:
    """The settings that `source` holds. The name in a run's own file is that run's: it is left out."""
    if isinstance(source, Config):
        return source
    path = file_of(source)
    config = load_config(path)
    if not is_of_a_run(path):
        return config
    return config.model_copy(update={"run": config.run.model_copy(update={"name": None})})


def train_call(source: Source, settings: Mapping[str, Any], *, resume: bool) -> TrainCommand:
    """As `launch.py train SOURCE` with an option for each of the `settings`, which are named with dots."""
    config = config_of(source).override(settings)
    if config.run.name is not None:
        check_run_name(config.run.name, "run.name")
    label = FROM_PYTHON if isinstance(source, Config) else run_label(file_of(source))
    return TrainCommand(config, None, label, resume)
