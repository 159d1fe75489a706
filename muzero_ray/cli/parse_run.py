"""Commands about finished or stopped runs: argv -> one frozen command, once the folders are there."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from muzero_ray.cli.commands import ResumeCommand
from muzero_ray.cli.options import SHORT_FORMS, flag, one_option, split, with_current_names
from muzero_ray.config.schema import OPPONENT, Config
from muzero_ray.config.validation import leaf_paths, nearest, validate
from muzero_ray.errors import ConfigError
from muzero_ray.printed import launch_line
from muzero_ray.runs.layout import CHECKPOINTS, CONFIG_FILE, RunLayout
from muzero_ray.runs.run_config import copy_hint
from muzero_ray.user_paths import reading

POSITIONAL = {
    "run": ("RUN", "the folder of a run. Give one such as runs/NAME"),
    "runs": ("RUN [RUN ...]", "the folder of a run. Give one such as runs/NAME"),
    "players": ("A B", "two players. Name folders of runs, random, minimax or mcts:N"),
}
"""The words of a command about runs: how help names them, and what is said if they are not there."""


def parse_resume(argv: list[str]) -> ResumeCommand:
    """Limits may be named as `train` names them, `--run.minutes` as well as `--minutes`."""
    argv = with_current_names(argv)
    aliases = {name: flag(("run", setting)) for name, setting in ResumeCommand.settings().items()}
    free = {*aliases.values(), *map(flag, zip(aliases))}
    fixed = {*map(flag, leaf_paths(Config)), *SHORT_FORMS.values()} - free
    typed = [word.partition("=")[0] for word in argv]
    if kept := [word for word in typed if word.replace("_", "-") in fixed]:
        raise ConfigError(
            f"{kept[0]}: a run keeps what it was started with; resume can change {', '.join(aliases.values())}. "
            "To change it, start a new run from its config.yaml: train --config FILE"
        )
    command: ResumeCommand = parse_run("resume", ResumeCommand, argv, aliases)
    return command


def parse_run(
    name: str, model: type[BaseModel], argv: list[str], aliases: Mapping[str, str] = MappingProxyType({})
) -> Any:
    """A command about one run (`run`), several (`runs`), or two that play each other (`players`).

    aliases: second names of options.
    """
    key = next(key for key in POSITIONAL if key in model.model_fields)
    positional, missing = POSITIONAL[key]
    options = {
        field.alias or other: one_option(
            None if field.annotation is bool else field.annotation,
            field.description or "",
            None if field.is_required() else field.default,
            positional=positional if other == key else None,
            alias=aliases.get(other),
        )
        for other, field in model.model_fields.items()
    }
    flags: dict[str, tuple[str, ...]] = {flag([other]): (other,) for other in options if other != key}
    flags |= {alias: (other,) for other, alias in aliases.items()}
    given, where = split(name, options, flags, argv, inspect.getdoc(model) or "")
    if not given.get(key):
        raise ConfigError(f"{name}: needs {missing}")
    command = validate(model, given, where)
    for run in [given[key]] if key == "run" else given[key]:
        if not (key == "players" and OPPONENT.fullmatch(run)):
            _check_run(name, Path(run))
    return command


def _check_run(command: str, run: Path) -> None:
    with reading(run):
        if RunLayout(run).config_file.is_file() or (run.parent.name == CHECKPOINTS and run.is_dir()):
            return
        if hint := copy_hint(run):
            raise ConfigError(f"{command}: the config.yaml of this run is missing (got {run}). {hint}")
    reason = "has no config.yaml, so it is not the folder of a run" if run.exists() else "does not exist"
    folders = sorted(str(p.parent) for folder in {run.parent, Path("runs")} for p in folder.glob(f"*/{CONFIG_FILE}"))
    remedy = nearest(str(run), folders) if folders else f"Train first: {launch_line('train', 'PRESET')}"
    raise ConfigError(f"{command}: the folder {reason} (got {run}). {remedy}")
