"""Refreshes the targets of old games with newer weights. Plain; `learner/reanalyze_worker.py` puts it behind Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from muzero_ray.acting.build import build_planner
from muzero_ray.config.schema import Config
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.replay.stored_game import StaleGame
from muzero_ray.training.reanalyze import reanalyze_positions
from muzero_ray.types import FloatArray, Weights, WeightsVersion

BATCH_SIZE = 64
"""Positions searched at once."""


class FreshTargets(NamedTuple):
    """Arguments of `ReplayBuffer.replace_targets`."""

    game: int
    policies: FloatArray
    root_values: FloatArray
    version: WeightsVersion


class Reanalyzer:
    """Searches stale games again with the target weights."""

    def __init__(self, config: Config, task: TaskSpec) -> None:
        search = config.search.overridden(simulations=config.reanalyze.simulations)
        self._planner = build_planner(config, task, search)
        self._rng = np.random.default_rng(0)  # noise-free searches draw nothing from it
        self._version = WeightsVersion(-1, -1)

    def set_weights(self, weights: Weights) -> None:
        self._planner.engine.load(weights.flat)
        self._version = weights.version

    def refresh(self, games: Sequence[StaleGame]) -> Iterator[FreshTargets]:
        """New targets, game by game, for those whose targets are not from these weights already."""
        for game in games:
            if game.version != self._version:
                policies, values = reanalyze_positions(
                    game.observations, game.legal, self._planner, self._rng, batch_size=BATCH_SIZE
                )
                yield FreshTargets(game.game, policies, values, self._version)
