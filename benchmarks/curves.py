"""Learning curves of runs, as a PNG: `python -m benchmarks.curves OUT.png RUN [RUN ...]`.

Thin: mean return of self-play episodes between two rows. Dots: noise-free evaluations; the last one ends the run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

try:
    import matplotlib
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: benchmarks.curves needs the package {error.name}, which is not installed. "
        "Install it: pip install -e '.[plots]'"
    ) from None

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from muzero_ray.runs.layout import METRICS_FILE
from muzero_ray.runs.side_files import SideFile, row_problem


def series(rows: list[dict[str, float]], name: str) -> tuple[list[float], list[float]]:
    """Env steps and values of the rows that hold `name`."""
    held = [row for row in rows if row.get(name) is not None]
    return [row["env_steps"] for row in held], [row[name] for row in held]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--title", default="")
    arguments = parser.parse_args()
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for index, run in enumerate(arguments.runs):
        file = SideFile(run / METRICS_FILE, row_problem)
        rows = [line.entry for line in file]
        if file.problems:
            print(f"{file.path} is damaged, its good lines are drawn: {file.trouble()}")
        axes.plot(*series(rows, "train/return_mean"), color=f"C{index}", linewidth=0.8, alpha=0.5)
        axes.plot(*series(rows, "eval/return_mean"), "o-", color=f"C{index}", label=run.name)
    axes.set(xlabel="env steps (agent moves)", ylabel="return", title=arguments.title)
    axes.grid(alpha=0.3)
    axes.legend()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=100)


if __name__ == "__main__":
    main()
