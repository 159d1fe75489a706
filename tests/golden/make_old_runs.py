"""Makes old_runs/*.tar.xz: runs as an earlier version left them. Run once, with the code of that version:

git worktree add OLD 6364acb && PYTHONPATH=OLD python tests/golden/make_old_runs.py OLD

One preset of each kind, as small as its settings allow.
"""

import shlex
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PRESETS = ("cartpole", "tictactoe", "breakout", "minatar-breakout")

SMALL = shlex.split(
    "--serial --seed 1 --runs-dir . --run.wandb disabled --iterations 2 --run.log-steps 1 --max-moves 12 "
    "--simulations 2 --replay.min-size 16 --replay.capacity 100 --replay.segment-length 6 --learner.batch-size 4 "
    "--learner.unroll-steps 2 --learner.td-steps 3 --actors.count 1 --actors.envs-per-actor 1 "
    "--actors.rollout-steps 10 --evaluation.interval-steps 1 --evaluation.episodes 1 --evaluation.final-episodes 2 "
    "--evaluation.video False --network.channels 4 --network.blocks 1 --network.head-channels 2 "
    "--network.head-layers 8 --network.hidden 8 --network.layers 8 --network.projection 16 "
    "--network.value.bins 11 --network.reward.bins 11"
)
SMALL_SCREEN = shlex.split("--env.atari.image-size 32 --network.downsample 16")


def main() -> None:
    program = Path(sys.argv[1]).resolve() / "launch.py"
    archives = Path(__file__).resolve().parent / "old_runs"
    archives.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for preset in PRESETS:
            settings = [*SMALL, *(SMALL_SCREEN if preset == "breakout" else []), "--run.name", preset]
            subprocess.run([sys.executable, program, "train", preset, *settings], cwd=folder, check=True)
            with tarfile.open(archives / f"{preset}.tar.xz", "w:xz") as archive:
                archive.add(Path(folder) / preset, preset)


if __name__ == "__main__":
    main()
