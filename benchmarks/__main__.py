"""How fast is it, against what the machine allows? `python -m benchmarks [PART ...] [--quick] [--json FILE]`

docs/performance.md says how to read the table, docs/experiments/performance-figures.md what each row measures.
Two checkouts of the code are compared by `python -m benchmarks against PATH` (is this one as fast) and
`python -m benchmarks sameness PATH` (do runs stay as they were).
Commands of their own: `python -m benchmarks.engine_quality RUN` (does a fast engine search as the exact one does),
`python -m benchmarks.board_exact RUN` (how exact is a board agent), `python -m benchmarks.ablation PRESET` (which parts
of the recipe pay), `python -m benchmarks.diagnose RUN` (does looking ahead help), `python -m benchmarks.distill RUN`
(would the network play better if the search taught it better), `python -m benchmarks.offline RUN` (what other settings
learn from the same games), `python -m benchmarks.learning PRESET` (does it still learn as well),
`python -m benchmarks.curves` (learning curves) and `python -m benchmarks.page FILE` (results into
docs/experiments/performance-figures.md).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks import (
    against,
    coordination,
    engine_quality,
    learner,
    replay,
    sameness,
    search,
    self_play,
    system,
    weights,
)
from benchmarks.bars import judge
from benchmarks.measure import FULL, QUICK, Effort, Row, headline, load_rows, machine, report, table

Part = Callable[[Effort], Iterator[Row]]

PARTS: dict[str, Part] = {
    "tree": search.tree,
    "search": search.searches,
    "selfplay": self_play.self_play,
    "weights": weights.weights,
    "learner": learner.learner,
    "replay": replay.replay,
    "system": system.system,
    "coordination": coordination.coordination,
}

COMPARISONS: dict[str, Callable[[list[str]], int]] = {"against": against.main, "sameness": sameness.main}
"""With another checkout of the code; each takes the rest of the command line and returns the exit code."""


def main(arguments: list[str] | None = None) -> None:
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in COMPARISONS:
        sys.exit(COMPARISONS[words[0]](words[1:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{' '.join(PARTS)} (default: all)")
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="trained runs, for the quality of the engines")
    parser.add_argument("--quick", action="store_true", help="a few short repeats, to see that everything works")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks.json"), help="default: %(default)s")
    parser.add_argument("--table", type=Path, metavar="FILE", help="measure nothing, print the table of such a file")
    chosen = parser.parse_args(words)
    if chosen.table is not None:
        result = json.loads(chosen.table.read_text())
        print(headline(result))
        print(table(judge(load_rows(result))))
        return
    for part in chosen.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}. Choose from: {' '.join(PARTS)}")
    torch.set_num_threads(1)
    parts = {name: PARTS[name] for name in chosen.parts or ([] if chosen.runs else PARTS)}
    parts |= {f"quality of {folder.name}": partial(engine_quality.quality, folder) for folder in chosen.runs}
    run(parts, QUICK if chosen.quick else FULL, chosen.json)


def run(parts: dict[str, Part], effort: Effort, file: Path) -> None:
    """Measure `parts`, print their table and write everything to `file`."""
    environment = machine()
    rows: list[Row] = []
    for name, part in parts.items():
        begin = time.monotonic()
        rows += part(effort)
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    rows = judge(rows)
    result = report(rows, effort, environment)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(headline(result))
    print(table(rows))
    print(f"written to {file}")


if __name__ == "__main__":
    main()
