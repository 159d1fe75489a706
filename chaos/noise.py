"""The environment `chaos.noise:Noise-v0`: shows random images, which do not compress, so that segments are large."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

SIZE = 64
"""Height and width of an image, in pixels."""

MOVES = 100
"""Moves of a game. As one segment it has 1.2 MB."""


class Noise(gymnasium.Env[np.ndarray, int]):
    """The reward is the action, 0 or 1. The images say nothing."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(2)

    def _observe(self) -> np.ndarray:
        return np.frombuffer(self.np_random.bytes(SIZE * SIZE * 3), np.uint8).reshape(SIZE, SIZE, 3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed, options=options)
        self._moves = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._moves += 1
        return self._observe(), float(action), self._moves == MOVES, False, {}


gymnasium.register("Noise-v0", entry_point=Noise)
