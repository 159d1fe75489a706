"""Command line: argv -> one frozen command. Imports neither torch nor ray nor gymnasium, so that help is instant.

tyro splits the options and draws the help. What a value may be is decided by the pydantic models alone, with the same
rules and messages for a config file and an option.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt

from muzero_ray.cli.commands import (
    ArenaCommand,
    Command,
    EvaluateCommand,
    PlayCommand,
    PresetsCommand,
    ReportCommand,
    SubmitCommand,
    TrainCommand,
)
from muzero_ray.cli.options import SHORT_FORMS, flag, one_option, setting_options, split, with_current_names
from muzero_ray.cli.parse_run import parse_resume, parse_run
from muzero_ray.cli.tables import table
from muzero_ray.config import files as config_file
from muzero_ray.config.base import LARGEST_SEED
from muzero_ray.config.files import merged, without_items
from muzero_ray.config.plugins import import_installed, import_plugins
from muzero_ray.config.schema import Config
from muzero_ray.config.validation import leaf_paths, nearest, shown, validate
from muzero_ray.errors import ConfigError
from muzero_ray.printed import launch_line
from muzero_ray.runs.layout import CONFIG_FILE, RunLayout
from muzero_ray.standard_streams import print_error, print_result
from muzero_ray.user_paths import check_run_name

DEFAULT_ATARI_PRESET = "breakout"

PLUGINS = "--run.plugins"

USAGE = """usage: {program} COMMAND ...

  train PRESET           train; also: train --config FILE.yaml, train --game Breakout
  evaluate RUN           noise-free games with a run's newest weights
  arena A B              two runs, or a run and a bot, against each other: Elo difference
  report RUN [RUN ...]   what finished runs score together, with confidence intervals
  play RUN               watch it play: writes videos
  resume RUN             go on with a stopped run
  presets                list the presets
  submit PRESET          as train, but as a job on a Ray cluster: --address http://HEAD:8265

`{program} COMMAND --help` lists the options of a command. RUN is a run's or a checkpoint's folder."""


def parse_args(argv: Sequence[str]) -> Command:
    """Raises ConfigError for whatever cannot be used, SystemExit(0) once it has printed help."""
    name, rest = (argv[0], list(argv[1:])) if argv else ("--help", [])
    if name in ("-h", "--help", "help"):
        print_result(USAGE.format(program=launch_line()))
        raise SystemExit(0)
    parsers: dict[str, Callable[[list[str]], Command]] = {
        "train": _parse_train,
        "evaluate": lambda args: parse_run("evaluate", EvaluateCommand, args),
        "arena": lambda args: parse_run("arena", ArenaCommand, args),
        "report": lambda args: parse_run("report", ReportCommand, args),
        "play": lambda args: parse_run("play", PlayCommand, args),
        "resume": parse_resume,
        "presets": _parse_presets,
        "submit": _parse_submit,
    }
    if name not in parsers:
        raise ConfigError(f"unknown command (got {name!r}). {nearest(name, parsers)}")
    return parsers[name](rest)


def presets_table() -> str:
    """One row per preset, from the comment at the head of its file."""
    rows = [("PRESET", "TASK", "HARDWARE", "TIME", "SCORE")]
    for preset in config_file.list_presets():
        notes = [preset.note(key) for key in ("hardware", "expected time", "expected score")]
        rows.append((preset.name, preset.header.partition("\n")[0], notes[0], notes[1], notes[2]))
    return f"{table(rows)}\n\nStart one with: {launch_line('train', 'PRESET')}"


def _parse_train(argv: list[str], name: str = "train") -> TrainCommand:
    argv = with_current_names(argv)
    _import_named_plugins(argv)
    options = {
        "preset": one_option(
            str, f"Name of a preset; `{launch_line('presets')}` lists them.", None, positional="PRESET"
        ),
        "config": one_option(
            Path, "Config file: your own preset, or a run's config.yaml (without its run.name).", None
        ),
        "game": one_option(str, "Any ALE game by name, on the CPU-sized Atari preset unless another is named.", None),
        "serial": one_option(None, "One process, no Ray: reproducible to the byte.", False),
        "resume": one_option(None, "Go on with the run of that name, if there is one (submit always does).", False),
        "seeds": one_option(
            tuple[NonNegativeInt, ...], "Make a run for each of these seeds, one after another, then report.", None
        ),
    }
    defaults = _help_defaults(argv) if "-h" in argv or "--help" in argv else Config()
    options |= setting_options(Config, defaults)
    description = (
        f"{name} PRESET | {name} --config FILE.yaml | {name} --game NAME\n\n"
        f"Any setting can be given as --section.name value. Short forms: --serial {' '.join(SHORT_FORMS.values())}"
    )
    flags: dict[str, tuple[str, ...]] = {f"--{key}": (key,) for key in ("config", "game", "serial", "resume", "seeds")}
    flags |= {flag(path): path for path in leaf_paths(Config)}
    flags |= {short: path for path, short in SHORT_FORMS.items()}
    given, where = split(name, options, flags, argv, description)
    preset, file, game = given.pop("preset", None), given.pop("config", None), given.pop("game", None)
    if preset is not None and file is not None:
        raise ConfigError(f"--config: cannot be used with a preset (got {file} and {preset}). Give one of them")
    resume, seeds = given.pop("resume", False), _checked_seeds(given.pop("seeds", None), given)
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
    loaded = config_file.read_config(path)
    if loaded.changes:
        print_error(f"hint: {path}: {', '.join(loaded.changes)}")
    validate(Config, loaded.data, loaded.where)  # a broken file is reported as such, whatever the options say
    replaced = run_overrides(path, resume=resume) if name == "train" else {}  # a job's run is on another machine
    data = merged(merged(loaded.data, {"run": replaced}), given)
    places = {**without_items(loaded.where, where), **where}
    if game is not None:
        data, game = _with_game(data, game, path, given)
        places["env", "id"] = "--game"
    config = validate(Config, data, places)
    if config.run.name is not None:
        check_run_name(config.run.name, places.get(("run", "name"), "run.name"))
    return TrainCommand(config, preset, game or preset or run_label(path), resume, seeds)


def _checked_seeds(seeds: tuple[Any, ...] | None, given: Mapping[str, Any]) -> tuple[int, ...]:
    if seeds is None:
        return ()
    if "seed" in given["run"]:
        raise ConfigError(
            f"--seeds: cannot be used with --seed (got {shown(seeds)} and {given['run']['seed']}). Give one of them"
        )
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= LARGEST_SEED for seed in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"--seeds: must be different whole numbers from 0 on, below 2**64 (got {shown(seeds)}). Write, "
            "for example, --seeds 0 1 2"
        )
    return seeds


def _parse_submit(argv: list[str]) -> SubmitCommand:
    command = _parse_train(argv, "submit")
    run = command.config.run
    if command.seeds:
        raise ConfigError(
            f"submit: --seeds makes several runs (got {shown(command.seeds)}). Submit a job for each, with --seed"
        )
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
            "deletes. Name a folder of the head node, best on a disk that outlives that node"
        )
    settings = run.model_copy(update={"address": "auto", "name": run.name or command.default_name})
    return SubmitCommand(command.config.model_copy(update={"run": settings}), run.address)


def _with_game(data: dict[str, Any], game: str, path: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """`data`, read from `path`, with the ALE game that --game names, and that game's full name."""
    from muzero_ray.envs.registry import resolve_game

    resolved = resolve_game(game)
    if "id" in given["env"]:
        raise ConfigError(
            f"--game: cannot be used with --env.id (got {game} and {given['env']['id']}). Give one of them"
        )
    kind = data.get("env", {}).get("kind", Config().env.kind)
    if kind != "atari":
        raise ConfigError(
            f"--game: {path.stem} is not an Atari configuration (got {game} with env.kind={kind}). "
            f"Use {DEFAULT_ATARI_PRESET}, another with env.kind=atari, or leave --game out"
        )
    return merged(data, {"env": {"id": resolved}}), resolved


def _parse_presets(argv: list[str]) -> PresetsCommand:
    split("presets", {}, {}, argv, PresetsCommand.__doc__ or "")
    return PresetsCommand()


def _help_defaults(argv: list[str]) -> Config:
    """What --help shows as defaults: the settings of the preset or file in `argv`, if that can be read."""
    words = [word for token in argv for word in token.split("=", 1)]
    with contextlib.suppress(ConfigError):
        if "--config" in words[:-1]:
            return config_file.load_config(Path(words[words.index("--config") + 1]))
        if "--game" in words and words[0].startswith("-"):
            return config_file.load_preset(DEFAULT_ATARI_PRESET)
        return config_file.load_preset(words[0])
    return Config()


def _import_named_plugins(argv: list[str]) -> None:
    """Import the plugins whose settings `argv` may name: those installed, in `--run.plugins` and in the config file."""
    import_installed()
    words = [word for token in argv for word in token.split("=", 1)]
    if PLUGINS in words:
        rest = words[words.index(PLUGINS) + 1 :]
        import_plugins(itertools.takewhile(lambda word: not word.startswith("-"), rest))
    if "--config" in words[:-1]:
        with contextlib.suppress(ConfigError):  # raised again when the settings are read
            config_file.read_config(Path(words[words.index("--config") + 1]))


def run_label(path: Path) -> str:
    """What names of runs with these settings start with: the file's name, or for a config.yaml that of its folder."""
    return path.resolve().parent.name if path.stem == "config" else path.stem


def run_overrides(path: Path, *, resume: bool) -> dict[str, str | None]:
    """Settings of `run` to use instead of those in `path`, if that is the config.yaml of a run in its folder.

    resume: they name that folder, which may have been moved. Otherwise they clear the name: the new run gets its own.
    """
    folder = path.resolve().parent
    layout = RunLayout(folder)
    if path.name != CONFIG_FILE or not (layout.metrics_file.is_file() or layout.checkpoints_folder.is_dir()):
        return {}
    return {"runs_dir": str(folder.parent), "name": folder.name} if resume else {"name": None}
