"""The newest frames of environments that are played side by side, as the network wants them."""

from __future__ import annotations

import numpy as np

from muzero_ray.types import Array


class FrameStacker:
    """Newest `stack` frames of each of `lanes` environments: `[lanes, stack * C, ...]`, zeros before a game's start."""

    def __init__(self, lanes: int, frame_shape: tuple[int, ...], dtype: str, stack: int) -> None:
        self._channels = frame_shape[0]
        self.stacked: Array = np.zeros((lanes, frame_shape[0] * stack, *frame_shape[1:]), dtype)

    def start(self, lane: int, frame: Array) -> None:
        self.stacked[lane] = 0
        self.stacked[lane, -self._channels :] = frame

    def push(self, lane: int, frame: Array) -> None:
        row = self.stacked[lane]
        if len(row) > self._channels:
            row[: -self._channels] = row[self._channels :].copy()
        row[-self._channels :] = frame

    def restore(self, lane: int, frames: Array) -> None:
        """Take back a game whose newest frames are `frames` (oldest first, at most `stack`)."""
        self.stacked[lane] = 0
        newest = frames.reshape(-1, *frames.shape[2:])
        self.stacked[lane, -len(newest) :] = newest
