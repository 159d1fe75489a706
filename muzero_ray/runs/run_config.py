"""The `config.yaml` of a run: every setting that it was started with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from muzero_ray.config.files import without_unread
from muzero_ray.config.plugins import import_plugins, named_plugins
from muzero_ray.config.schema import Config
from muzero_ray.config.validation import KeyPath, validate
from muzero_ray.config.versions import NewerVersion, convert
from muzero_ray.config.yaml_file import read_yaml
from muzero_ray.errors import ConfigError
from muzero_ray.runs.layout import RunLayout

CONFIG_COPY = "run_config.yaml"
"""In each checkpoint: the `config.yaml` of its run."""


class ConvertedConfig(NamedTuple):
    """changes: what was converted from an older version of the file, in words."""

    config: Config
    changes: tuple[str, ...]


def load_run_config(folder: Path, *, plugins: bool = True) -> Config:
    """The `config.yaml` of a run: a setting that is not in it was not there yet, and means what was done without it.

    plugins: import those that it names; otherwise nothing is, and settings of theirs are left out.
    Where it cannot be used, the ConfigError names the newest copy of it.
    """
    return convert_run_config(folder, plugins=plugins).config


def convert_run_config(folder: Path, *, plugins: bool = True) -> ConvertedConfig:
    """As `load_run_config`, and says what was converted."""
    try:
        data, where, changes = convert(read_yaml(RunLayout(folder).config_file))
    except NewerVersion:
        raise  # so are the copies
    except ConfigError as error:
        raise _with_copy_hint(error, folder) from None
    if plugins:
        import_plugins(named_plugins(data))
    try:
        return ConvertedConfig(_checked(data, where, foreign=not plugins), changes)
    except ConfigError as error:
        raise _with_copy_hint(error, folder) from None


def read_run_config(file: Path) -> Config:
    """As `load_run_config`, of a copy of the file."""
    data, where, _ = convert(read_yaml(file))
    import_plugins(named_plugins(data))
    return _checked(data, where)


def _checked(data: Mapping[str, Any], where: Mapping[KeyPath, str], *, foreign: bool = False) -> Config:
    config = validate(Config, without_unread(data), where, foreign=foreign)
    if "scaling" in data.get("env", {}) or config.env.kind != "gymnasium":
        return config
    return config.overridden(env=config.env.overridden(scaling="bytes"))


def _with_copy_hint(error: ConfigError, folder: Path) -> ConfigError:
    return ConfigError(f"{error}. {hint}" if (hint := copy_hint(folder)) else str(error))


def copy_hint(folder: Path) -> str:
    """The command that restores a run's `config.yaml` from its newest checkpoint, as a sentence; '' without a copy."""
    layout = RunLayout(folder)
    copies = [path for path in layout.checkpoints_folder.glob(f"*/{CONFIG_COPY}") if path.parent.name.isdecimal()]
    newest = max(copies, key=lambda path: int(path.parent.name), default=None)
    command = f"cp {shlex.quote(str(newest))} {shlex.quote(str(layout.config_file))}"
    return "" if newest is None else f"A checkpoint has a copy, restore it with: {command}"
