"""What an experiment found, its table, and its JSON. Nothing here knows what is broken."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import machine

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    """One fault, tried `tries` times.

    lost: of what must never be lost or wrong, how much was; what it counts is in the bar. figures: what was measured,
    by name and unit. met: whether the bar is. notes: one line for each try that missed it.
    """

    fault: str
    bar: str
    tries: int
    lost: int
    met: bool
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()


def report(outcomes: Iterator[Outcome]) -> None:
    """One JSON object per line on standard output, which `reported` reads."""
    for outcome in outcomes:
        print(json.dumps(asdict(outcome)), flush=True)


def reported(command: Sequence[str]) -> Iterator[Outcome]:
    """What a program that ends with `report` found. RuntimeError if it breaks down: it says why on standard error."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield Outcome(**json.loads(line))
    if process.returncode:
        raise RuntimeError(f"`{' '.join(command[:-1])}` ended with {process.returncode}; its traceback is above")


Experiment = Callable[[int, Path], Iterator[Outcome]]
"""(tries, an empty folder of its own) -> what came of it."""


@dataclass(frozen=True)
class Row:
    """An outcome, and how long the experiment took that it is of."""

    outcome: Outcome
    seconds: float


def perform(name: str, experiment: Experiment, tries: int, folder: Path) -> list[Row]:
    """Run it; one that breaks down is a bar missed, with the reason, beside what it found before."""
    begin = time.monotonic()
    outcomes: list[Outcome] = []
    try:
        outcomes += experiment(tries, folder)
    except Exception as error:  # whatever it is: the other experiments shall still be made, and this one shall show
        note = f"the experiment broke down: {type(error).__name__}: {error}"
        outcomes.append(Outcome(name, "the experiment ends", tries, 0, False, notes=(note,)))
    seconds = time.monotonic() - begin
    return [Row(outcome, round(seconds, 1)) for outcome in outcomes]


def median(values: Sequence[float]) -> float:
    """NaN if there is none: nothing measured meets no bar."""
    return round(float(np.median(values)), 2) if values else float("nan")


def largest(values: Sequence[float]) -> float:
    """As `median`."""
    return round(float(max(values)), 2) if values else float("nan")


def commit() -> str:
    """The commit of the code that runs, with `+` if files were changed since; `unknown` outside of a clone."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One object per row, each complete in itself, so that rows of several runs can be joined."""
    common = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "machine": machine()}
    return [{**asdict(row.outcome), "figures": _finite(row), "seconds": row.seconds, **common} for row in rows]


def _finite(row: Row) -> dict[str, float | None]:
    """JSON has no NaN and no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in row.outcome.figures.items()}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of `as_json`'s rows, and below it the notes."""
    lines = ["| fault | tries | lost | figures | bar | met |", "|---|---:|---:|---|---|---|"]
    notes: list[str] = []
    for row in rows:
        figures = ", ".join(f"{name} {_number(value)}" for name, value in row["figures"].items())
        met = "yes" if row["met"] else "NO"
        lines.append(f"| {row['fault']} | {row['tries']} | {row['lost']} | {figures} | {row['bar']} | {met} |")
        notes += [f"- {row['fault']}: {note}" for note in row["notes"]]
    return "\n".join(lines + (["", *notes] if notes else []))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f}" if value == int(value) else f"{value:.2f}"
