"""Which parts of the recipe pay? `python -m benchmarks.ablation PRESET --runs-dir DIR [--options '--minutes 3']`

Trains the preset, and the preset with one thing changed, with each seed: serial runs of one core each, as many at a
time as there are cores, and prints one line per variant. Scores are those of the final evaluations; each variant is
judged with the search that it was trained with, but for what the preset's `evaluation` sets itself (`simulations`,
`c_scale`): `launch.py evaluate RUN --simulations N --c-scale C` says it otherwise. Runs that are finished in --runs-dir
are not made again: a table can be made in parts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import parse_args
from muzero_ray.errors import ConfigError
from muzero_ray.runs.run import Run
from muzero_ray.runs.scores import RunScore, aggregate, check_comparable, read_score

ROOT = Path(__file__).resolve().parents[1]

VARIANTS = {
    "preset": "",
    "gumbel-16": "--search.kind gumbel --search.simulations 16",
    "puct-50": "--search.kind puct --search.simulations 50",
    "consistency": "--learner.consistency-weight 2",
    "reanalyze-half": "--reanalyze.ratio 0.5",
    "reanalyze-age": "--reanalyze.ratio 0.5 --reanalyze.shorten-steps 200",
    "reanalyze-latest": "--reanalyze.ratio 0.5 --learner.ema-decay 0",
    "uniform-replay": "--replay.priority-alpha 0",
    "prioritized-replay": "--replay.priority-alpha 1",
    "fewer-updates": "--replay.samples-per-insert {half:g}",
    "more-updates": "--replay.samples-per-insert {twice:g}",
    "same-temperature": "--search.temperature 1 1 1",
    "short-targets": "--learner.td-steps 5",
    "shift": "--learner.augmentation shift",
    "shift-intensity": "--learner.augmentation shift intensity",
    **{f"simulations-{number}": f"--search.simulations {number}" for number in (10, 25, 50, 100)},
    **{f"batch-{size}": f"--learner.batch-size {size}" for size in (32, 128, 256)},
    "channels-16": "--network.channels 16",
}
"""Name: what differs from the preset, whose replay ratio is halved and doubled."""


def options_of(name: str, samples_per_insert: float) -> list[str]:
    """The options of `launch.py train`, for a name of `VARIANTS`."""
    return VARIANTS[name].format(half=samples_per_insert / 2, twice=samples_per_insert * 2).split()


def train(folder: Path, preset: Sequence[str], options: Sequence[str]) -> None:
    """One run in `folder`, unless it is there and finished. Raises CalledProcessError if it fails."""
    try:
        read_score(folder)
        return
    except ConfigError:
        # In one write: other threads print, too.
        sys.stdout.write(f"training {folder}\n")
    place = ["--runs-dir", str(folder.parent), "--run.name", folder.name, "--run.wandb", "disabled", "--resume"]
    command = [sys.executable, str(ROOT / "launch.py"), "train", *preset, "--serial"]
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        subprocess.run(
            [*command, *place, *options],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )


def row(name: str, runs: Sequence[RunScore]) -> str:
    """One line of a Markdown table."""
    check_comparable(runs)
    together = aggregate(name, [np.array([run.score for run in runs])])
    scores = " ".join(f"{run.score:.1f}" for run in runs)
    interval = "" if together.low is None else f"{together.low:.1f} to {together.high:.1f}"
    search = f"{runs[0].protocol['search']} {runs[0].protocol['simulations']}"
    steps, updates = (np.mean([getattr(run, what) for run in runs]) for what in ("env_steps", "learner_steps"))
    speed, memory = np.mean([speed_and_memory(run.run) for run in runs], axis=0)
    columns = (name, search, scores, f"{together.iqm:.1f}", interval, f"{steps:,.0f}", f"{updates:,.0f}")
    return f"| {' | '.join(columns)} | {speed:,.0f} | {memory:,.0f} |"


def speed_and_memory(run: Path) -> tuple[float, float]:
    """Moves per second of training, and the most MB that the process held."""
    metrics = Run(run).metrics()
    return float(metrics["env_steps"][-1] / metrics["wall_s"][-1]), float(np.nanmax(metrics["system/rss_mb"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", help="name of a preset, or '--config FILE'")
    parser.add_argument("--runs-dir", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--options", default="", help="further options of all runs, such as '--minutes 3'")
    chosen = parser.parse_args()
    preset, options = chosen.preset.split(), chosen.options.split()
    command = parse_args(["train", *preset, *options])
    assert isinstance(command, TrainCommand)
    ratio = command.config.replay.samples_per_insert
    chosen.runs_dir.mkdir(parents=True, exist_ok=True)
    folders = {(name, seed): chosen.runs_dir / f"{name}-s{seed}" for name in chosen.variants for seed in chosen.seeds}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [
            pool.submit(train, folder, preset, ["--seed", str(seed), *options, *options_of(name, ratio)])
            for (name, seed), folder in folders.items()
        ]
        for job in jobs:
            job.result()
    print("| variant | search | scores | IQM | 95 % interval | env steps | learner steps | moves/s | MB |")
    print("|---|---|---|---:|---|---:|---:|---:|---:|")
    for name in chosen.variants:
        print(row(name, [read_score(folders[name, seed]) for seed in chosen.seeds]))


if __name__ == "__main__":
    main()
