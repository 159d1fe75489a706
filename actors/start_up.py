"""Workers that do not start: which, since when, and what Ray's logs say of it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from muzero_ray.actors.ray_internals import is_private, logs_folder
from muzero_ray.actors.worker_handle import WorkerHandle

START_SECONDS = 600.0
"""With a private Ray, the time within which replay, the learner and one self-play actor must have started."""

READ_BYTES = 64 << 10
"""How much of the end of a log is read."""

_BY_RAY = re.compile(r"\[\d{4}-\d\d-\d\d [\d:,]+ \w \d+ \d+\] \(\w+\) [\w.]+:\d+: (.*)")
"""A line that Ray itself wrote."""

SAID_LENGTH = 300


def placement(handles: Sequence[WorkerHandle[Any]], waiting: Sequence[WorkerHandle[Any]]) -> str:
    """What to tell a person of workers that have been `waiting` for a minute to start."""
    actors = [worker for worker in handles if worker.kind == "self_play"]
    placed = sum(worker.ready is None for worker in actors)
    text = f"{placed} of {len(actors)} self-play actors placed"
    others = ", ".join(worker.name for worker in waiting if worker.kind != "self_play")
    if others:
        text += f"; not started either: {others}"
    if (others or not placed) and (said := last_words()) is not None:
        text += f". Ray's log says: {said}"
    return text


def stuck(handles: Sequence[WorkerHandle[Any]], now: float) -> str | None:
    """Why a run with a private Ray, which never grows, will not begin any more; None if it may."""
    late = [worker for worker in handles if worker.ready is not None and now - worker.started > START_SECONDS]
    needed = [worker.name for worker in late if worker.kind in ("replay", "params", "learner")]
    if sum(worker.kind == "self_play" for worker in late) == sum(worker.kind == "self_play" for worker in handles):
        needed.append("self-play")
    if not needed or not is_private():
        return None
    said = last_words()
    return (
        f"{', '.join(needed)} did not start within {START_SECONDS:.0f} s. "
        + (f"Ray's log says: {said}. " if said else "Ray's log says nothing of it. ")
        + "Look for a limit on memory, processes or open files, or use --serial"
    )


def last_words() -> str | None:
    """The last line that a process of a private Ray wrote before it died at its start, or else Ray's own last error."""
    logs = logs_folder()
    if logs is None or not is_private():
        return None
    lines = [line for line in _end(logs / "raylet.err").splitlines() if line.strip()]
    theirs = [line for line in lines if not _BY_RAY.match(line)]
    said = theirs[-1] if theirs else _BY_RAY.sub(r"\1", lines[-1]) if lines else None
    return said.strip()[:SAID_LENGTH] if said else None


def _end(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - READ_BYTES, 0))
        return file.read().decode(errors="replace")
    return ""
