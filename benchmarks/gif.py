"""A video of a run as a GIF for a page: `python -m benchmarks.gif VIDEO.mp4 docs/images/breakout.gif`

With the ffmpeg that imageio-ffmpeg brings. The frames are halved, so that Atari's are the emulator's own pixels again.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import imageio_ffmpeg

FILTER = (
    "fps={fps},scale=iw/2:ih/2:flags=neighbor,split[a][b];[a]palettegen=max_colors=64[p];[b][p]paletteuse=dither=none"
)


def write_gif(video: Path, gif: Path, seconds: float, fps: int) -> None:
    """The first `seconds` of `video`. Raises subprocess.CalledProcessError, with what ffmpeg said on stderr."""
    options = ["-y", "-v", "error", "-t", str(seconds), "-i", str(video), "-vf", FILTER.format(fps=fps), str(gif)]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *options], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("gif", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0, help="from the start (default: %(default)s)")
    parser.add_argument("--fps", type=int, default=15, help="frames per second (default: %(default)s)")
    chosen = parser.parse_args()
    write_gif(chosen.video, chosen.gif, chosen.seconds, chosen.fps)
    print(f"{chosen.gif}: {chosen.gif.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
