"""Break it, and see what is left. `python -m chaos [FAULT ...] [--quick] [--json FILE]`

docs/experiments/reliability-figures.md describes each fault and its bar. Every fault is done to the real program:
its processes are killed, its disk is full. A bar that is missed is printed as missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from chaos.hangups import hear_hangups
from chaos.report import Experiment, Row, as_json, perform, table


class Fault(NamedTuple):
    """`function` is `module:name` of an Experiment, imported when it is asked for. full, quick: how many tries."""

    function: str
    full: int
    quick: int


FAULTS = {
    "kill-workers": Fault("kills:kill_workers", 20, 1),
    "kill-replay": Fault("kills:kill_replay", 20, 2),
    "kill-learner": Fault("kills:kill_learner", 20, 2),
    "kill-group": Fault("group:kill_group", 30, 2),
    "ray-processes": Fault("ray_processes:ray_processes", 5, 1),
    "stop": Fault("stops:stop", 10, 1),
    "checkpoints": Fault("checkpoints:checkpoints", 2_000, 200),
    "nan": Fault("numbers:not_finite", 50, 10),
    "disk": Fault("disk:disk", 3, 1),
    "settings": Fault("settings:settings", 2_000, 200),
    "pressure": Fault("pressure:pressure", 60, 15),
    "environments": Fault("environments:environments", 15, 3),
    "users": Fault("users:users", 5, 1),
    "soak": Fault("soak:soak", 60, 3),
    "nodes": Fault("nodes:nodes", 2, 1),
    "head": Fault("head:head", 2, 1),
    "conditions": Fault("conditions:conditions", 100, 1),
}

ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
"""Read once, when the first experiment imports Ray and torch."""


def experiment(name: str) -> Experiment:
    module, _, function = FAULTS[name].function.partition(":")
    found: Experiment = getattr(importlib.import_module(f"chaos.{module}"), function)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"{' '.join(FAULTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a try or two of each, to see that everything works")
    parser.add_argument("--tries", type=int, help="that many of each")
    parser.add_argument("--json", type=Path, default=Path("runs/chaos.json"), help="default: %(default)s")
    parser.add_argument(
        "--table", type=Path, nargs="+", metavar="FILE", help="try nothing, print what is in such files"
    )
    chosen = parser.parse_args(arguments)
    if chosen.table is not None:
        print(table([row for file in chosen.table for row in json.loads(file.read_text())]))
        return 0
    for name in chosen.faults:
        if name not in FAULTS:
            parser.error(f"there is no fault {name!r}. Choose from: {' '.join(FAULTS)}")
    os.environ.update(ENVIRONMENT)
    hear_hangups()
    rows: list[Row] = []
    for name in chosen.faults or FAULTS:
        fault = FAULTS[name]
        tries = chosen.tries or (fault.quick if chosen.quick else fault.full)
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            rows += perform(name, experiment(name), tries, Path(folder))
        print(f"{name}: {rows[-1].seconds:.0f} s", file=sys.stderr)
        chosen.json.parent.mkdir(parents=True, exist_ok=True)  # after each: a full form takes hours
        chosen.json.write_text(json.dumps(as_json(rows), indent=1) + "\n")
    print(table(as_json(rows)))
    print(f"written to {chosen.json}")
    return 0 if all(row.outcome.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
