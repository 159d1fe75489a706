"""Every metric a run may log: its name and how values between two rows are combined. The single source of names.

A row is one line of metrics.jsonl and one step in W&B; its axis is `env_steps`.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

Kind = Literal["mean", "last", "sum", "rate", "max"]

AXES: Final = ("env_steps", "learner_steps", "episodes", "wall_s")
"""In every row. Counters since the run began (a resumed run goes on counting); wall_s in seconds, those that count
towards `run.minutes`."""

METRICS: Final[Mapping[str, Kind]] = {
    "eval/return_mean": "last",
    "eval/return_std": "last",
    "eval/length_mean": "last",
    "eval/episodes": "last",
    "eval/simulations": "last",
    "train/return_mean": "mean",
    "train/length_mean": "mean",
    "loss/total": "mean",
    "loss/policy": "mean",
    "loss/value": "mean",
    "loss/reward": "mean",
    "loss/consistency": "mean",
    "learner/steps_per_s": "rate",
    "learner/grad_norm": "mean",
    "learner/lr": "last",
    "learner/skipped": "sum",
    "learner/reward_clamped": "mean",
    "learner/reward_largest": "max",
    "learner/value_clamped": "mean",
    "learner/value_largest": "max",
    "replay/size": "last",
    "replay/bytes": "last",
    "replay/games": "last",
    "replay/samples_per_insert": "last",
    "replay/target_age": "last",
    "replay/priority_max": "last",
    "model/value_error_first": "mean",
    "model/value_error_last": "mean",
    "model/value_explained_first": "mean",
    "model/value_explained_last": "mean",
    "model/value_bias": "mean",
    "model/reward_error_first": "mean",
    "model/reward_error_last": "mean",
    "model/reward_explained_first": "mean",
    "model/reward_explained_last": "mean",
    "model/policy_kl": "mean",
    "model/policy_entropy": "mean",
    "search/sims_per_s": "rate",
    "search/depth": "mean",
    "search/root_entropy": "mean",
    "search/kl_prior": "mean",
    "actors/alive": "last",
    "actors/restarts": "last",
    "actors/environment_faults": "sum",
    "actors/env_steps_per_s": "rate",
    "actors/weights_lag": "mean",
    "system/rss_mb": "last",
    "system/object_store_mb": "last",
}
"""name -> what a row holds of the values since the last row: "mean", "last", "sum", "max", "rate" (sum per second)."""

MACHINE_METRICS: Final = frozenset(
    {"wall_s", "system/rss_mb", "system/object_store_mb"} | {name for name, kind in METRICS.items() if kind == "rate"}
)
"""Columns that depend on the clock or the machine, so they differ between two runs of one seed."""


def check_name(name: str) -> None:
    """Raise ValueError, naming the nearest known metric, unless `name` is in `METRICS`."""
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"metric {name!r} is not a known name.{hint} New names are added to METRICS in metrics.py")


def make_row(
    values: Mapping[str, float], *, env_steps: int, learner_steps: int, episodes: int, wall_s: float
) -> dict[str, float]:
    """One row: the axes, then `values` in the order of `METRICS`. ValueError for a name that is not there."""
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
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: float) -> None:
        """Take one value: an amount for sums and rates, otherwise a measurement. ValueError for an unknown name."""
        check_name(name)
        if METRICS[name] == "last":
            self._sums[name], self._counts[name] = float(value), 1
        elif METRICS[name] == "max":
            self._sums[name], self._counts[name] = max(self._sums.get(name, float(value)), float(value)), 1
        else:
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
            self._counts[name] = self._counts.get(name, 0) + 1

    def update(self, values: Mapping[str, float]) -> None:
        """`add` each item."""
        for name, value in values.items():
            self.add(name, value)

    def flush(self) -> dict[str, float]:
        """Values of one row, and start afresh. Names that got no value are absent; NaN in, NaN out."""
        now = self._clock()
        elapsed = max(now - self._since, 1e-9)
        result = {}
        for name, kind in METRICS.items():
            if name in self._sums:
                divisor = {"mean": self._counts[name], "rate": elapsed, "last": 1, "sum": 1, "max": 1}[kind]
                result[name] = self._sums[name] / divisor
        self._since = now
        self._sums.clear()
        self._counts.clear()
        return result

    def state(self) -> dict[str, list[float]]:
        """JSON-able: sums and counts of what is not yet in a row."""
        return {name: [self._sums[name], self._counts[name]] for name in self._sums}

    def load_state(self, state: Mapping[str, Sequence[float]]) -> None:
        """Go on from `state`; rates count from now."""
        self._sums = {name: float(total) for name, (total, _) in state.items()}
        self._counts = {name: int(count) for name, (_, count) in state.items()}
