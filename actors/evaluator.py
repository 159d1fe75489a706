"""Evaluation behind Ray: the newest weights, noise-free games, a score; in calls of a few seconds."""

from __future__ import annotations

import time
from pathlib import Path

from ray.actor import ActorHandle

from muzero_ray.actors.parameter_server import ParameterServer
from muzero_ray.actors.process import crash_note, hide_gpus, limit_threads
from muzero_ray.actors.weights_client import WeightsClient
from muzero_ray.config.schema import Config
from muzero_ray.envs.chance import seed_generators
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.evaluation.episodes import Episodes, EpisodesProgress
from muzero_ray.evaluation.evaluator import Evaluator
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.types import Weights, WeightsVersion

Answer = EpisodesProgress | tuple[WeightsVersion | None, Evaluation]
"""How far the evaluation is; or, when it is over, its result and the newest weights that this process had."""


class EvaluatorWorker:
    """Shell of `Evaluator`; holds the handle {params}. note: where its calls are noted.

    `evaluate` and `evaluate_random` begin an evaluation, in place of one in play, and `go_on` goes on with it. Each
    plays for about `seconds`, so that the driver sees how far it is and may drop it in between.
    """

    def __init__(self, config: Config, task: TaskSpec, params: ActorHandle[ParameterServer], note: Path) -> None:
        hide_gpus()
        limit_threads(config.actors.threads)
        seed_generators(config.run.seed, "evaluator")
        self._evaluator = Evaluator(config, task, note=crash_note(note, config.env.id))
        self._weights = WeightsClient(params, "online", self._load)
        self._games: Episodes | None = None

    def _load(self, weights: Weights) -> None:
        self._evaluator.load(weights.flat)

    def evaluate(self, seconds: float, episodes: int, seed: int, record: bool) -> Answer:
        """Begin `episodes` with the newest weights."""
        self._weights.fetch()
        self._drop()
        self._games = self._evaluator.begin(episodes=episodes, seed=seed, record=record)
        return self.go_on(seconds)

    def evaluate_random(self, seconds: float, episodes: int, seed: int) -> Answer:
        """Begin `episodes` of uniformly random play under the same protocol."""
        self._drop()
        self._games = self._evaluator.begin_random(episodes=episodes, seed=seed)
        return self.go_on(seconds)

    def go_on(self, seconds: float) -> Answer:
        """Go on with what was begun: one round of moves at least."""
        games = self._games
        assert games is not None
        deadline = time.monotonic() + seconds
        moves = games.progress.moves
        if not games.play(lambda: time.monotonic() < deadline or games.progress.moves == moves):
            return games.progress
        result = self._evaluator.result(games)
        self._drop()
        return self._weights.version, result

    def _drop(self) -> None:
        if self._games is not None:
            self._games.close()
            self._games = None
