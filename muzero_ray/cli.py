"""Command line: argv -> one frozen command. Imports neither torch nor ray nor gymnasium, so that help is instant.

tyro splits the options and draws the help. What a value may be is decided by the pydantic models alone, with the same
rules and messages for a config file and an option.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt

from muzero_ray import config_file
from muzero_ray.cli_options import SHORT_FORMS, flag, one_option, setting_options, split
from muzero_ray.config import Config, FrozenConfig
from muzero_ray.config_check import dotted, leaf_paths, nearest, validate
from muzero_ray.errors import ConfigError

DEFAULT_ATARI_PRESET = "breakout"

LIMITS = {"training_steps": "iterations", "episodes": "episodes", "minutes": "minutes"}
"""Those of `run`, and the options of `resume` that raise them."""

USAGE = """usage: python launch.py COMMAND ...

  train PRESET           train; also: train --config FILE.yaml, train --game Breakout
  evaluate RUN           noise-free games with a run's newest weights
  play RUN               watch it play: writes videos
  resume RUN             go on with a stopped run
  presets                list the presets
  submit PRESET          train on a Ray cluster, as a job: --address http://HEAD:8265, else as train

`python launch.py COMMAND --help` lists the options of a command. RUN is a run's or a checkpoint's folder."""


@dataclass(frozen=True)
class TrainCommand:
    """config: complete and checked. preset: the one it started from. label: what the run's default name starts with.

    resume: go on with the run of that name, if there is one.
    """

    config: Config
    preset: str | None
    label: str
    resume: bool = False

    @property
    def default_name(self) -> str:
        """Of the run, but for the date."""
        return f"{self.label}-s{self.config.run.seed}"

    def resumed(self, run: Path, made_with: Config) -> ResumeCommand:
        """How to go on with `run`, whose configuration is `made_with`: limits may differ, and where the cluster is.

        Raises ConfigError if anything else does: it would be ignored.
        """
        asked, made = self.config.run, made_with.run
        free = {name: getattr(made, name) for name in (*LIMITS, "address", "name", "runs_dir")}
        same = self.config.model_copy(update={"run": asked.model_copy(update=free)})
        values = [(path, _value(same, path), _value(made_with, path)) for path in leaf_paths(Config)]
        if other := [(path, new, old) for path, new, old in values if new != old]:
            path, new, old = other[0]
            raise ConfigError(
                f"--resume: run {run} was started with {dotted(path)}={old} (got {new}; {len(other)} settings differ). "
                "Give what it was started with, or another --run.name"
            )
        changed = {name: value for name in LIMITS if (value := getattr(asked, name)) != getattr(made, name)}
        budget = {option: changed.get(name) for name, option in LIMITS.items()}
        return ResumeCommand(run=run, address=asked.address, **budget)


@dataclass(frozen=True)
class SubmitCommand:
    """config: of the job's run, complete and checked. address: of the cluster's dashboard."""

    config: Config
    address: str

    @property
    def folder(self) -> Path:
        """Of the run, on the head node."""
        return Path(self.config.run.runs_dir) / str(self.config.run.name)


class EvaluateCommand(FrozenConfig):
    """Play noise-free games with the newest weights of a run, and print the mean return."""

    run: Path
    """Folder of a run, or of one of its checkpoints."""
    episodes: PositiveInt | None = None
    """Games to play (none: `evaluation.final_episodes` of the run)."""
    seed: NonNegativeInt = 0
    """Seed of the first game."""
    opponent: Literal["random", "minimax"] = "random"
    """Who has the other seat in a two-player game; `minimax` is exact, for games small enough to solve."""
    as_json: Annotated[bool, Field(alias="json")] = False
    """Print one JSON object instead of a line."""


class PlayCommand(FrozenConfig):
    """Let a run's newest weights play, and write the games as mp4."""

    run: Path
    """Folder of a run, or of one of its checkpoints."""
    episodes: PositiveInt = 1
    """Games to play."""
    seed: NonNegativeInt = 0
    """Seed of the first game."""
    video: Path | None = None
    """File to write (none: a new one in the run's `videos/`)."""


class ResumeCommand(FrozenConfig):
    """Go on with a stopped run from its newest good checkpoint. The options raise its budget."""

    run: Path
    """Folder of the run, or of one of its checkpoints."""
    iterations: PositiveInt | None = None
    """Learner steps in total, those before the stop included (none: as configured)."""
    episodes: PositiveInt | None = None
    """Self-play episodes in total (none: as configured)."""
    minutes: PositiveFloat | None = None
    """Wall clock in total, that before the stop included (none: as configured)."""
    address: str | None = None
    """Ray cluster to join, from one of its nodes: auto or HOST:PORT (none: as configured)."""

    def extended(self, config: Config) -> Config:
        """The run's configuration under the budget asked for here."""
        wanted = {name: getattr(self, option) for name, option in LIMITS.items()} | {"address": self.address}
        data = config.model_dump()
        data["run"].update({name: value for name, value in wanted.items() if value is not None})
        return validate(Config, data, {})


@dataclass(frozen=True)
class PresetsCommand:
    """List the presets."""


Command = TrainCommand | SubmitCommand | EvaluateCommand | PlayCommand | ResumeCommand | PresetsCommand


def parse_args(argv: Sequence[str]) -> Command:
    """Raises ConfigError for whatever can not be used, SystemExit(0) once it has printed help."""
    name, rest = (argv[0], list(argv[1:])) if argv else ("--help", [])
    if name in ("-h", "--help", "help"):
        print(USAGE)
        raise SystemExit(0)
    parsers: dict[str, Callable[[list[str]], Command]] = {
        "train": _parse_train,
        "evaluate": lambda args: _parse_run("evaluate", EvaluateCommand, args),
        "play": lambda args: _parse_run("play", PlayCommand, args),
        "resume": lambda args: _parse_run("resume", ResumeCommand, args),
        "presets": _parse_presets,
        "submit": _parse_submit,
    }
    if name not in parsers:
        raise ConfigError(f"unknown command (got {name!r}). {nearest(name, parsers)}")
    return parsers[name](rest)


def presets_table() -> str:
    """One row per preset, from the comments the files open with."""
    rows = [("PRESET", "TASK", "HARDWARE", "TIME", "SCORE")]
    for preset in config_file.list_presets():
        notes = [preset.note(key) for key in ("hardware", "expected time", "expected score")]
        rows.append((preset.name, preset.header.partition("\n")[0], notes[0], notes[1], notes[2]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", "Start one with: python launch.py train PRESET"])


# --- commands -----------------------------------------------------------------------------------------------------


def _parse_train(argv: list[str], name: str = "train") -> TrainCommand:
    options = {
        "preset": one_option(
            str, "Name of a preset; `python launch.py presets` lists them.", None, positional="PRESET"
        ),
        "config": one_option(Path, "Config file: a preset of your own, or a run's config.yaml.", None),
        "game": one_option(str, "Any ALE game by name, on the CPU-sized Atari preset unless another is named.", None),
        "serial": one_option(None, "One process, no Ray: reproducible to the byte.", False),
        "resume": one_option(None, "Go on with the run of that name, if there is one (submit always does).", False),
    }
    shown = _guess_base(argv) if "-h" in argv or "--help" in argv else Config()
    options |= setting_options(Config, shown)
    description = (
        f"{name} PRESET | {name} --config FILE.yaml | {name} --game NAME\n\n"
        f"Any setting can be given as --section.name value. Short forms: --serial {' '.join(SHORT_FORMS.values())}"
    )
    flags: dict[str, tuple[str, ...]] = {f"--{key}": (key,) for key in ("config", "game", "serial", "resume")}
    flags |= {flag(path): path for path in leaf_paths(Config)}
    flags |= {short: path for path, short in SHORT_FORMS.items()}
    given, where = split(name, options, flags, argv, description)
    preset, file, game = given.pop("preset", None), given.pop("config", None), given.pop("game", None)
    if preset is not None and file is not None:
        raise ConfigError(f"--config: can not be used with a preset (got {file} and {preset}). Give one of them")
    resume = given.pop("resume", False)
    if given.pop("serial", False):
        given["run"]["serial"], where["run", "serial"] = True, "--serial"
    if preset is None and file is None:
        if game is None:
            raise ConfigError(
                f"{name}: needs a preset, --config FILE or --game NAME. "
                f"{nearest('', [p.name for p in config_file.list_presets()])}"
            )
        preset = DEFAULT_ATARI_PRESET
    path = file if preset is None else config_file.preset_path(preset)
    loaded = config_file.read_yaml(path)
    validate(Config, *loaded)  # a broken file is reported as such, whatever the options say
    data, places = _merged(loaded.data, given), {**loaded.where, **where}
    if game is not None:
        data, game = _with_game(data, game, path, given)
        places["env", "id"] = "--game"
    config = validate(Config, data, places)
    return TrainCommand(config, preset, game or preset or _label(path), resume)


def _parse_submit(argv: list[str]) -> SubmitCommand:
    command = _parse_train(argv, "submit")
    run = command.config.run
    if run.address is None or not run.address.startswith(("http://", "https://")):
        raise ConfigError(
            f"submit: --address must be that of the cluster's dashboard (got {run.address}). "
            "Give one such as http://head:8265"
        )
    if run.serial:
        raise ConfigError("submit: --serial uses no cluster (got True). Leave it out, or use train")
    if not Path(run.runs_dir).is_absolute():
        raise ConfigError(
            f"submit: --runs-dir must be absolute (got {run.runs_dir}): a job runs in a copy of the program that Ray "
            "deletes. Name a folder of the head node, best on a disk that outlives it"
        )
    settings = run.model_copy(update={"address": "auto", "name": run.name or command.default_name})
    return SubmitCommand(command.config.model_copy(update={"run": settings}), run.address)


def _with_game(data: dict[str, Any], game: str, path: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    from muzero_ray.envs.registry import resolve_game

    resolved = resolve_game(game)
    if "id" in given["env"]:
        raise ConfigError(
            f"--game: can not be used with --env.id (got {game} and {given['env']['id']}). Give one of them"
        )
    kind = data.get("env", {}).get("kind", Config().env.kind)
    if kind != "atari":
        raise ConfigError(
            f"--game: {path.stem} is no Atari configuration (got {game} with env.kind={kind}). "
            f"Use {DEFAULT_ATARI_PRESET}, another with env.kind=atari, or leave --game out"
        )
    return _merged(data, {"env": {"id": resolved}}), resolved


def _parse_run(name: str, model: type[BaseModel], argv: list[str]) -> Any:
    options = {
        field.alias or key: one_option(
            None if field.annotation is bool else field.annotation,
            field.description or "",
            None if field.is_required() else field.default,
            positional="RUN" if key == "run" else None,
        )
        for key, field in model.model_fields.items()
    }
    flags: dict[str, tuple[str, ...]] = {f"--{key}": (key,) for key in options if key != "run"}
    given, where = split(name, options, flags, argv, model.__doc__ or "")
    if "run" not in given:
        raise ConfigError(f"{name}: needs the folder of a run. Give one such as runs/NAME")
    command = validate(model, given, where)
    _check_run(name, given["run"])
    return command


def _parse_presets(argv: list[str]) -> PresetsCommand:
    split("presets", {}, {}, argv, PresetsCommand.__doc__ or "")
    return PresetsCommand()


def _check_run(command: str, run: Path) -> None:
    if (run / "config.yaml").is_file() or (run.parent.name == "checkpoints" and run.is_dir()):
        return
    reason = "has no config.yaml, so it is no run's folder" if run.exists() else "does not exist"
    folders = sorted(str(p.parent) for folder in {run.parent, Path("runs")} for p in folder.glob("*/config.yaml"))
    remedy = nearest(str(run), folders) if folders else "Train first: python launch.py train PRESET"
    raise ConfigError(f"{command}: the folder {reason} (got {run}). {remedy}")


def _guess_base(argv: list[str]) -> Config:
    """For the defaults that --help shows: the preset or file it is asked of, where that can be read."""
    words = [word for token in argv for word in token.split("=", 1)]
    with contextlib.suppress(ConfigError):
        if "--config" in words[:-1]:
            return config_file.load_config(Path(words[words.index("--config") + 1]))
        if "--game" in words and words[0].startswith("-"):
            return config_file.load_preset(DEFAULT_ATARI_PRESET)
        return config_file.load_preset(words[0])
    return Config()


def _value(config: Config, path: Sequence[str]) -> Any:
    return functools.reduce(getattr, path, config)


def _label(path: Path) -> str:
    """A run's own config.yaml says less than the run's name."""
    return path.resolve().parent.name if path.stem == "config" else path.stem


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Sections are merged; a value of the same name, `env.kwargs` included, is replaced."""
    result = dict(base)
    for key, value in changes.items():
        section = isinstance(value, dict) and key != "kwargs"
        result[key] = _merged(result.get(key, {}), value) if section else value
    return result
