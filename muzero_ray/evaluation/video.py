"""mp4 from rendered frames, with the ffmpeg that imageio-ffmpeg brings: no system package."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from muzero_ray.private_folder import PrivateFolder

MIN_SIDE = 240
"""Smaller frames are enlarged by a whole factor, pixels kept sharp, until their short side reaches this."""


def write_mp4(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float) -> Path:
    """Encode H.264 that browsers play; `path` appears when it is complete. Returns `path`.

    frames: uint8 `[T, H, W, 3]`, or frames `[H, W, 3]` one by one, all of one shape. fps: frames per second.
    Raises ValueError for other frames or none.
    """
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    _check_frame(first, first.shape)
    factor = max(1, -(-MIN_SIDE // min(first.shape[:2])))
    height, width = (side * factor + side * factor % 2 for side in first.shape[:2])
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = imageio_ffmpeg.write_frames(
        temporary, (width, height), fps=fps, macro_block_size=2, ffmpeg_log_level="error"
    )
    try:
        try:
            writer.send(None)
            for frame in chain([first], iterator):
                _check_frame(frame, first.shape)
                writer.send(_enlarge(frame, factor))
        finally:
            writer.close()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def encode_mp4(frames: Iterable[NDArray[np.uint8]], fps: float) -> bytes:
    """As `write_mp4`, but returns the file's content: what a process without the run's folder sends home."""
    with PrivateFolder() as folder:
        return write_mp4(folder / "video.mp4", frames, fps).read_bytes()


def _check_frame(frame: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape or 0 in shape:
        raise ValueError(f"video frame is {frame.dtype} {frame.shape}, expected uint8 [H, W, 3], all of one shape")


def _enlarge(frame: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Repeat pixels; then the last row and column once more where a side is odd, which yuv420p cannot hold."""
    frame = frame.repeat(factor, axis=0).repeat(factor, axis=1)
    odd_height, odd_width = frame.shape[0] % 2, frame.shape[1] % 2
    return np.ascontiguousarray(np.pad(frame, ((0, odd_height), (0, odd_width), (0, 0)), mode="edge"))
