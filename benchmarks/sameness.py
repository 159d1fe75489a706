"""Does a change of the code leave runs as they were? `python -m benchmarks sameness PATH`

Trains with `--serial` in this checkout and in the one at PATH, both with the presets of PATH: a preset may change. Then
it compares what the runs left: the SHA-256 of every tensor of the last checkpoint, actions and rewards of every game in
its replay, all numbers of metrics.jsonl that do not come from the clock or the machine, the returns of every
evaluation, and the settings that both have. Prints what differs; exit code 1 if anything does. Floating-point results
depend on the CPU, so both run on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.checkouts import HERE, checkout, run_python
from muzero_ray.config import renamed
from muzero_ray.errors import MuZeroRayError
from muzero_ray.runs.checkpoint import Checkpoint, load_checkpoint
from muzero_ray.runs.metrics import MACHINE_METRICS
from muzero_ray.runs.replay_archive import ReplayArchive
from muzero_ray.types import Array, GameHistory

PRESETS = ("cartpole", "tictactoe", "breakout")

RENAMED: Mapping[str, str] = {".".join(old): ".".join(new) for old, new in renamed.RENAMED.items()}
"""Old name -> new name of settings; metrics that get another name belong here, too."""

OPTIONS = {
    "run.wandb": "disabled",
    "run.log_steps": "10",
    "run.checkpoint_steps": "100",
    "evaluation.interval_steps": "100",
    "evaluation.episodes": "2",
    "evaluation.final_episodes": "2",
    "evaluation.video": "False",
}
"""Settings of every run over those of its preset, by today's names: few evaluations and many rows."""

PLACES = ("run.name", "run.runs_dir")
"""Settings in which two runs always differ."""

Facts = dict[str, dict[str, Any]]
"""Kind -> name -> what the run holds under that name."""


def train(root: Path, config: Path, folder: Path, learner_steps: int, seed: int) -> Facts:
    """Train `config` with the code in `root`, in `folder`; returns the facts of that run."""
    preset = ["--config", str(config)]
    known = run_python(root, ["launch.py", "train", *preset, "--help"]).replace("-", "_")
    budget = ["--serial", "--seed", str(seed), "--iterations", str(learner_steps), "--minutes", "10000"]
    place = ["--runs-dir", str(folder.parent), "--run.name", folder.name]
    settings = [word for name, value in OPTIONS.items() for word in (f"--{_known_as(name, known)}", value)]
    run_python(root, ["launch.py", "train", *preset, *budget, *place, *settings])
    return read_facts(folder)


def _known_as(name: str, help_text: str) -> str:
    """`name`, or the old name of that setting if the help of an older program has only that one."""
    old = {new: old for old, new in RENAMED.items()}.get(name, name)
    return old if name not in help_text else name


def read_facts(run: Path) -> Facts:
    """What two equal runs have in common."""
    checkpoint = load_checkpoint(run)
    return {
        "settings": setting_facts(yaml.safe_load((run / "config.yaml").read_text())),
        "tensors": tensor_facts(checkpoint),
        "games": game_facts(ReplayArchive(run / "replay").games(checkpoint.files)),
        "metrics": metric_facts(_lines(run / "metrics.jsonl")),
        "scores": score_facts(_lines(run / "scores.jsonl")),
    }


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def setting_facts(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a config by their dotted names."""
    facts: dict[str, Any] = {}
    for key, value in config.items():
        name = RENAMED.get(prefix + key, prefix + key)
        if isinstance(value, Mapping):
            facts |= setting_facts(value, f"{name}.")
        elif name not in PLACES:
            facts[name] = value
    return facts


def tensor_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """SHA-256 of weights, running statistics and the optimizer's state."""
    parts = {"model": checkpoint.model, "optimizer": checkpoint.optimizer}
    return {f"{part}: {name}": _digest(array) for part, arrays in parts.items() for name, array in arrays.items()}


def _digest(array: Array) -> str:
    """SHA-256 of type, shape and numbers."""
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).hexdigest()


def game_facts(games: Iterable[GameHistory]) -> dict[str, Any]:
    """Actions and rewards of each game, or of each segment of a long one."""
    facts: dict[str, Any] = {}
    for game in games:
        facts[f"actions of {tuple(game.id)}"] = game.actions.tolist()
        facts[f"rewards of {tuple(game.id)}"] = game.rewards.tolist()
    return facts


def metric_facts(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """All columns of all rows, but for those that depend on the clock or the machine."""
    return {
        f"row {number}: {RENAMED.get(name, name)}": value
        for number, row in enumerate(rows)
        for name, value in row.items()
        if name not in MACHINE_METRICS
    }


def score_facts(scores: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The returns of each evaluation."""
    return {f"{score['kind']} after {score['learner_step']} learner steps": score["returns"] for score in scores}


def differences(here: Facts, there: Facts) -> list[str]:
    """A line for each kind of facts that are not all the same: how many differ, and the first of them."""
    lines = []
    for kind in here:
        one, other = here[kind], there[kind]
        names = list(one | other)
        if kind == "settings":  # one that only one of the programs has is at its default
            names = [name for name in one if name in other]
        differing = [name for name in names if not _same(name, one, other)]
        if differing:
            first = differing[0]
            lines.append(
                f"{kind}: {len(differing)} of {len(names)} differ, first {first}: "
                f"{_shown(first, one)} here, {_shown(first, other)} there"
            )
    return lines


def _same(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return name in one and name in other and json.dumps(one[name]) == json.dumps(other[name])


def _shown(name: str, facts: Mapping[str, Any]) -> str:
    text = str(facts[name]) if name in facts else "missing"
    return text if len(text) <= 60 else f"{text[:60]}..."


def compare(preset: str, there: Path, work: Path, learner_steps: int, seed: int) -> tuple[str, list[str]]:
    """What was compared, as a line to print, and what differs. The runs are left in `work`."""
    places = (("here", HERE), ("there", there))
    config = there / "configs" / f"{preset}.yaml"
    here, other = (train(root, config, work / place / preset, learner_steps, seed) for place, root in places)
    compared = ", ".join(f"{len(names):,} {kind}" for kind, names in here.items())
    lines = differences(here, other)
    return f"{preset}: {'different' if lines else 'the same'} ({compared})", lines


def main(arguments: list[str]) -> int:
    """Returns 1 if a run differs, 2 if one could not be made."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks sameness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="the other checkout")
    parser.add_argument("--presets", nargs="+", default=PRESETS, help=f"default: {' '.join(PRESETS)}")
    parser.add_argument("--learner-steps", type=int, default=300, help="of each run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of each run (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    found: list[str] = []
    work = Path(tempfile.mkdtemp(prefix="sameness-"))
    try:
        there = checkout(chosen.path)
        for preset in chosen.presets:
            summary, lines = compare(preset, there, work, chosen.learner_steps, chosen.seed)
            print(summary, *lines, sep="\n  ", flush=True)
            found += lines
    except (MuZeroRayError, OSError) as error:
        found.clear()
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if not found:
            shutil.rmtree(work)
    if found:
        print(f"The runs are in {work}.")
    return int(bool(found))
