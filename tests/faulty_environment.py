"""`tests.faulty_environment:Breaks-v0`: an environment of a user's own that keeps its contract for a while."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

GOOD_MOVES = 90


class Breaks(gymnasium.Env[np.ndarray, int]):
    """Games of ten moves; after `GOOD_MOVES` moves in one process an observation holds NaN."""

    moves = 0

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed, options=options)
        self._move = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        Breaks.moves += 1
        self._move += 1
        observation = np.full(3, np.nan if Breaks.moves > GOOD_MOVES else 0.1 * action, np.float32)
        return observation, 1.0, self._move == 10, False, {}


gymnasium.register("Breaks-v0", entry_point=Breaks)
