"""Command line: options, short forms, commands, messages, and what is imported before parsing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muzero_ray import launch
from muzero_ray.config import files as config_file
from muzero_ray.config.schema import Config
from muzero_ray.config.validation import leaf_paths
from muzero_ray.errors import EnvironmentFault, NumericsError
from tests.command_lines import make_run, refused, train
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


# --- train --------------------------------------------------------------------------------------------------------


ABSENT = object()


def as_words(config: Config) -> list[str]:
    """The command line that spells out a whole config."""
    argv = []
    for path in leaf_paths(Config):
        value: Any = config
        for key in path:
            value = getattr(value, key, ABSENT)
        if value is ABSENT:  # of another kind of search or network
            continue
        if isinstance(value, dict):
            words = [f"{key}={item}" for key, item in value.items()]
        else:
            words = [str(item) for item in value] if isinstance(value, tuple) else [str(value)]
        argv += [f"--{'.'.join(path)}", *words]
    return argv


@pytest.mark.parametrize("name", ["atari", "tictactoe", "breakout"])
def test_every_setting_can_be_given_as_an_option(name: str) -> None:
    config = config_file.load_preset(name)
    env = config.env.model_copy(update={"kwargs": {"mode": 1, "full": False, "scale": 0.5, "word": "a=b"}})
    config = config.model_copy(update={"env": env})
    assert train(f"cartpole {' '.join(as_words(config))}").config == config


def test_options_change_only_what_they_name() -> None:
    base = config_file.load_preset("cartpole").to_dict()
    base["learner"]["batch_size"] = 64
    base["evaluation"]["video"] = True
    base["network"]["head_layers"] = []
    base["search"]["value_bounds"] = [-1.0, 2.0]
    base["run"]["minutes"] = None
    line = "cartpole --learner.batch_size=64 --evaluation.video true --network.head-layers --search.value-bounds -1 2"
    assert train(f"{line} --run.minutes none").config.to_dict() == base
    assert train("cartpole").config == config_file.load_preset("cartpole")


def test_short_forms() -> None:
    line = (
        "--seed 3 --runs_dir out --episodes 7 --iterations 1e5 --minutes 0.5 --simulations 9 --max-moves 11 --actors 5"
    )
    config = train(f"cartpole {line} --serial --address ray://head:10001 --run.name mine").config
    run = config.run
    assert (run.seed, run.runs_dir, run.episodes, run.learner_steps, run.minutes) == (3, "out", 7, 100_000, 0.5)
    assert (run.serial, run.address, run.name) == (True, "ray://head:10001", "mine")
    assert (config.search.simulations, config.env.max_moves, config.actors.count) == (9, 11, 5)


def test_the_preset_may_stand_anywhere_and_the_last_of_two_options_wins() -> None:
    command = train("--seed 1 --serial cartpole --seed 2")
    assert (command.preset, command.label, command.config.run.seed) == ("cartpole", "cartpole", 2)


@pytest.mark.parametrize(
    ("line", "game", "limits"),
    [
        ("--game Breakout --episodes 10 --simulations 25", "Breakout", (10, 25)),
        ("--game SpaceInvaders --episodes 100 --simulations 50", "SpaceInvaders", (100, 50)),
        ("--game Alien --iterations 100000 --simulations 50", "Alien", (None, 50)),
        ("--game space_invaders", "SpaceInvaders", (None, 16)),
    ],
)
def test_game_uses_the_cpu_sized_preset(line: str, game: str, limits: tuple[int | None, int]) -> None:
    command = train(line)
    config, base = command.config.to_dict(), config_file.load_preset("breakout").to_dict()
    assert (command.preset, command.label, config["env"]["id"]) == ("breakout", game, game)
    assert (config["run"]["episodes"], config["search"]["simulations"]) == limits
    for same in ("network", "learner", "replay", "actors"):
        assert config[same] == base[same]


def test_game_on_a_named_preset_and_on_a_file(tmp_path: Path) -> None:
    atari = config_file.load_preset("atari")
    expected = atari.model_copy(update={"env": atari.env.model_copy(update={"id": "Alien"})})
    assert train("atari --game Alien").config == expected
    file = tmp_path / "mine.yaml"
    file.write_text(config_file.dump_config(atari))
    assert train(f"--game Alien --config {file}").config == expected


def test_game_mistakes() -> None:
    assert "Breakout" in refused("train", "--game", "Brekout")
    message = refused("train", "cartpole", "--game", "Alien")
    assert message.startswith(
        "--game: cartpole is not an Atari configuration (got Alien with env.kind=gymnasium). Use breakout"
    )
    assert "cannot be used with --env.id" in refused("train", "--game", "Alien", "--env.id", "Pong")


def test_a_run_is_repeated_from_its_config_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "cartpole-7")
    command = train(f"--config {run / 'config.yaml'} --seed 9")
    assert (command.preset, command.label, command.config.run.seed) == (None, "cartpole-7", 9)
    assert command.config.learner == config_file.load_preset("cartpole").learner


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "train: needs a preset, --config FILE or --game NAME. Choose from acrobot, atari, atari_gpu, breakout"),
        ("breakot", "preset: there is no preset of that name (got 'breakot'). Did you mean breakout?"),
        ("cartpole --config x.yaml", "--config: cannot be used with a preset (got x.yaml and cartpole)."),
        ("cartpole --run.sed 3", "--run.sed: unknown option of train. Did you mean --run.seed?"),
        ("cartpole --episode=3", "--episode: unknown option of train. Did you mean --episodes?"),
        ("cartpole --batch-size 3", "--batch-size: unknown option of train. Did you mean --learner.batch-size?"),
        ("cartpole --zzzzzzz", "--zzzzzzz: unknown option of train. See: python launch.py train --help"),
        ("cartpole --run.seed x", "--run.seed: must be a whole number (got 'x'). Write one such as 3"),
        ("cartpole --iterations 1.5", "--iterations: run.learner_steps: must be a whole number (got 1.5)."),
        ("cartpole --seed -1", "--seed: run.seed: must be at least 0 (got -1). Use a value at least 0"),
        (
            "cartpole --search.kind gumble",
            "--search.kind: must be one of puct, gumbel (got 'gumble'). Did you mean gumbel?",
        ),
        ("cartpole --evaluation.video yes", "--evaluation.video: must be true or false (got 'yes')."),
        ("cartpole --network.layers 8 x", "--network.layers: network.layers[1]: must be a whole number (got 'x')."),
        ("cartpole --search.value-bounds 1", "--search.value-bounds: must hold 2 values (got [1]). Write 2 of them"),
        ("cartpole --search.value-bounds 1 -1", "--search.value-bounds: search.value_bounds=(1.0, -1.0): the lower"),
        ("cartpole --env.kwargs a", "--env.kwargs: must be KEY=VALUE words (got 'a')."),
        (
            "cartpole --learner.batch-size 9999",
            "--learner.batch-size: learner.batch_size=9999 is above replay.min_size=1000",
        ),
        ("cartpole --replay.min-size 1", "--replay.min-size: learner.batch_size=128 is above replay.min_size=1"),
    ],
)
def test_a_mistake_in_an_option_gives_one_line(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["train", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "named"), [("cartpole --env.id", "--env.id"), ("cartpole extra", "extra"), ("cartpole -x", "-x")]
)
def test_what_tyro_refuses_is_one_line_too(line: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["train", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert named in err
    assert err.endswith("See: python launch.py train --help\n")
    assert err.count("\n") == 1
    assert "│" not in err


def test_all_wrong_options_are_listed() -> None:
    message = refused("train", "cartpole", "--run.seed", "x", "--learner.lr", "y")
    assert message.splitlines()[0] == "2 settings cannot be used:"
    assert "--run.seed" in message
    assert "--learner.lr" in message
    assert refused("train", "cartpole", "--aa", "--bb").count("unknown option") == 2


# --- launch.py ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (NumericsError("loss is NaN"), 4, "error: loss is NaN\n"),
        (EnvironmentFault("bad frame"), 3, "error: bad frame\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_codes(
    raised: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(launch, "dispatch", fail)
    assert launch.main(["train", "cartpole"]) == code
    assert capsys.readouterr().err == message


PROBE = """
import sys
from muzero_ray import launch
try:
    code = launch.main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code or 0
heavy = [name for name in ("torch", "ray", "wandb", "gymnasium", "numba", "numpy") if name in sys.modules]
sys.exit(f"imported {heavy}" if heavy else code)
"""


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("--help", 0, "train PRESET"),
        ("", 0, "train PRESET"),
        ("train --help", 0, "--learner.batch-size INT"),
        ("train atari --help", 0, "Feature planes of the latent (resnet). (default: 256)"),
        ("evaluate --help", 0, "--json"),
        ("presets", 0, "cartpole"),
        ("train cartpole --learner.batch-size 0", 2, "--learner.batch-size: must be above 0"),
        ("train cartpole --learner.batch 0", 2, "unknown option"),
        ("train nosuch", 2, "there is no preset"),
        ("evaluate nosuch", 2, "does not exist"),
    ],
)
def test_help_and_mistakes_import_nothing_heavy(line: str, code: int, expected: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *line.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == code, output
    assert expected in " ".join(output.replace("│", " ").split())
    assert "Traceback" not in output


def test_help_into_a_closed_pipe_is_quiet() -> None:
    line = f"{sys.executable} launch.py train --help | head -1"
    result = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert result.stdout.startswith("usage: ")
    assert result.stderr == ""
