"""The evaluation in play: begun and gone on with in short calls, so that nobody waits for one without end."""

from __future__ import annotations

from typing import Any

from muzero_ray.actors.worker_handle import WorkerHandle
from muzero_ray.evaluation.episodes import EpisodesProgress
from muzero_ray.runs.output import RunOutput

SLICE_SECONDS = 5.0
"""Seconds that one call plays."""


class Evaluations:
    """Hands out one evaluation at a time to the evaluator of `worker`, and shows how far it is."""

    def __init__(self, worker: WorkerHandle, output: RunOutput) -> None:
        self._worker = worker
        self._output = output
        self._title = ""
        self.method: str | None = None
        """What began the evaluation in play; None without one."""

    @property
    def in_play(self) -> bool:
        return self.method is not None

    def begin(self, title: str, method: str, *arguments: Any) -> None:
        """Send the call that begins an evaluation. title: what it is called on the screen."""
        self._title, self.method = title, method
        self._worker.send(method, *arguments, SLICE_SECONDS)

    def go_on(self) -> None:
        self._worker.send("go_on", SLICE_SECONDS)

    def take(self, answer: Any) -> tuple[str, Any] | None:
        """An answer of the evaluator. Returns None while it plays, then what began the evaluation, and its result."""
        if isinstance(answer, EpisodesProgress):
            self._output.evaluating(f"{self._title}: {answer}")
            return None
        method = self.method
        assert method is not None, "an evaluation can be dropped only between two calls"
        self.drop()
        return method, answer

    def drop(self) -> None:
        """Forget the evaluation: its process is gone, or nobody wants its result. No call may be in flight."""
        if self.method is not None:
            self.method = None
            self._output.evaluating(None)
