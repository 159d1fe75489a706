"""How fast is it, against what the machine allows? `python -m benchmarks [--only PART ...] [--quick] [--json FILE]`

One torch thread, everything seeded. docs/performance.md says what each part measures and against which limit.
Commands of their own: `python -m benchmarks.board_exact` (how exact is a board agent) and `python -m benchmarks.curves`
(learning curves of runs).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import learner, replay, search
from benchmarks.measure import FULL, QUICK, Effort, Row, machine, report, table

PARTS: dict[str, Callable[[Effort], Iterator[Row]]] = {
    "tree": search.tree,
    "search": search.searches,
    "selfplay": learner.self_play,
    "learner": learner.learner,
    "replay": replay.replay,
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats, no replay of a million")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks.json"), help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    run(chosen.only, QUICK if chosen.quick else FULL, chosen.json)


def run(parts: list[str], effort: Effort, file: Path) -> None:
    """Measure `parts`, print their table and write everything to `file`."""
    environment = machine()
    rows: list[Row] = []
    for part in parts:
        begin = time.monotonic()
        rows += PARTS[part](effort)
        print(f"{part}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    result = report(rows, effort, environment)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    flags = " ".join(environment["flags"])
    print(f"{environment['cpu']}, {environment['cores']} cores, {flags}; load {environment['load']}; {result['date']}")
    print(table(rows))
    print(f"written to {file}")


if __name__ == "__main__":
    main()
