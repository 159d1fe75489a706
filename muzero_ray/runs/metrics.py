"""Every metric a run may log, and how rows are made. Each module declares in its own `METRICS` what it measures.

A row is one line of metrics.jsonl and one step in W&B; its axis is `env_steps`.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from muzero_ray.acting import rollout_stats
from muzero_ray.evaluation import result
from muzero_ray.replay import metrics as replay
from muzero_ray.training import clamping, losses, results, validation_metrics
from muzero_ray.types import MetricKind

AXES: Final = ("env_steps", "learner_steps", "episodes", "wall_s")
"""In every row. Counters go on in a resumed run. wall_s: seconds, counted as for `run.minutes`."""

GROUPS: Final = ("eval", "train", "loss", "learner", "replay", "model", "search", "actors", "system")
"""What names begin with, before the slash, in the order of a row."""

PROCESS_METRICS: Final[Mapping[str, MetricKind]] = {
    "actors/alive": "last",
    "actors/restarts": "last",
    "system/rss_mb": "last",
    "system/object_store_mb": "last",
}
"""Of the run's processes, measured by the runner. rss_mb: memory of the main process; mb: 2^20 bytes."""


def _in_order(*declared: Mapping[str, MetricKind]) -> dict[str, MetricKind]:
    kinds = {name: kind for metrics in declared for name, kind in metrics.items()}
    return {name: kinds[name] for name in sorted(kinds, key=lambda name: GROUPS.index(name.partition("/")[0]))}


METRICS: Final[Mapping[str, MetricKind]] = _in_order(
    PROCESS_METRICS,
    result.METRICS,
    rollout_stats.METRICS,
    losses.METRICS,
    results.METRICS,
    clamping.METRICS,
    replay.METRICS,
    validation_metrics.METRICS,
)
"""Every metric but the axes, in the order of a row, and how its values between two rows are combined."""

MACHINE_METRICS: Final = frozenset(
    {"wall_s", "system/rss_mb", "system/object_store_mb"} | {name for name, kind in METRICS.items() if kind == "rate"}
)
"""Columns that depend on the clock or the machine: they differ between two runs with the same seed."""


def check_name(name: str) -> None:
    """Raise ValueError, naming the nearest known metric, unless `name` is in `METRICS`."""
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"metric {name!r} is not a known name.{hint} Declare a new name in METRICS of the module that measures it"
        )


def make_row(
    values: Mapping[str, float], *, env_steps: int, learner_steps: int, episodes: int, wall_s: float
) -> dict[str, float]:
    """One row: the axes, then `values` in the order of `METRICS`. ValueError for an unknown name."""
    for name in values:
        check_name(name)
    row: dict[str, float] = {
        "env_steps": int(env_steps),
        "learner_steps": int(learner_steps),
        "episodes": int(episodes),
        "wall_s": float(wall_s),
    }
    row.update({name: values[name] for name in METRICS if name in values})
    return row


def check_row(row: Mapping[str, float]) -> None:
    """Raise ValueError if an axis is missing or a name unknown."""
    missing = [axis for axis in AXES if axis not in row]
    if missing:
        raise ValueError(f"metrics row lacks {', '.join(missing)}: every row holds {', '.join(AXES)}")
    for name in row:
        if name not in AXES:
            check_name(name)


class MetricsAccumulator:
    """Collects values between two rows and combines each as `METRICS` says.

    clock: seconds, monotonic; rates are per second since construction or the last `flush`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._totals: dict[str, float] = {}
        """By name: the sum, or for kinds `last` and `max` that value."""
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: float) -> None:
        """Take one value: an amount for sums and rates, otherwise a measurement. ValueError for an unknown name."""
        check_name(name)
        if METRICS[name] == "last":
            self._totals[name], self._counts[name] = float(value), 1
        elif METRICS[name] == "max":
            self._totals[name], self._counts[name] = max(self._totals.get(name, float(value)), float(value)), 1
        else:
            self._totals[name] = self._totals.get(name, 0.0) + float(value)
            self._counts[name] = self._counts.get(name, 0) + 1

    def update(self, values: Mapping[str, float]) -> None:
        """`add` each item."""
        for name, value in values.items():
            self.add(name, value)

    def flush(self) -> dict[str, float]:
        """Return the values of one row and start afresh. Names without a value are absent; one NaN makes a mean NaN."""
        now = self._clock()
        elapsed = max(now - self._since, 1e-9)
        values = {}
        for name, kind in METRICS.items():
            if name in self._totals:
                divisor = {"mean": self._counts[name], "rate": elapsed, "last": 1, "sum": 1, "max": 1}[kind]
                values[name] = self._totals[name] / divisor
        self._since = now
        self._totals.clear()
        self._counts.clear()
        return values

    def state(self) -> dict[str, list[float]]:
        """JSON-able: name -> [total, count] of what is not yet in a row."""
        return {name: [self._totals[name], self._counts[name]] for name in self._totals}

    def load_state(self, state: Mapping[str, Sequence[float]]) -> None:
        """Go on from `state`; rates count from now."""
        self._totals = {name: float(total) for name, (total, _) in state.items()}
        self._counts = {name: int(count) for name, (_, count) in state.items()}
