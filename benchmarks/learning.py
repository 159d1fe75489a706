"""Does it still learn as well? `python -m benchmarks.learning PRESET` trains the preset and compares the curve.

The curves of earlier runs are kept as data in docs/curves/PRESET.json. A new run is compared with them at the learner
steps at which all of them were evaluated: its mean score over these must lie within the interval in which one more run
like the kept ones is expected, 19 times of 20. Exit code 1 if it lies below.

    python -m benchmarks.learning breakout --seed 7               # a run of its own, at full length
    python -m benchmarks.learning breakout --runs runs/A runs/B   # runs that are there, finished or not
    python -m benchmarks.learning breakout --keep runs/A runs/B   # replace the kept curves by theirs
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from benchmarks.measure import machine
from muzero_ray.config.files import preset_path
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.protocol import protocol_digest
from muzero_ray.runs.layout import SCORES_FILE
from muzero_ray.runs.run_config import load_run_config
from muzero_ray.runs.scores import comparable
from muzero_ray.runs.side_files import SideFile, score_problem

ROOT = Path(__file__).resolve().parents[1]
CURVES = ROOT / "docs" / "curves"

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Curve:
    """Noise-free scores of one run. Lists of one entry per evaluation, in the order of learner steps."""

    seed: int
    serial: bool
    protocol: str
    """Its digest: only scores of equal protocols are compared."""
    learner_steps: list[int]
    env_steps: list[int]
    return_mean: list[float]
    episodes: list[int]

    def at(self, steps: Sequence[int]) -> list[float]:
        """Mean returns after these learner steps."""
        return [self.return_mean[self.learner_steps.index(step)] for step in steps]


@dataclass(frozen=True)
class Verdict:
    """score: mean of the new run over the steps. low, high: where one more run like the kept ones is expected."""

    score: float
    low: float
    high: float

    def __str__(self) -> str:
        where = "below" if self.score < self.low else "above" if self.score > self.high else "within"
        return f"mean {self.score:.2f}, {where} the interval {self.low:.2f} to {self.high:.2f} of the kept runs"


def read_curve(run: Path) -> Curve:
    """The evaluations of a run, its final one included. ConfigError if it has none, or if its file is damaged."""
    config = load_run_config(run)
    file = SideFile(run / SCORES_FILE, score_problem)
    entries = {e["learner_step"]: e for line in file if (e := line.entry)["kind"] in ("evaluation", "final")}
    if file.problems:
        raise ConfigError(f"{file.path} is damaged: {file.trouble()}. Delete those lines")
    if not entries:
        raise ConfigError(f"run {run} has no evaluation yet. Train it further: launch.py resume {run}")
    scores = [entries[step] for step in sorted(entries)]
    return Curve(
        seed=config.run.seed,
        serial=config.run.serial,
        protocol=protocol_digest(comparable(scores[-1], config)),
        learner_steps=[score["learner_step"] for score in scores],
        env_steps=[score["env_steps"] for score in scores],
        return_mean=[round(score["return_mean"], 3) for score in scores],
        episodes=[len(score["returns"]) for score in scores],
    )


def load_curves(file: Path) -> list[Curve]:
    """The kept curves of a preset. ConfigError if there are fewer than two: one run tells no interval."""
    curves = [Curve(**run) for run in json.loads(file.read_text())["runs"]] if file.is_file() else []
    if len(curves) < 2:
        raise ConfigError(f"{file} holds {len(curves)} runs, and an interval needs two. Keep some with --keep RUN RUN")
    return curves


def common_steps(curves: Sequence[Curve]) -> list[int]:
    """Learner steps after which all of them were evaluated."""
    return sorted(set.intersection(*(set(curve.learner_steps) for curve in curves)))


def judge(new: Curve, kept: Sequence[Curve]) -> Verdict:
    """Where the new run's mean score lies. ConfigError if the runs cannot be compared.

    The interval is that of a prediction: mean +- t * s * sqrt(1 + 1 / n) of the n kept runs' means.
    """
    if len({curve.protocol for curve in [new, *kept]}) > 1:
        raise ConfigError("the protocol of the new run is not that of the kept ones: compare runs of one protocol")
    steps = common_steps([new, *kept])
    if not steps:
        raise ConfigError(
            f"the new run was evaluated after {new.learner_steps} learner steps, the kept ones after "
            f"{common_steps(kept)}: none in common. Use the same evaluation.interval_steps"
        )
    means = np.array([np.mean(curve.at(steps)) for curve in kept])
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, len(means) - 1))
    half = quantile * float(means.std(ddof=1)) * math.sqrt(1 + 1 / len(means))
    return Verdict(float(np.mean(new.at(steps))), float(means.mean()) - half, float(means.mean()) + half)


def table(new: Curve, kept: Sequence[Curve]) -> str:
    """Markdown: the new run beside the kept ones, step by step."""
    steps = common_steps([new, *kept])
    rows = [f"| learner steps | seed {new.seed}, new | {' | '.join(f'seed {curve.seed}' for curve in kept)} |"]
    rows.append("|---:" * (len(kept) + 2) + "|")
    for step, *scores in zip(steps, new.at(steps), *(curve.at(steps) for curve in kept), strict=True):
        rows.append(f"| {step:,} | {' | '.join(f'{score:.1f}' for score in scores)} |")
    return "\n".join(rows)


def keep(preset: str, runs: Sequence[Path], file: Path) -> None:
    """Write the curves of `runs`, with the commit and the machine that they are kept on."""
    curves = [read_curve(run) for run in runs]
    data: dict[str, Any] = {
        "preset": preset,
        "commit": _commit(),
        "machine": {key: value for key, value in machine().items() if key in ("cpu", "cores", "flags")},
        "runs": [asdict(curve) for curve in curves],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=1) + "\n")


def _commit() -> str:
    found = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def train(preset: str, seed: int, options: Sequence[str], runs_dir: Path, *, serial: bool) -> Path:
    """A run of the preset, in a folder that is gone on with if it is there. CalledProcessError if it fails."""
    name = f"learning-{preset}-s{seed}"
    place = ["--runs-dir", str(runs_dir), "--run.name", name, "--run.wandb", "disabled", "--resume"]
    how = ["--serial"] if serial else []
    command = [sys.executable, str(ROOT / "launch.py"), "train", preset, "--seed", str(seed), *how, *place, *options]
    subprocess.run(command, check=True)
    return runs_dir / name


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if a run is below the interval, 2 if runs cannot be compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="compare these; train none")
    parser.add_argument("--keep", type=Path, nargs="+", default=[], help="keep the curves of these in place of others")
    parser.add_argument("--seed", type=int, default=100, help="of the new run (default: %(default)s)")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="default: %(default)s")
    parser.add_argument("--options", default="", help="further options of the new run, such as '--minutes 10'")
    parser.add_argument("--curves", type=Path, help="file of the kept curves (default: docs/curves/PRESET.json)")
    chosen = parser.parse_args(arguments)
    file = chosen.curves or CURVES / f"{chosen.preset}.json"
    try:
        preset_path(chosen.preset)
        if chosen.keep:
            keep(chosen.preset, chosen.keep, file)
            return 0
        kept = load_curves(file)
        runs = chosen.runs or [
            train(chosen.preset, chosen.seed, chosen.options.split(), chosen.runs_dir, serial=kept[0].serial)
        ]
        verdicts = []
        for run in runs:
            curve = read_curve(run)
            verdicts.append(judge(curve, kept))
            print(f"{table(curve, kept)}\n{run}: {verdicts[-1]}")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(any(verdict.score < verdict.low for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
