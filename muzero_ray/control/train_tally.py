"""Sums over the learner steps of one call to the learner, from which its statistics are made."""

from __future__ import annotations

import time
from typing import Any

from muzero_ray.runs.metrics import METRICS
from muzero_ray.training.results import TrainResult, TrainStats


class TrainTally:
    """Sums over the learner steps of one call to the learner."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._sums: dict[str, float] = {}
        self._largest: dict[str, float] = {}
        self._trained = 0
        self.steps = 0
        self._skipped = 0

    def add(self, result: TrainResult) -> None:
        self.steps += 1
        if result.skipped:
            self._skipped += 1
            return
        self._trained += 1
        for name, value in {**result.losses, **result.clamped}.items():
            if METRICS.get(name) == "max":
                self._largest[name] = max(self._largest.get(name, value), value)
            else:
                self._sums[name] = self._sums.get(name, 0.0) + value

    def stats(self, weights_step: int, validation: dict[str, float]) -> TrainStats:
        losses = {name: total / self._trained for name, total in self._sums.items()} | self._largest
        return TrainStats(self.steps, time.monotonic() - self._begin, losses, self._skipped, weights_step, validation)

    def state(self) -> dict[str, Any]:
        """JSON-able, for a call that was interrupted and goes on after a resume."""
        counts = {"trained": self._trained, "steps": self.steps, "skipped": self._skipped}
        return {"sums": self._sums, "largest": self._largest, **counts}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> TrainTally:
        """Inverse of `state`."""
        tally = cls()
        tally._sums, tally._largest = dict(state["sums"]), dict(state["largest"])
        tally._trained, tally.steps, tally._skipped = (int(state[key]) for key in ("trained", "steps", "skipped"))
        return tally
