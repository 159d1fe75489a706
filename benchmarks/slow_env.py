"""`benchmarks.slow_env:Slow-v0`: an environment that takes a fixed time and no CPU."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np

from muzero_ray.types import Array

SIDE = 96
"""Frames have the size of the Atari presets'."""


class Slow(gymnasium.Env[Array, np.int64]):
    """A block that moves over a dark screen. latency: seconds that a step sleeps. length: moves of a game."""

    def __init__(self, latency: float = 0.1, length: int = 1_000) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 255, (SIDE, SIDE), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(4)
        self._latency, self._length = latency, length
        self._moves = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._moves = 0
        return self._frame(), {}

    def step(self, action: np.int64 | int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        time.sleep(self._latency)
        self._moves += 1
        return self._frame(), float(action == 0), False, self._moves == self._length, {}

    def _frame(self) -> Array:
        frame = np.zeros((SIDE, SIDE), np.uint8)
        at = self._moves % (SIDE - 8)
        frame[at : at + 8, at : at + 8] = 255
        return frame


gymnasium.register("Slow-v0", entry_point="benchmarks.slow_env:Slow")
