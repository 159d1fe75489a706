"""The newest frames of environments that are played side by side, as the network wants them."""

from __future__ import annotations

import numpy as np

from muzero_ray.types import Array


class FrameStacker:
    """Newest `stack` frames of each environment: `[num_envs, stack * C, ...]`, zeros before the start of a game."""

    def __init__(self, num_envs: int, frame_shape: tuple[int, ...], dtype: str, stack: int) -> None:
        self._channels = frame_shape[0]
        self.stacked: Array = np.zeros((num_envs, frame_shape[0] * stack, *frame_shape[1:]), dtype)

    def start(self, env: int, frame: Array) -> None:
        self.stacked[env] = 0
        self.stacked[env, -self._channels :] = frame

    def push(self, env: int, frame: Array) -> None:
        row = self.stacked[env]
        if len(row) > self._channels:
            row[: -self._channels] = row[self._channels :].copy()
        row[-self._channels :] = frame

    def restore(self, env: int, frames: Array) -> None:
        """Take back a game whose newest frames are `frames` (oldest first, at most `stack`)."""
        self.stacked[env] = 0
        newest = frames.reshape(-1, *frames.shape[2:])
        self.stacked[env, -len(newest) :] = newest
