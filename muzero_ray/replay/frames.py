"""Frames in memory: large ones compressed in short runs, small ones as they are."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import DTypeLike

from muzero_ray.types import Array

# Below this a frame (a vector, a small board) costs more to unpack than it saves.
_COMPRESS_FROM_BYTES = 1024
# Raw size of a run. Longer runs are smaller but cost more per draw, which reads a few frames anywhere. Breakout 96x96,
# runs of 4 / 8 / 16 / 32 frames: 150 / 97 / 71 / 57 bytes a frame, 22 / 19 / 21 / 33 us for a window of 9 frames.
# XOR against the previous frame made them no smaller: a match in the frame before already costs zstd next to nothing.
_RUN_BYTES = 128 * 1024
# As small as level 1 (66 bytes a frame of Breakout) and 17 % faster to read. -3: 93 bytes, and no faster.
_LEVEL = -1
_NO_OFFSETS = array("I")


@dataclass(frozen=True, slots=True)
class PackedFrames:
    """Frames of one game: all as they are, or in runs, compressed one after another and cut at `offsets`."""

    count: int
    data: bytes
    offsets: array[int]

    @property
    def nbytes(self) -> int:
        return len(self.data) + self.offsets.itemsize * len(self.offsets)


class FrameCodec:
    """Packs and reads frames of one shape and dtype. Exact. Not for use by two threads at once."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._items = int(np.prod(shape))
        self._frame_bytes = self._items * self.dtype.itemsize
        self._compressed = self._frame_bytes >= _COMPRESS_FROM_BYTES
        self._run = min(max(_RUN_BYTES // max(self._frame_bytes, 1), 4), 32)
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._decompressor = zstandard.ZstdDecompressor()

    def pack(self, frames: Array) -> PackedFrames:
        """Own copy of `frames` `[N, *shape]`."""
        if not self._compressed:
            return PackedFrames(len(frames), frames.tobytes(), _NO_OFFSETS)
        runs = [
            self._compressor.compress(frames[start : start + self._run].tobytes())
            for start in range(0, len(frames), self._run)
        ]
        offsets = array("I", [0])
        for run in runs:
            offsets.append(offsets[-1] + len(run))
        return PackedFrames(len(frames), b"".join(runs), offsets)

    def read(self, packed: PackedFrames, start: int, stop: int, out: Array) -> None:
        """Write frames `start` to `stop` (0 <= start < stop <= count) into `out` `[stop - start, *shape]`."""
        if not self._compressed:
            frames = np.frombuffer(packed.data, self.dtype, (stop - start) * self._items, start * self._frame_bytes)
            out[:] = frames.reshape(out.shape)
            return
        runs = memoryview(packed.data)
        for run in range(start // self._run, (stop - 1) // self._run + 1):
            data = self._decompressor.decompress(runs[packed.offsets[run] : packed.offsets[run + 1]])
            frames = np.frombuffer(data, self.dtype).reshape(-1, *self.shape)
            first = run * self._run
            low, high = max(start, first), min(stop, first + len(frames))
            out[low - start : high - start] = frames[low - first : high - first]

    def unpack(self, packed: PackedFrames) -> Array:
        """All frames `[N, *shape]`."""
        frames = np.empty((packed.count, *self.shape), self.dtype)
        self.read(packed, 0, packed.count, frames)
        return frames
