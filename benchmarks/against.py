"""Is this checkout as fast as another one? `python -m benchmarks against PATH [PART ...]`

Measures both in turns (here, there, here, there, ...), each time in a process of its own with its own benchmarks, and
compares all rows of speed or memory that both have. A ratio is that of one turn, and above 1 this checkout is better:
faster, or smaller. A row is worse if the median of its ratios is below 0.95 by more than half their range; exit code 1
if one is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.checkouts import HERE, checkout, run_python
from benchmarks.measure import Row, headline, load_rows, machine, number, padded
from muzero_ray.errors import MuZeroRayError
from muzero_ray.types import Array

PARTS = ("tree", "search", "selfplay", "learner", "replay")
"""Those that need nothing but their own process."""

BAR = 0.95

COSTS = ("ms", "us", "s", "CPU ms", "CPU us", "B")
"""What is better if it is less, whatever it is counted per."""


@dataclass(frozen=True)
class Comparison:
    """One row in both checkouts. here, there: medians over the turns. ratios: of each turn, above 1 is good."""

    name: str
    unit: str
    here: float
    there: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return float(np.median(self.ratios))

    @property
    def spread(self) -> float:
        """Half the range of the ratios."""
        return (max(self.ratios) - min(self.ratios)) / 2

    @property
    def worse(self) -> bool:
        return self.ratio + self.spread < BAR


def measured(root: Path, parts: Sequence[str], *, quick: bool) -> list[Row]:
    """The rows of `parts`, by the benchmarks of the checkout `root`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        run_python(root, ["-m", "benchmarks", *parts, "--json", str(file), *(["--quick"] if quick else [])])
        return load_rows(json.loads(file.read_text()))


def compared(here: Sequence[Sequence[Row]], there: Sequence[Sequence[Row]]) -> list[Comparison]:
    """The rows of speed or memory that both checkouts have in all turns; a figure of 0 cannot be compared."""
    found = []
    for row in here[0]:
        one, other = (_figures(row.name, turns) for turns in (here, there))
        if len(one) != len(other) or not (one.all() and other.all()) or not (_is_rate(row) or _is_cost(row)):
            continue
        ratios = one / other if _is_rate(row) else other / one
        found.append(
            Comparison(row.name, row.unit, float(np.median(one)), float(np.median(other)), tuple(ratios.tolist()))
        )
    return found


def _is_rate(row: Row) -> bool:
    return row.unit.endswith(("/s", "/CPU s"))


def _is_cost(row: Row) -> bool:
    return row.unit.split("/")[0] in COSTS


def _figures(name: str, turns: Sequence[Sequence[Row]]) -> Array:
    return np.array([row.figure for rows in turns for row in rows if row.name == name])


def left_out(turns: Iterable[Sequence[Row]], comparisons: Sequence[Comparison]) -> list[str]:
    """Names of rows of speed or memory in any turn that are not among `comparisons`."""
    names = {row.name for rows in turns for row in rows if _is_rate(row) or _is_cost(row)}
    return sorted(names - {row.name for row in comparisons})


def table(comparisons: Sequence[Comparison]) -> str:
    """Markdown, padded to be read as it is."""
    cells = [("name", "here", "there", "unit", "ratio", "+-", "worse")]
    for row in comparisons:
        figures = number(row.here), number(row.there), row.unit, f"{row.ratio:.3f}", f"{row.spread:.3f}"
        cells.append((row.name, *figures, "YES" if row.worse else ""))
    return padded(cells, right=(1, 2, 4, 5))


def main(arguments: list[str]) -> int:
    """Returns 1 if a row is worse, 2 if a checkout cannot be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks against", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="the other checkout")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: {' '.join(PARTS)}")
    parser.add_argument("--turns", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a few short repeats in each turn")
    chosen = parser.parse_args(arguments)
    for part in chosen.parts:
        if part not in PARTS:
            parser.error(f"part {part!r} cannot be compared. Choose from: {' '.join(PARTS)}")
    if chosen.turns < 2:
        parser.error("--turns must be at least 2: one turn has no spread")
    try:
        places = {"here": HERE, "there": checkout(chosen.path)}
        print(headline({"machine": machine(), "date": time.strftime("%Y-%m-%dT%H:%M:%S%z")}), flush=True)
        turns: dict[str, list[list[Row]]] = {place: [] for place in places}
        for turn in range(1, chosen.turns + 1):
            for place, root in places.items():
                begin = time.monotonic()
                turns[place].append(measured(root, chosen.parts or PARTS, quick=chosen.quick))
                print(f"turn {turn}, {place}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    except (MuZeroRayError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = compared(turns["here"], turns["there"])
    print(table(rows))
    if names := left_out([*turns["here"], *turns["there"]], rows):
        print(f"Not compared, since they are 0 or not there in every turn of both: {' '.join(names)}")
    worse = [row.name for row in rows if row.worse]
    print(f"{len(worse)} of {len(rows)} rows are below {BAR} beyond their spread. {' '.join(worse)}".rstrip())
    return int(bool(worse))
