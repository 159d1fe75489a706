"""`muzero_ray.train` as the command that `launch.py train` makes of its words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import run_label, run_overrides
from muzero_ray.config.files import load_config, preset_path
from muzero_ray.config.schema import Config
from muzero_ray.errors import ConfigError
from muzero_ray.user_paths import check_run_name

Source = Config | str | Path
"""Settings, the name of a preset, or a YAML file."""

FROM_PYTHON = "python"
"""What the names of runs begin with whose settings come from no file."""


def file_of(source: str | Path) -> Path:
    """The file of a preset, or the named file. Raises ConfigError for an unknown preset."""
    path = Path(source)
    return path if isinstance(source, Path) or path.suffix in (".yaml", ".yml") else preset_path(source)


def config_of(source: str | Path, *, resume: bool = False) -> Config:
    """The settings of a preset or a file; for a run's own file with `run_overrides`."""
    path = file_of(source)
    config = load_config(path)
    return config.model_copy(update={"run": config.run.model_copy(update=run_overrides(path, resume=resume))})


def train_call(source: Source, settings: Mapping[str, Any], *, resume: bool) -> TrainCommand:
    """As `launch.py train SOURCE` with an option for each of the `settings`, which are named with dots."""
    if isinstance(source, Config):
        config, label = source.override(settings), FROM_PYTHON
        if resume and config.run.name is None:
            raise ConfigError(
                "resume=True: run.name is not set, and settings alone do not say which run to go on with. Set it, or "
                "train with the config.yaml of that run in place of its settings"
            )
    else:
        config = config_of(source, resume=resume).override(settings)
        label = run_label(file_of(source))
    if config.run.name is not None:
        check_run_name(config.run.name, "run.name")
    return TrainCommand(config, None, label, resume)
