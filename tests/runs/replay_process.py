"""A replay process to be killed: takes over a folder, adds games for ever, prints the number of each once it has it.

python -m tests.runs.replay_process FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from muzero_ray.runs.replay_archive import ReplayArchive
from tests.replay.games import make_buffer, make_game


def main(folder: Path) -> None:
    buffer, archive = make_buffer(capacity=100_000), ReplayArchive(folder)
    archive.recover(buffer)
    rng = np.random.default_rng(buffer.games)
    for seq in range(buffer.games, 100_000):
        if archive.add(buffer, make_game(rng, 5, seq=seq, frame=(1, 4, 4), dtype=np.uint8)):
            print(seq, flush=True)
        if rng.random() < 0.02:
            archive.save(buffer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
