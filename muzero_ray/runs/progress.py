"""What a person sees of a run: a live panel on a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, TextIO, cast

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from muzero_ray.standard_streams import Display, printable_lines

PLAIN_INTERVAL = 10.0
"""Seconds between two plain lines."""

# Key -> label. Values may also come from rows of metrics.jsonl; other keys are not shown.
_FIELDS: Final = {
    "score": "score",
    "best_score": "best",
    "random_score": "random",
    "train_return": "train return",
    "env_steps": "env steps",
    "actors/env_steps_per_s": "env steps/s",
    "learner_steps": "learner steps",
    "learner/steps_per_s": "learner steps/s",
    "episodes": "episodes",
    "replay/size": "replay",
    "loss/total": "loss",
    "actors/weights_lag": "weight lag",
    "actors/alive": "actors",
}


class Progress:
    """Shows the newest values of a run; a context manager that leaves the terminal as it found it.

    learner_steps, episodes, minutes: the limits of the run, whichever is reached first ends it (None: no limit).
    console: where to print; on a terminal a live panel, otherwise one line at once and then every `PLAIN_INTERVAL`.
    clock: seconds, monotonic.
    """

    def __init__(
        self,
        learner_steps: int,
        *,
        episodes: int | None = None,
        minutes: float | None = None,
        title: str = "muzero_ray",
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = {"learner_steps": learner_steps, "episodes": episodes}
        self._minutes = minutes
        self._title = title
        self._display = Display(sys.stdout)
        # Said outright: rich takes a pipe for a terminal when FORCE_COLOR is set, as on many CI machines.
        self._console = console or Console(
            file=cast(TextIO, self._display),
            highlight=False,
            force_terminal=self._display.isatty(),
            force_jupyter=False,  # lines of text there, too
        )
        if min(self._console.size) < 1:  # COLUMNS=0: rich would print nothing
            self._console.size = ConsoleDimensions(80, 25)
        self._clock = clock
        self._begin = clock()
        self._values: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._printed_at: float | None = None
        self._unprinted = False
        self._live: Live | None = None
        self._activity: str | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            # A callable, so that the clock in the panel goes on between two updates.
            self._live = Live(get_renderable=self._panel, console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Restore the terminal and finish printing; the last values stay readable. Harmless when repeated."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._unprinted:
            self._print_line()
        self._display.close()

    def update(self, values: Mapping[str, float | None]) -> None:
        """Take newer values; keys not in `values`, or None, keep what they had.

        `seconds_before`, if given, is how long the earlier parts of a resumed run took; they count as elapsed.
        `seconds` are those that count towards the limit of minutes.
        """
        self._values.update({key: float(value) for key, value in values.items() if value is not None})
        for key in self._limits:
            if key in self._values:
                self._first.setdefault(key, self._values[key])
        if self._live is None and not self._values.keys().isdisjoint(_FIELDS):
            self._unprinted = True
            if self._printed_at is None or self._clock() - self._printed_at >= PLAIN_INTERVAL:
                self._print_line()

    def doing(self, activity: str | None) -> None:
        """What goes on besides training and how far it is (None: nothing); shown with the next update, in front."""
        self._activity = activity

    def message(self, text: str) -> None:
        """Print an event at once, above the panel if there is one."""
        self._console.print(Text(printable_lines(text)), soft_wrap=True)

    def fraction(self) -> float:
        """Share of the run that is done, in [0, 1]: of the limit that is nearest."""
        shares = [self._values.get(key, 0.0) / limit for key, limit in self._limits.items() if limit]
        if self._minutes is not None:
            shares.append(self._values.get("seconds", 0.0) / (60 * self._minutes))
        return min(1.0, max(shares))

    def eta(self) -> float | None:
        """Seconds left at the speed since the start (a resumed run's earlier part not counted), None if unknown."""
        elapsed = self._clock() - self._begin
        estimates = []
        for key, limit in self._limits.items():
            done = self._values.get(key, 0.0) - self._first.get(key, 0.0)
            if limit and done > 0 and elapsed > 0:
                estimates.append((limit - self._values[key]) * elapsed / done)
        if self._minutes is not None:
            estimates.append(60 * self._minutes - self._values.get("seconds", 0.0))
        return max(0.0, min(estimates)) if estimates else None

    def _elapsed(self) -> float:
        """Seconds of the run, its earlier parts included."""
        return self._values.get("seconds_before", 0.0) + self._clock() - self._begin

    def _shown(self) -> list[tuple[str, str]]:
        """Labels and formatted values, in order; unknown values are left out."""
        shown = [("", self._activity)] if self._activity is not None else []
        for key, label in _FIELDS.items():
            if key in self._values:
                text = _number(self._values[key])
                limit = self._limits.get(key)
                shown.append((label, f"{text}/{_number(limit)}" if limit else text))
        shown.append(("elapsed", _duration(self._elapsed())))
        eta = self.eta()
        if eta is not None and self.fraction() < 1.0:  # what comes after training takes its own time
            shown.append(("ETA", _duration(eta)))
        return shown

    def _print_line(self) -> None:
        self._printed_at = self._clock()
        self._unprinted = False
        line = "  ".join(f"{label} {value}".lstrip() for label, value in self._shown())
        self._console.print(Text(f"[{100 * self.fraction():3.0f}%] {line}"), soft_wrap=True)

    def _panel(self) -> Panel:
        table = Table.grid(padding=(0, 2))
        shown = self._shown()
        for index in range(0, len(shown), 3):
            cells = [Text.assemble((f"{label} ", "dim"), (value, "bold")) for label, value in shown[index : index + 3]]
            table.add_row(*cells)
        body = Table.grid(expand=True)
        body.add_row(table)
        body.add_row(ProgressBar(total=1.0, completed=self.fraction()))
        return Panel(body, title=Text(self._title), title_align="left")


def _number(value: float) -> str:
    """Whole numbers with thousands separators, others with four significant digits."""
    if math.isfinite(value) and (value == int(value) or abs(value) >= 10_000):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _duration(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
