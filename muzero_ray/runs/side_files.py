"""The JSON lines that a run keeps beside its checkpoints, `metrics.jsonl` and `scores.jsonl`: read, but never trusted.

They are read line by line in bounded memory, from regular files only. A line that cannot be used is named with its
number. No damage to them stops a run from going on: the good lines are kept, and the damaged file stays beside them.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from muzero_ray.errors import CheckpointError
from muzero_ray.runs.files import open_regular, sync_folder
from muzero_ray.standard_streams import printable

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 4 << 20
"""A row of metrics has 2 kB, a score 20 bytes for each of its games."""

MAX_BAD_LINES = 1_000
"""After so many, or after a line that is too long, the rest of a file is not read."""

_LARGEST = 3.5e38
"""What a float32 can hold: sums and squares of such numbers stay finite."""
_NAMED = 5

Check = Callable[[dict[str, Any]], str | None]
"""Says what is wrong with an entry, if anything is."""


class Line(NamedTuple):
    """A good line. number: from 1 on. text: its bytes, with the line break if there is one."""

    number: int
    text: bytes
    entry: dict[str, Any]


class SideFile:
    """Iterates over the good lines of a file and collects what is wrong with the others in `problems`.

    A file that is missing has no lines and no problems. Raises CheckpointError if it is not a readable regular file.
    """

    def __init__(self, path: Path, check: Check) -> None:
        self.path = path
        self.problems: list[str] = []
        self._check = check

    def __iter__(self) -> Iterator[Line]:
        if not os.path.lexists(self.path):
            return
        with open_regular(self.path) as file:
            for number in itertools.count(1):
                text = file.readline(MAX_LINE_BYTES + 1)
                if not text:
                    return
                entry, problem = self._parse(text)
                if problem is None:
                    yield Line(number, text, entry)
                    continue
                self.problems.append(f"line {number} {problem}")
                if len(text) > MAX_LINE_BYTES or len(self.problems) >= MAX_BAD_LINES:
                    self.problems.append(f"what follows line {number} was not read")
                    return

    def _parse(self, text: bytes) -> tuple[dict[str, Any], str | None]:
        if len(text) > MAX_LINE_BYTES:
            return {}, f"is longer than {MAX_LINE_BYTES} bytes"
        try:
            entry = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError):
            return {}, "is not valid JSON" if text.endswith(b"\n") else "is cut off"
        if not isinstance(entry, dict) or _is_deep(entry):
            return {}, "is not a JSON object of a few levels"
        return entry, self._check(entry)

    def entries(self) -> list[dict[str, Any]]:
        """Those of the good lines. A warning names the others."""
        entries = [line.entry for line in self]
        if self.problems:
            logger.warning("%s is damaged: %s. These lines are left out", self.path, self.trouble())
        return entries

    def trouble(self) -> str:
        """The problems in words, those of the first lines by name."""
        more = len(self.problems) - _NAMED
        return ", ".join(self.problems[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def row_problem(row: dict[str, Any]) -> str | None:
    """What is wrong with a row of metrics."""
    for name in ("env_steps", "learner_steps"):
        if not is_number(row.get(name)):
            return f"has no number as {name}"
    odd = [name for name, value in row.items() if value is not None and not is_number(value)]
    return f"has a {printable(odd[0])} that is not a number" if odd else None


def score_problem(score: dict[str, Any]) -> str | None:
    """What is wrong with a score, as far as a run that goes on needs it."""
    if not isinstance(score.get("kind"), str):
        return "has no kind"
    return None if is_count(score.get("learner_step")) else "has no whole number as learner_step"


def keep_rows(path: Path, rows: int, step: int) -> dict[str, float]:
    """Keep the first `rows` rows of a metrics file, those of the checkpoint of learner step `step`; returns the last.

    A resumed run writes the later ones again. Rows that are damaged or missing leave a gap in the curve, and a warning
    says so. Raises OSError if the disk refuses.
    """
    file = SideFile(path, row_problem)

    def select(lines: Iterator[Line]) -> Iterator[Line]:
        # A bad line among the first `rows` may have been a row or may have come on top of them: the step decides.
        early = itertools.takewhile(lambda line: line.number <= rows or line.entry["learner_steps"] <= step, lines)
        return itertools.islice(early, rows)

    kept, last = _keep(file, select)
    if kept < rows and not file.problems:
        logger.warning(
            "%s holds %d of the %d rows that the checkpoint counts: the curve has a gap, the run goes on",
            *(path, kept, rows),
        )
    return {name: value for name, value in last.items() if value is not None}


def keep_scores(path: Path, step: int) -> None:
    """Keep the scores of weights up to learner step `step`. Raises OSError if the disk refuses."""
    file = SideFile(path, score_problem)
    _keep(file, lambda lines: (line for line in lines if line.entry["learner_step"] <= step))


def _keep(file: SideFile, select: Callable[[Iterator[Line]], Iterator[Line]]) -> tuple[int, dict[str, Any]]:
    """Make the file one of the lines that are good and selected. Returns their number and the last entry.

    If there was anything else than good lines, the file as it was is kept under another name, and a warning says so.
    """
    path, kept, last = file.path, 0, dict[str, Any]()
    if not os.path.lexists(path):
        return kept, last
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as out:
            for line in select(iter(file)):
                out.write(line.text.rstrip(b"\n") + b"\n")
                kept, last = kept + 1, line.entry
            out.flush()
            os.fsync(out.fileno())
    except CheckpointError as error:
        file.problems.append(f"{error}")
    if file.problems:
        aside = set_aside(path)
        logger.warning(
            "%s is damaged: %s. The run goes on with its %d good lines; the file as it was is kept as %s",
            *(path, file.trouble(), kept, aside.name),
        )
    temporary.replace(path)
    sync_folder(path.parent)
    return kept, last


def set_aside(path: Path) -> Path:
    """Rename what is at `path`, whatever it is, to a free name beside it; returns that."""
    names = itertools.chain([f"{path.name}.damaged"], (f"{path.name}.damaged-{count}" for count in itertools.count(2)))
    aside = next(other for name in names if not os.path.lexists(other := path.with_name(name)))
    path.rename(aside)
    return aside


def is_number(value: object) -> bool:
    """Whether this is a number of ordinary size; true and false are not."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # type: ignore[operator]


def is_count(value: object) -> bool:
    """Whether this is a whole number from 0 on that fits into 64 bits."""
    return type(value) is int and 0 <= value < 1 << 63


def _is_deep(value: object, levels: int = 16) -> bool:
    """Whether there are more than so many levels of lists and objects: nobody may recurse into those."""
    if not isinstance(value, dict | list):
        return False
    return levels == 0 or any(
        _is_deep(part, levels - 1) for part in (value.values() if isinstance(value, dict) else value)
    )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is beyond the range of floating point")
    return value
