"""An hour of training with small games and no faults: no process may go on taking memory, files or threads."""

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
"""Transitions that replay holds. It is full within the first minute."""

OPTIONS = (
    *("train", "cartpole", "--run.name", "run", "--run.wandb", "offline", "--iterations", 10**8, "--minutes", 600),
    # Games stay short, however well they are played, so there are many.
    *("--max-moves", 40, "--simulations", 4, "--network.hidden", 16, "--network.layers", 16),
    *("--network.head-layers", 16, "--replay.capacity", CAPACITY, "--replay.min-size", 500),
    *("--replay.samples-per-insert", 4, "--learner.batch-size", 32, "--learner.td-steps", 5),
    *("--reanalyze.ratio", 0.3, "--reanalyze.simulations", 2, "--actors.num-cpus", 0.3, "--actors.count", 2),
    *("--run.checkpoint-steps", 500, "--run.log-steps", 200, "--evaluation.interval-steps", 250),
    *("--evaluation.episodes", 2, "--evaluation.final-episodes", 2),
)

SAMPLE_SECONDS = 3.0
"""Pause between two samples."""

WINDOW = 1.0
"""Minutes. The least sample of each such window counts."""

WARM_UP = 10.0
"""Minutes that are not judged, or a third of a shorter soak: allocators, caches and compilers still grow."""

JUDGED_FROM = 30.0
"""Minutes. In a shorter soak the slope is not known to within 1 MB/h, so it is not judged."""

MAX_SLOPE = 1.0
"""MB per hour by which memory or disk may grow."""

NOT_JUDGED = ("raylet", "gcs_server", "wandb-core")
"""Names of processes of Ray and W&B: sampled, but not judged."""


@dataclass
class Series:
    """Samples of one process or folder, as (minutes since the start, amount)."""

    memory: list[tuple[float, float]] = field(default_factory=list)
    """MB that no other process shares (USS); of a folder, MB on disk."""
    files: list[tuple[float, float]] = field(default_factory=list)
    """Open files."""
    threads: list[tuple[float, float]] = field(default_factory=list)

    def after(self, minute: float) -> Series:
        """The samples from `minute` on."""
        parts = (self.memory, self.files, self.threads)
        return Series(*([point for point in part if point[0] >= minute] for part in parts))

    def slope(self) -> Slope:
        """Of the memory, in MB per hour."""
        per_minute = theil_sen(floors(self.memory, WINDOW))
        return Slope(*(round(60.0 * value, 2) for value in per_minute))


@dataclass
class Record:
    """All samples. Processes go by the names of `named_processes`."""

    processes: dict[str, Series] = field(default_factory=lambda: defaultdict(Series))
    pids: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """More than one where a process was replaced."""
    disk: Series = field(default_factory=Series)
    """Replay and checkpoints in the run's folder."""
    store: list[float] = field(default_factory=list)
    """MB of shared memory of the raylet, which holds Ray's object store."""

    def sample(self, driver: int, run: Path, minute: float) -> None:
        """Take one sample of everything. driver: its process id. run: the run's folder. minute: since the start."""
        for name, process in named_processes(driver).items():
            with contextlib.suppress(psutil.Error):  # it has ended: `pids` will show its replacement
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
    """The driver and the processes below it, by kind: `driver`, `self_play`, `self_play 1`, `learner`..."""
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
    """The kind of a worker of the run, the name of a process of NOT_JUDGED, or None for any other process."""
    title = process.cmdline()[0]
    if title.startswith("ray::"):
        return next((kind for kind, name in CLASSES.items() if name in title), None)
    return process.name() if process.name() in NOT_JUDGED else None


def folder_mb(folder: Path) -> float:
    """MB of all files below `folder`; those that are gone meanwhile count nothing."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(path, name)).st_size
    return total / 2**20


def growth(points: list[tuple[float, float]]) -> float:
    """By how much the least value in the last third of the time is above the largest in the first.

    Each window counts with its least sample: a file being written, or a call being answered, is there only briefly.
    """
    least = held(points)
    third = max(len(least) // 3, 1)
    return min(least[-third:]) - max(least[:third]) if least else 0.0


def held(points: list[tuple[float, float]]) -> list[float]:
    """The least amount in each window of time."""
    return [amount for _, amount in floors(points, WINDOW)]


def process_row(name: str, series: Series, pids: int, minutes: float) -> Outcome:
    """The outcome for one process.

    series: from after the warm-up. pids: how many processes it was in turn. minutes: length of the whole soak.
    """
    slope = series.slope()
    files, threads = growth(series.files), growth(series.threads)
    lost = int(max(files, 0.0)) + int(max(threads, 0.0)) + pids - 1
    judged = minutes >= JUDGED_FROM
    bar = f"memory grows by {MAX_SLOPE:g} MB/h at most" if judged else f"(slopes not judged under {JUDGED_FROM:g} min)"
    memory = held(series.memory)
    return Outcome(
        f"soak, {name}",
        f"{bar}; 0 files, 0 threads more in the last third than in the first; never replaced",
        round(minutes),
        lost,
        lost == 0 and bool(memory) and (not judged or slope.value <= MAX_SLOPE),
        {
            "MB/h": slope.value,
            "(95 % from": slope.low,
            "to)": slope.high,
            "held MB": largest(memory),
            "files": largest(held(series.files)),
            "threads": largest(held(series.threads)),
        },
    )


def disk_row(record: Record, minutes: float, warm_up: float) -> Outcome:
    """The outcome for replay and checkpoints on disk, which must not grow either."""
    disk = record.disk.after(warm_up)
    slope, judged = disk.slope(), minutes >= JUDGED_FROM
    bar = f"grows by {MAX_SLOPE:g} MB/h at most" if judged else f"(under {JUDGED_FROM:g} min not judged)"
    return Outcome(
        "soak, replay and checkpoints on disk",
        bar,
        round(minutes),
        0,
        bool(disk.memory) and (not judged or slope.value <= MAX_SLOPE),
        {
            "MB/h": slope.value,
            "MB (max)": largest([amount for _, amount in disk.memory]),
            "object store MB (max)": largest(record.store),
        },
    )


def run_row(rows: list[Mapping[str, Any]], scores: int, code: int | None, minutes: float, notes: list[str]) -> Outcome:
    """The outcome for the run as a whole: it trained with a full replay until it was stopped.

    rows: of metrics.jsonl. scores: number of evaluations. code: exit code. notes: what went wrong so far.
    """
    last = rows[-1] if rows else {}
    size = last.get("replay/size", 0.0)
    full = size >= 0.9 * CAPACITY
    if not full:
        notes.append(f"replay held {size:,.0f} of {CAPACITY:,} transitions at the end")
    if code != 130:
        notes.append(f"asked to stop, it ended with exit code {code}")
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
    """Train for `tries` minutes. Yields a row for the run, for each process and for the disk.

    `samples.json` in `folder` has the samples of all processes.
    """
    run, record, notes = folder / "run", Record(), list[str]()
    with Program(folder / "log", *OPTIONS, "--runs-dir", folder) as program:
        if not until(lambda: bool(list_checkpoints(run / "checkpoints")) or program.code is not None, 240):
            notes.append("no checkpoint within 240 s")
        begin = time.monotonic()
        while (minute := (time.monotonic() - begin) / 60.0) < tries and program.code is None:
            record.sample(program.pid, run, minute)
            program.wait(SAMPLE_SECONDS)
        if program.code is not None:
            notes.append(f"it ended after {minute:.1f} min with exit code {program.code}: {program.error()[:200]}")
        code = program.stop(60) if program.code is None else program.code
    (folder / "samples.json").write_text(json.dumps({name: vars(one) for name, one in record.processes.items()}))
    metrics, scores = run / "metrics.jsonl", run / "scores.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    yield run_row(rows, len(scores.read_text().splitlines()) if scores.exists() else 0, code, minute, notes)
    warm_up = min(WARM_UP, tries / 3)
    for name, series in record.processes.items():
        if name.rstrip(" 0123456789") not in NOT_JUDGED:
            yield process_row(name, series.after(warm_up), len(record.pids[name]), minute)
    yield disk_row(record, minute, warm_up)
