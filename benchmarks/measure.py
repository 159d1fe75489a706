"""How things are timed, compared and written down; the parts in the other modules only say what to run.

A *trial* is a function that runs for about `Effort.seconds` and returns one sample per figure. Trials that are compared
run in turns: a machine that slows down, or another user of the core, then hits all of them alike, and ratios are taken
within one turn. Nothing here knows what is measured.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

Trial = Callable[[], dict[str, float]]
Samples = dict[str, list[float]]

FLAGS = ("amx_bf16", "amx_int8", "amx_tile", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx512f", "avx2")
PACKAGES = ("muzero-ray", "numpy", "numba", "torch", "openvino", "ray", "gymnasium", "ale-py", "zstandard")


@dataclass(frozen=True)
class Effort:
    """How much to spend. repeats: samples per figure. seconds: at least this long for one sample of a rate.

    replay_sizes: transitions, the smallest first, which the others are compared with. recorded: real transitions played
    for them. batch_sizes: of the searches. curve_steps: updates of a loss curve. slices, slice_seconds: how long the
    whole system is watched. actors: numbers of them whose coordination is compared, the first with the others, each for
    level_seconds, passes times over. observations: on which engines are compared.
    """

    repeats: int
    seconds: float
    replay_sizes: tuple[int, ...]
    recorded: int
    batch_sizes: tuple[int, ...] = (1, 8, 16, 64)
    curve_steps: int = 60
    slices: int = 12
    slice_seconds: float = 15.0
    actors: tuple[int, ...] = (1, 4, 16, 64)
    level_seconds: float = 15.0
    passes: int = 3
    observations: int = 1_000


FULL = Effort(repeats=9, seconds=0.3, replay_sizes=(10_000, 100_000, 1_000_000), recorded=10_000)
QUICK = Effort(
    repeats=3,
    seconds=0.1,
    replay_sizes=(10_000, 100_000),
    recorded=10_000,
    batch_sizes=(1, 8),
    curve_steps=4,
    slices=2,
    slice_seconds=5.0,
    actors=(1, 4),
    level_seconds=5.0,
    passes=1,
    observations=200,
)


@dataclass(frozen=True)
class Row:
    """One figure: median, lowest and highest of its samples, in `unit`.

    ratio: median over turns of figure / baseline, both of the same turn; above 1 is good for rates, bad for times.
    Without a baseline the figure is itself what others are compared with. bar, met: what is asked of it, in words, and
    whether it is so (`benchmarks.bars`).
    """

    name: str
    figure: float
    unit: str
    low: float
    high: float
    samples: tuple[float, ...]
    baseline: str | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    bar: str | None = None
    met: bool | None = None


def take_turns(trials: Sequence[Trial], repeats: int) -> Samples:
    """Run every trial once to warm up, then `repeats` times in turns. Each turn starts with another trial."""
    for trial in trials:
        trial()
    samples: Samples = {}
    for turn in range(repeats):
        first = turn % len(trials)
        for trial in (*trials[first:], *trials[:first]):
            for key, value in trial().items():
                samples.setdefault(key, []).append(value)
    return samples


def make_row(name: str, unit: str, samples: Samples, key: str, against: str = "", baseline: str = "") -> Row:
    """Row of `samples[key]`, compared with `samples[against]`, which the table calls `baseline`."""
    values = np.array(samples[key])
    row = Row(
        name=name,
        figure=float(np.median(values)),
        unit=unit,
        low=float(values.min()),
        high=float(values.max()),
        samples=tuple(samples[key]),
    )
    if not against:
        return row
    ratios = values / np.array(samples[against])
    return replace(
        row,
        baseline=baseline,
        ratio=float(np.median(ratios)),
        ratio_low=float(ratios.min()),
        ratio_high=float(ratios.max()),
    )


def rate(call: Callable[[], Any], work: int, seconds: float) -> float:
    """Units of work per second: `call` does `work` of them, again and again until `seconds` have passed."""
    calls = 0
    begin = time.perf_counter()
    while True:
        call()
        calls += 1
        elapsed = time.perf_counter() - begin
        if elapsed >= seconds:
            return calls * work / elapsed


def milliseconds(call: Callable[[], Any], seconds: float) -> float:
    """Mean time of a call, in ms."""
    return 1000.0 / rate(call, 1, seconds)


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code. load: of the last minute when asked, to tell a busy machine."""
    cpuinfo = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    if cpuinfo.is_file():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        fields = {key.strip(): value.strip() for key, _, value in lines}
    flags = set(fields.get("flags", "").split())
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "flags": [flag for flag in FLAGS if flag in flags],
        "system": platform.platform(),
        "torch_threads": torch.get_num_threads(),
        "load": round(psutil.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter here, where installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # an optional one
    return found


def report(rows: Sequence[Row], effort: Effort, environment: dict[str, Any]) -> dict[str, Any]:
    """Everything as JSON types. environment: `machine()`, taken before the first part."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": environment,
        "versions": versions(),
        "effort": asdict(effort),
        "rows": [asdict(row) for row in rows],
    }


def load_rows(result: dict[str, Any]) -> list[Row]:
    """The rows of a `report` that was written as JSON."""
    return [Row(**{**row, "samples": tuple(row["samples"])}) for row in result["rows"]]


def headline(result: dict[str, Any]) -> str:
    """Where and when the figures of a `report` were taken, in one line."""
    where = result["machine"]
    return f"{where['cpu']}, {where['cores']} cores, {' '.join(where['flags'])}; load {where['load']}; {result['date']}"


def table(rows: Sequence[Row]) -> str:
    """Markdown, padded to be read as it is. `+-` is half the range of the samples, in percent of their median."""
    cells = [("name", "figure", "+-", "unit", "ratio", "range", "against", "bar", "met")]
    for row in rows:
        spread = 50 * (row.high - row.low) / row.figure if row.figure else 0.0
        ratio, span = "", ""
        if row.ratio is not None:
            ratio, span = f"{row.ratio:.3f}", f"{row.ratio_low:.3f}-{row.ratio_high:.3f}"
        met = "" if row.met is None else "yes" if row.met else "NO"
        baseline = row.baseline or "(a baseline)"
        figure = number(row.figure)
        cells.append((row.name, figure, f"{spread:.0f} %", row.unit, ratio, span, baseline, row.bar or "", met))
    return padded(cells, right=(1, 2, 4, 5))


def padded(cells: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """A Markdown table whose columns line up. cells: lines of equal length, the header first. right: columns aligned
    to the right."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "| "
        + " | ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in cells
    ]
    rule = "|".join("-" * (width + 1) + (":" if column in right else "-") for column, width in enumerate(widths))
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def number(value: float) -> str:
    """Four digits at least: 1,234,567  123.4  1.234."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.3f}"
