"""A whole program, left alone with small games for an hour: what grows when nothing should."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from chaos.jobs import CLASSES
from chaos.programs import Program, until
from chaos.report import Outcome, largest
from chaos.trend import Slope, floors, theil_sen
from muzero_ray.runs.checkpoint import list_checkpoints

CAPACITY = 5_000
"""Transitions that replay holds: full within the first minute."""

OPTIONS = (
    *("train", "cartpole", "--run.name", "run", "--run.wandb", "offline", "--iterations", 10**8, "--minutes", 600),
    # Games stay short, whatever is learnt: many of them.
    *("--max-moves", 40, "--simulations", 4, "--network.hidden", 16, "--network.layers", 16),
    *("--network.head-layers", 16, "--replay.capacity", CAPACITY, "--replay.min-size", 500),
    *("--replay.samples-per-insert", 4, "--learner.batch-size", 32, "--learner.td-steps", 5),
    *("--reanalyze.ratio", 0.3, "--reanalyze.simulations", 2, "--actors.num-cpus", 0.3, "--actors.count", 2),
    *("--run.checkpoint-steps", 500, "--run.log-steps", 200, "--evaluation.interval-steps", 250),
    *("--evaluation.episodes", 2, "--evaluation.final-episodes", 2),
)

SAMPLE_SECONDS = 3.0
WINDOW = 1.0
"""Minutes, of each of which the least is taken."""

WARM_UP = 10.0
"""Minutes, or a third of the soak if that is less: allocators, caches and compilers get theirs meanwhile."""

JUDGED_FROM = 30.0
"""Minutes. In a shorter soak the slope is not known to 1 MB/h, and not judged."""

SLOPE_MB = 1.0
"""Per hour."""

INFORMATION = ("raylet", "gcs_server", "wandb-core")
"""Others that belong to the run: shown, not judged."""


@dataclass
class Series:
    """A measurement of one process or folder: minutes since the start, beside what it held then."""

    memory: list[tuple[float, float]] = field(default_factory=list)
    """MB that no other process shares (USS)."""
    files: list[tuple[float, float]] = field(default_factory=list)
    threads: list[tuple[float, float]] = field(default_factory=list)

    def after(self, minute: float) -> Series:
        parts = (self.memory, self.files, self.threads)
        return Series(*([point for point in part if point[0] >= minute] for part in parts))

    def slope(self) -> Slope:
        """MB per hour."""
        per_minute = theil_sen(floors(self.memory, WINDOW))
        return Slope(*(round(60.0 * value, 2) for value in per_minute))


@dataclass
class Record:
    """Everything that was seen. replay: MB on disk. store: MB of the object store in use."""

    processes: dict[str, Series] = field(default_factory=lambda: defaultdict(Series))
    pids: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    disk: Series = field(default_factory=Series)
    store: list[float] = field(default_factory=list)

    def look(self, driver: int, run: Path, minute: float) -> None:
        """One sample of all of it."""
        for name, process in named_processes(driver).items():
            with contextlib.suppress(psutil.Error):  # gone since: `pids` will show who came in its place
                memory, files, threads = process.memory_full_info().uss, process.num_fds(), process.num_threads()
                series = self.processes[name]
                series.memory.append((minute, memory / 2**20))
                series.files.append((minute, files))
                series.threads.append((minute, threads))
                self.pids[name].add(process.pid)
                if name == "raylet":
                    self.store.append(process.memory_info().shared / 2**20)
        self.disk.memory.append((minute, folder_mb(run / "replay") + folder_mb(run / "checkpoints")))


def named_processes(driver: int) -> dict[str, psutil.Process]:
    """The driver and all below it, by what they are; several of one kind by their order."""
    found: dict[str, psutil.Process] = {}
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(driver)
        found["driver"] = root
        for process in sorted(root.children(recursive=True), key=lambda child: child.pid):
            with contextlib.suppress(psutil.Error, IndexError):
                if (name := kind_of(process)) is not None:
                    same = sum(other.rstrip(" 0123456789") == name for other in found)
                    found[f"{name} {same}" if same else name] = process
    return found


def kind_of(process: psutil.Process) -> str | None:
    title = process.cmdline()[0]
    if title.startswith("ray::"):
        return next((kind for kind, name in CLASSES.items() if name in title), None)
    return process.name() if process.name() in INFORMATION else None


def folder_mb(folder: Path) -> float:
    """The size of all files below it, as far as they are still there."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(path, name)).st_size
    return total / 2**20


def growth(points: list[tuple[float, float]]) -> float:
    """How many more there are, all the time, in the last third than ever were for a minute in the first.

    Of the least of each minute: a file that is written, or a call that is answered, is open for a moment.
    """
    least = [much for _, much in floors(points, WINDOW)]
    third = max(len(least) // 3, 1)
    return min(least[-third:]) - max(least[:third]) if least else 0.0


def row(name: str, series: Series, pids: int, minutes: float) -> Outcome:
    """The outcome for one process, after the warm-up."""
    slope = series.slope()
    files, threads = growth(series.files), growth(series.threads)
    lost = int(max(files, 0.0)) + int(max(threads, 0.0)) + pids - 1
    judged = minutes >= JUDGED_FROM
    bar = f"memory grows by {SLOPE_MB:g} MB/h at most" if judged else f"(slopes not judged under {JUDGED_FROM:g} min)"
    held = [much for _, much in floors(series.memory, WINDOW)]
    return Outcome(
        f"soak, {name}",
        f"{bar}; 0 files, 0 threads more in the last third than in the first; never replaced",
        round(minutes),
        lost,
        lost == 0 and bool(held) and (not judged or slope.value <= SLOPE_MB),
        {
            "MB/h": slope.value,
            "(95 % from": slope.low,
            "to)": slope.high,
            "held MB": largest(held),
            "files": largest([much for _, much in floors(series.files, WINDOW)]),
            "threads": largest([much for _, much in floors(series.threads, WINDOW)]),
        },
    )


def disk_row(record: Record, minutes: float, warm_up: float) -> Outcome:
    """Games and checkpoints on disk are as bounded as in memory."""
    disk = record.disk.after(warm_up)
    slope, judged = disk.slope(), minutes >= JUDGED_FROM
    bar = f"grows by {SLOPE_MB:g} MB/h at most" if judged else f"(under {JUDGED_FROM:g} min not judged)"
    return Outcome(
        "soak, replay and checkpoints on disk",
        bar,
        round(minutes),
        0,
        bool(disk.memory) and (not judged or slope.value <= SLOPE_MB),
        {
            "MB/h": slope.value,
            "MB (max)": largest([much for _, much in disk.memory]),
            "object store MB (max)": largest(record.store),
        },
    )


def run_row(rows: list[Mapping[str, Any]], scores: int, code: int | None, minutes: float, notes: list[str]) -> Outcome:
    """That everything went on all the while, and that it could be stopped."""
    last = rows[-1] if rows else {}
    size = last.get("replay/size", 0.0)
    full = size >= 0.9 * CAPACITY
    if not full:
        notes.append(f"replay held {size:,.0f} of {CAPACITY:,} transitions in the end")
    if code != 130:
        notes.append(f"asked to stop, it ended with {code}")
    return Outcome(
        "soak, the run",
        "goes on to the end with replay full; SIGTERM: a checkpoint, exit code 130",
        round(minutes),
        0,
        full and code == 130 and not notes,
        {
            "games": last.get("episodes", 0.0),
            "a second": round(last.get("episodes", 0.0) / max(last.get("wall_s", 0.0), 1.0), 1),
            "updates": last.get("learner_steps", 0.0),
            "rows": len(rows),
            "evaluations": scores,
        },
        notes,
    )


def soak(tries: int, folder: Path) -> Iterator[Outcome]:
    """For `tries` minutes, a row for each process. `samples.jsonl` there has all that was seen."""
    run, record, notes = folder / "run", Record(), list[str]()
    with Program(folder / "log", *OPTIONS, "--runs-dir", folder) as program:
        if not until(lambda: bool(list_checkpoints(run / "checkpoints")) or program.code is not None, 240):
            notes.append("no checkpoint within 240 s")
        begin = time.monotonic()
        while (minute := (time.monotonic() - begin) / 60.0) < tries and program.code is None:
            record.look(program.pid, run, minute)
            program.wait(SAMPLE_SECONDS)
        if program.code is not None:
            notes.append(f"it ended after {minute:.1f} min with {program.code}: {program.error()[:200]}")
        code = program.stop(60) if program.code is None else program.code
    (folder / "samples.json").write_text(json.dumps({name: vars(one) for name, one in record.processes.items()}))
    metrics, scores = run / "metrics.jsonl", run / "scores.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    yield run_row(rows, len(scores.read_text().splitlines()) if scores.exists() else 0, code, minute, notes)
    warm_up = min(WARM_UP, tries / 3)
    for name, series in record.processes.items():
        if name.rstrip(" 0123456789") not in INFORMATION:
            yield row(name, series.after(warm_up), len(record.pids[name]), minute)
    yield disk_row(record, minute, warm_up)
