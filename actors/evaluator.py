"""Evaluation behind Ray: the newest weights, noise-free games, a score."""

from __future__ import annotations

from pathlib import Path

from ray.actor import ActorHandle

from actors.process import call_note, limit_threads
from actors.weights_client import WeightsClient
from muzero_ray.config import Config
from muzero_ray.runtime.build import TaskShape
from muzero_ray.runtime.evaluation import Evaluation, Evaluator
from muzero_ray.training.build import hide_gpus
from muzero_ray.types import Weights, WeightsVersion


class EvaluatorWorker:
    """Shell of `Evaluator`; holds the handle {params}. note: where its calls are noted."""

    def __init__(self, config: Config, shape: TaskShape, params: ActorHandle, note: Path) -> None:
        hide_gpus()
        limit_threads(config.actors.threads)
        self._evaluator = Evaluator(config, shape, note=call_note(note, config.env.id))
        self._weights = WeightsClient(params, "online", self._load)

    def _load(self, weights: Weights) -> None:
        self._evaluator.load(weights.flat)

    def evaluate(self, episodes: int, seed: int, record: bool) -> tuple[WeightsVersion, Evaluation]:
        """Play `episodes` with the newest weights; returns their version beside the result."""
        self._weights.fetch()
        assert self._weights.version is not None
        return self._weights.version, self._evaluator.evaluate(episodes=episodes, seed=seed, record=record)

    def evaluate_random(self, episodes: int, seed: int) -> Evaluation:
        """Uniformly random play under the same protocol."""
        return self._evaluator.evaluate_random(episodes=episodes, seed=seed)
