"""Results into docs/experiments/performance-figures.md: `python -m benchmarks.page FILE.json [--page PAGE]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.bars import judge
from benchmarks.measure import headline, load_rows, table

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def figures(result: dict[str, Any]) -> str:
    """Markdown of a `measure.report`: rows with a bar first, then all others."""
    rows = judge(load_rows(result))
    asked, others = [row for row in rows if row.bar], [row for row in rows if not row.bar]
    met = sum(bool(row.met) for row in asked)
    packages = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    parts = [f"{headline(result)}. {packages}.", f"{met} of {len(asked)} bars are met:", table(asked)]
    return "\n\n".join([*parts, "Everything else:", table(others)])


def fill(page: str, section: str) -> str:
    """`page` with what is between its two marks replaced by `section`. ValueError if it has no such marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no place for figures: it needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--page", type=Path, default=Path("docs/experiments/performance-figures.md"))
    arguments = parser.parse_args()
    result = json.loads(arguments.file.read_text())
    arguments.page.write_text(fill(arguments.page.read_text(), figures(result)))


if __name__ == "__main__":
    main()
