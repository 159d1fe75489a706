"""A GIF of a video."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from benchmarks.gif import write_gif
from muzero_ray.evaluation.video import write_mp4


def test_the_gif_shows_the_first_seconds_of_the_video_at_half_its_size(tmp_path: Path) -> None:
    shades = np.repeat(np.arange(0, 250, 5, dtype=np.uint8), 3)  # 150 frames, 5 s
    frames = np.broadcast_to(shades[:, None, None, None], (150, 240, 320, 3))
    video = write_mp4(tmp_path / "a.mp4", frames, 30.0)
    write_gif(video, tmp_path / "a.gif", 2.0, 10)
    shown = imageio.imread(tmp_path / "a.gif")
    assert shown.shape == (20, 120, 160, 3)
    assert np.abs(shown[:, 60, 80, 0].astype(int) - shades[:60:3].astype(int)).max() <= 8
