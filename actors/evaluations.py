"""Evaluations, one at a time: begun and gone on with in short calls, so that nobody waits for one without end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec

from muzero_ray.actors.evaluator import Answer, EvaluatorWorker
from muzero_ray.actors.worker_handle import WorkerHandle
from muzero_ray.config.schema import Config
from muzero_ray.control.limits import finish
from muzero_ray.control.run_state import RunState
from muzero_ray.evaluation.episodes import EpisodesProgress
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.runs.output import RunOutput
from muzero_ray.types import WeightsVersion

SLICE_SECONDS = 5.0
"""Seconds that one call plays."""

Arguments = ParamSpec("Arguments")

FINAL, RANDOM = "final evaluation", "random play"


class Evaluations:
    """Hands out one evaluation at a time to the evaluator of `worker`, shows how far it is, and writes its score."""

    def __init__(
        self, worker: WorkerHandle[EvaluatorWorker], config: Config, run_state: RunState, output: RunOutput
    ) -> None:
        self._worker = worker
        self._config = config
        self._run_state = run_state
        self._output = output
        self._title: str | None = None
        """Of the evaluation in play; None without one."""
        self._evaluated_at = 0
        """Env steps when it was handed out."""
        self._final: dict[str, tuple[WeightsVersion | None, Evaluation]] = {}
        self.are_final = False
        """Training is over: the two that are left are those of the last weights and of random play."""

    @property
    def in_play(self) -> bool:
        return self._title is not None

    def begin(self) -> None:
        """One with the newest weights, as they are due during training."""
        self._evaluated_at = self._run_state.env_steps
        episodes, seed = self._config.evaluation.episodes, self._config.run.seed
        self._begin("evaluation", EvaluatorWorker.evaluate, episodes, seed, False)

    def begin_final(self) -> None:
        """One of the final ones that has no result yet: the newest weights, then random play."""
        evaluation, seed = self._config.evaluation, self._config.run.seed
        if FINAL not in self._final:
            self._begin(FINAL, EvaluatorWorker.evaluate, evaluation.final_episodes, seed, evaluation.video)
        else:
            self._begin(RANDOM, EvaluatorWorker.evaluate_random, evaluation.final_episodes, seed)

    def _begin(
        self,
        title: str,
        method: Callable[Concatenate[EvaluatorWorker, float, Arguments], Answer],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> None:
        """title: what it is called on the screen."""
        self._title = title
        self._worker.send(method, SLICE_SECONDS, *arguments, **named)

    @property
    def are_over(self) -> bool:
        return self._final.keys() >= {FINAL, RANDOM}

    def finish(self) -> None:
        """Write the final scores."""
        (version, trained), (_, random_play) = self._final[FINAL], self._final[RANDOM]
        assert version is not None, "it began with fetching weights"
        finish(self._output, self._config, self._run_state, trained, random_play, version.step)

    def go_on(self) -> None:
        self._worker.send(EvaluatorWorker.go_on, SLICE_SECONDS)

    def take(self, answer: Answer) -> None:
        """An answer of the evaluator: how far it is, or the result."""
        if isinstance(answer, EpisodesProgress):
            self._output.evaluating(f"{self._title}: {answer}")
            return
        title = self._title
        assert title is not None, "an evaluation can be dropped only between two calls"
        self.drop()
        self._worker.forgive()
        version, evaluation = answer
        if self.are_final:
            self._final[title] = answer
            return
        assert version is not None, "it began with fetching weights"
        self._run_state.done("evaluate", version.step)
        self._output.scored(self._run_state, evaluation, version.step, self._evaluated_at)

    def drop(self) -> None:
        """Forget the evaluation: its process is gone, or nobody wants its result. No call may be in flight."""
        if self._title is not None:
            self._title = None
            self._output.evaluating(None)
