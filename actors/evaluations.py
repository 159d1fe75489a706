"""The evaluation in play: begun and gone on with in short calls, so that nobody waits for one without end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec

from muzero_ray.actors.evaluator import Answer, EvaluatorWorker
from muzero_ray.actors.worker_handle import WorkerHandle
from muzero_ray.evaluation.episodes import EpisodesProgress
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.runs.output import RunOutput
from muzero_ray.types import WeightsVersion

SLICE_SECONDS = 5.0
"""Seconds that one call plays."""

Arguments = ParamSpec("Arguments")


class Evaluations:
    """Hands out one evaluation at a time to the evaluator of `worker`, and shows how far it is."""

    def __init__(self, worker: WorkerHandle[EvaluatorWorker], output: RunOutput) -> None:
        self._worker = worker
        self._output = output
        self._title: str | None = None
        """Of the evaluation in play; None without one."""

    @property
    def in_play(self) -> bool:
        return self._title is not None

    def begin(
        self,
        title: str,
        method: Callable[Concatenate[EvaluatorWorker, float, Arguments], Answer],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> None:
        """Send the call that begins an evaluation. title: what it is called on the screen."""
        self._title = title
        self._worker.send(method, SLICE_SECONDS, *arguments, **named)

    def go_on(self) -> None:
        self._worker.send(EvaluatorWorker.go_on, SLICE_SECONDS)

    def take(self, answer: Answer) -> tuple[str, WeightsVersion | None, Evaluation] | None:
        """An answer of the evaluator. Returns None while it plays, then the evaluation's title and its result."""
        if isinstance(answer, EpisodesProgress):
            self._output.evaluating(f"{self._title}: {answer}")
            return None
        title = self._title
        assert title is not None, "an evaluation can be dropped only between two calls"
        self.drop()
        return title, *answer

    def drop(self) -> None:
        """Forget the evaluation: its process is gone, or nobody wants its result. No call may be in flight."""
        if self._title is not None:
            self._title = None
            self._output.evaluating(None)
