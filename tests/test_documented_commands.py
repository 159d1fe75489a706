"""Every command line in the documents is taken by the real parser; those that train are executed, in small."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from muzero_ray import launch
from muzero_ray.cli.commands import ResumeCommand, SubmitCommand, TrainCommand
from muzero_ray.cli.parse import USAGE, parse_args
from muzero_ray.config import files as config_file
from muzero_ray.runs.checkpoint import load_checkpoint
from tests.command_lines import make_run
from tests.small_runs import run_serial, small_config

ROOT = Path(launch.__file__).resolve().parent
MARKDOWN = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMENTED = [*sorted((ROOT / "deploy").iterdir()), *sorted((ROOT / "configs").glob("*.yaml"))]

COMMANDS = ["train", "evaluate", "arena", "report", "play", "resume", "submit", "presets"]

OTHERS = {
    "make": "sets up or runs all of it; that the target exists is checked",
    "pip": "installs packages",
    "docker": "needs Docker",
    "kubectl": "needs a Kubernetes cluster",
    "sbatch": "needs Slurm; its arguments are parsed in tests/test_deploy.py",
    "ray": "needs a cluster of Ray, some a cloud",
    "ssh": "needs a host of a cluster",
    "export": "sets a variable for a cluster",
    "(umask": "makes the token of a cluster; tests/test_security.py makes one",
    "taskset": "a prefix that says which cores were used",
}
"""First words of other command lines, and why they are not executed here."""

MENTIONED = ("python launch.py", "python -m muzero_ray")
"""The program itself, not a command."""

STANDS_FOR = {
    "PRESET": "cartpole",
    "RUN": "runs/A",
    "runs/NAME": "runs/A",
    "RUN/checkpoints/STEP": "runs/A/checkpoints/100",
    "A": "runs/A",
    "B": "runs/B",
    "S": "0",
    "N": "4",
    "C": "0.3",
    "D": "d",
    "FILE": "rows.json",
    "PICTURE": "p.png",
    "FILE.yaml": "my.yaml",
}
"""Words of a command line that a person replaces."""

AFTER = {"--opponent": "minimax", "--game": "Breakout"}
"""What NAME stands for after these."""

SMALL = shlex.split(
    "--serial --run.wandb disabled --iterations 2 --simulations 2 --max-moves 12 --replay.min-size 16 "
    "--replay.capacity 200 --replay.segment-length 6 --learner.batch-size 4 --learner.unroll-steps 2 "
    "--learner.td-steps 3 --actors.count 1 --actors.envs-per-actor 1 --actors.rollout-steps 10 --actors.engine torch "
    "--evaluation.episodes 1 --evaluation.final-episodes 1 --evaluation.opponent random --evaluation.video False "
    "--network.head-layers 16 --network.value.bins 11 --network.reward.bins 11"
)
"""For every task, whatever the command said before."""

SMALL_NETWORK = {
    "mlp": shlex.split("--network.hidden 16 --network.layers 16"),
    "resnet": shlex.split("--network.channels 4 --network.blocks 1 --network.head-channels 2"),
}

SMALL_SCREEN = shlex.split("--env.atari.image-size 32 --network.downsample 16")


# --- what is there -------------------------------------------------------------------------------------------------


def snippets(path: Path) -> list[str]:
    """Lines of code blocks and what stands in backticks; of files with comments, their comments' lines too."""
    text = path.read_text()
    if path in COMMENTED:
        lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
        blocks, text = ["\n".join(lines)], "\n".join(lines)
    else:
        blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    # A comment in a line of shell; the label of a line in a preset's header.
    lines = [re.sub(r"\s{2,}#.*| # .*|^command:", "", line).strip() for line in lines]
    return [*lines, *(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))]


@cache
def documented() -> dict[str, set[str]]:
    """Kind -> command lines: of launch.py, of modules, of other programs."""
    found: dict[str, set[str]] = {"launch": set(), "module": set(), "other": set()}
    for path in [*MARKDOWN, *COMMENTED]:
        for line in snippets(path):
            line = re.sub(r"^(\w+=\S+ )+", "", line)
            if match := re.match(
                r"(?:muzero-ray|python -m muzero_ray"
                r"|(?:python -m (?=launch )|python |(?=\S+ \w+ [^-]))(?:\S*/)?launch(?:\.py)?) (.+)",
                line,
            ):
                found["launch"].add(match[1])
            elif match := re.match(r"python -m ((?:benchmarks|chaos).*)", line):
                found["module"].add(match[1])
            # "train --resume" speaks of an option; a sentence in a comment may begin with any word.
            elif re.match(rf"({'|'.join(COMMANDS)}) (?!--)[\w/.]+( --|$| [\w/.]+$)", line) and path in MARKDOWN:
                found["launch"].add(line)
            elif line.split(" ")[0] in (*OTHERS, "python") and " " in line and line not in MENTIONED:
                found["other"].add(line)
    forms = {line.split("   ")[0].strip() for line in USAGE.splitlines() if line.startswith("  ")}
    found["launch"] |= forms - {"submit PRESET"}  # it says what else is needed
    return found


def words_of(line: str) -> list[str]:
    """As a person would type it: what stands for something replaced, what may be left out left out."""
    words = shlex.split(re.sub(r" \[[^]]*\]", "", line))
    typed: list[str] = []
    for word in words:
        if word == "NAME":
            word = AFTER[typed[-1]]
        typed.append(STANDS_FOR.get(word, word).replace("/GAME-", "/Breakout-").replace("//HEAD:", "//head:"))
    return typed


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the documents speak of."""
    for name in "AB":
        make_run(tmp_path / "runs" / name)
    (tmp_path / "my.yaml").write_text(config_file.preset_path("cartpole").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- parsed --------------------------------------------------------------------------------------------------------


def test_there_is_something_to_check() -> None:
    found = documented()
    assert len(found["launch"]) > 40
    assert len(found["module"]) > 15
    headers = {preset.note("command").removeprefix("python launch.py ") for preset in config_file.list_presets()}
    assert headers <= found["launch"]
    assert any(line.startswith("submit atari --address") and "--learner.cpus 4" in line for line in found["launch"])


@pytest.mark.parametrize("line", sorted(documented()["launch"]))
@pytest.mark.usefixtures("workplace")
def test_the_parser_takes_it(line: str) -> None:
    words = words_of(line)
    if words[-1] == "--help":
        with pytest.raises(SystemExit) as stop:
            parse_args(words)
        assert not stop.value.code
    else:
        parse_args(words)


BASELINES = {
    "stable_baselines3": ["PPO"],
    "stable_baselines3.common": [],
    "stable_baselines3.common.torch_layers": ["BaseFeaturesExtractor"],
    "stable_baselines3.common.vec_env": ["DummyVecEnv"],
}


class Parsed(Exception):
    """The parser took the words."""


@pytest.mark.parametrize("line", sorted(documented()["module"]))
@pytest.mark.usefixtures("workplace")
def test_the_module_takes_it(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, *words = words_of(line)
    if not words and module not in ("benchmarks", "chaos"):
        words = ["--help"]  # the module is named, not a whole command
    # An extra that the tests do not need: here only its names.
    for name, members in BASELINES.items():
        stand_in = ModuleType(name)
        vars(stand_in).update({member: type(member, (), {}) for member in members})
        monkeypatch.setitem(sys.modules, name, stand_in)
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, *arguments: Any) -> None:
        parse(parser, *arguments)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [module, *words])
    with pytest.raises((Parsed, SystemExit)) as stop:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    assert isinstance(stop.value, Parsed) or not stop.value.code


def test_every_other_command_is_listed_with_the_reason() -> None:
    for line in documented()["other"]:
        assert line.split(" ")[0] in OTHERS, line
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in documented()["other"]:
        if line.startswith("make "):
            assert line.split(" ")[1] in targets, line


# --- executed ------------------------------------------------------------------------------------------------------


def trains() -> list[str]:
    """Distinct commands that train here: what `SMALL` says anyway, or another seed, makes no other command."""
    found = {}
    for line in sorted(documented()["launch"]):
        words = words_of(line)
        if words[0] == "train" and not {"--address", "--help"} & set(words):  # a cluster is needed for the one
            found[re.sub(r" --serial| --(seed|iterations|minutes|simulations) \S+", "", shlex.join(words))] = line
    return sorted(found)


@pytest.mark.parametrize("line", trains())
def test_what_trains_is_executed(line: str, workplace: Path) -> None:
    line = line.replace("my_pkg:MyEnv-v0", "tests.odd_environments:Bandit-v0")
    words = [word for word in shlex.split(line) if word != "--serial"]
    command = parse_args(words)
    assert isinstance(command, TrainCommand)
    screen = SMALL_SCREEN if command.config.env.kind == "atari" else []
    small = [*SMALL, *SMALL_NETWORK[command.config.network.kind], *screen]
    assert launch.main([*words, *small, "--runs-dir", "made"]) == 0
    made = list((workplace / "made").iterdir())
    assert len(made) == max(len(command.seeds), 1)
    for run in made:
        config = config_file.load_config(run / "config.yaml")
        assert config.env.id == command.config.env.id
        assert load_checkpoint(run).step >= 1


@pytest.mark.parametrize("line", sorted(line for line in documented()["launch"] if line.startswith("resume ")))
def test_what_goes_on_is_executed(line: str, workplace: Path) -> None:
    """With totals of this run's size: its own are reached in seconds."""
    run = workplace / "runs" / "A"
    run.rename(workplace / "made-by-hand")
    assert run_serial(small_config(run={"learner_steps": 5}), run)
    words = words_of(line)
    command = parse_args(words)
    assert isinstance(command, ResumeCommand)
    small = {"--iterations": "8", "--minutes": "20", "--episodes": "1000"}
    given = [small.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    if "--iterations" not in given:
        given += ["--iterations", "8"]
    assert launch.main(given) == 0
    assert load_checkpoint(run).step == 8


def test_what_is_not_executed_needs_a_cluster() -> None:
    left = [words for line in documented()["launch"] if "--address" in (words := words_of(line))]
    assert left
    assert {type(parse_args(words)) for words in left} <= {SubmitCommand, TrainCommand}
