"""mp4 files, read back with the same ffmpeg."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from muzero_ray.evaluation.video import encode_mp4, write_mp4


def _read(path: Path) -> tuple[dict[str, object], list[np.ndarray]]:
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return meta, [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]


def test_frames_come_back_in_order_and_colour(tmp_path: Path) -> None:
    frames = np.zeros((6, 210, 160, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[...] = 40 * index
        frame[:, :80, 0] = 255  # left half red
    path = write_mp4(tmp_path / "sub" / "game.mp4", frames, fps=15)
    meta, decoded = _read(path)
    assert meta["codec"] == "h264"
    assert meta["fps"] == 15
    assert meta["size"] == (320, 420)
    assert len(decoded) == len(frames)
    for frame, original in zip(decoded, frames, strict=True):
        # Lossy: mean colours of the two halves, away from their border.
        for columns, source in ((slice(20, 140), 40), (slice(180, 300), 120)):
            assert np.abs(frame[:, columns].mean((0, 1)) - original[0, source]).max() < 12
    assert [p.name for p in path.parent.iterdir()] == ["game.mp4"]


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((3, 3), (240, 240)),  # tiny: enlarged by 80
        ((96, 96), (288, 288)),
        ((301, 400), (400, 302)),  # large enough, odd height
        ((241, 243), (244, 242)),
    ],
)
def test_sizes_are_even_and_small_frames_enlarged(
    tmp_path: Path, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    path = write_mp4(tmp_path / "a.mp4", np.full((2, *shape, 3), 128, np.uint8), fps=10)
    assert _read(path)[0]["size"] == size


def test_bytes_are_an_mp4_file(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(encode_mp4((np.zeros((8, 8, 3), np.uint8) for _ in range(3)), fps=10))
    assert len(_read(tmp_path / "b.mp4")[1]) == 3


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [np.zeros((8, 8, 3), np.float32)],
        [np.zeros((8, 8), np.uint8)],
        [np.zeros((8, 8, 4), np.uint8)],
        [np.zeros((8, 0, 3), np.uint8)],
        [np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)],
    ],
    ids=["none", "float", "grey", "alpha", "empty", "two shapes"],
)
def test_bad_frames_are_refused_and_leave_no_file(tmp_path: Path, frames: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="frame"):
        write_mp4(tmp_path / "a.mp4", frames, fps=10)
    assert list(tmp_path.iterdir()) == []
