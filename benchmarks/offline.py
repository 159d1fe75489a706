"""Is it the games, or what is learned from them? `python -m benchmarks.offline RUN --variants NAME=OPTIONS ...`

Trains fresh networks on the games that a run keeps in replay, without any self-play: with the run's settings, and with
those that each variant changes. All see the same games, so that little but the variant tells them apart. Prints how
well each foretells games that were held out (the `model/` metrics), at what CPU time, and how it then plays: with the
policy alone (0 simulations) and with searches. The horizon of value targets can be shortened, not lengthened: a game in
replay carries no more steps than the run's own targets needed.

    python -m benchmarks.offline runs/NAME --steps 3000 --variants "as it was=" "wider=--network.channels 64"
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.diagnose import Player, play, score_text
from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import parse_args
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import ConfigError
from muzero_ray.inference.build import build_engine
from muzero_ray.replay.build import build_buffer
from muzero_ray.runs.replay_archive import ReplayArchive, shard_folder, split_shards
from muzero_ray.runs.run import open_run
from muzero_ray.training.build import build_learner
from muzero_ray.training.learner import Learner
from muzero_ray.types import GameHistory

HELD_OUT = 2_000
"""Positions of games held out that a network is measured on."""

MEASURES = {
    "value explained": "model/value_explained_first",
    "after K steps": "model/value_explained_last",
    "reward explained": "model/reward_explained_first",
    "policy KL": "model/policy_kl",
}


def config_of(run: Path, options: str, steps: int) -> Config:
    """The run's settings with a variant's options, its schedules over `steps` learner steps."""
    file = run / "config.yaml"
    command = parse_args(["train", "--config", str(file), *options.split(), "--iterations", str(steps)])
    assert isinstance(command, TrainCommand)
    return command.config


def trained(
    config: Config, task: TaskSpec, games: Sequence[GameHistory], every: int
) -> Iterator[tuple[Learner, dict[str, float], float]]:
    """A learner as it trains: after each `every` steps, what is known of it on games held out, and CPU seconds so far.

    ConfigError if no game is held out.
    """
    buffer = build_buffer(config, task)
    for game in games:
        buffer.add(game)
    held_out = buffer.draw_held_out(HELD_OUT)
    if held_out is None:
        raise ConfigError(f"none of the {len(games)} games of the run is held out. It keeps too few, or has no holdout")
    learner = build_learner(config, task)
    beta, steps = config.replay.priority_beta, config.run.learner_steps
    seconds = 0.0
    for step in range(1, steps + 1):
        begin = time.process_time()
        batch = buffer.sample(config.learner.batch_size, beta + (1 - beta) * step / steps)
        result = learner.train_step(batch)
        buffer.update_priorities(batch.keys, result.priorities)
        seconds += time.process_time() - begin
        if step % every == 0 or step == steps:
            yield learner, learner.validate(held_out), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--variants", nargs="+", default=["as it was="], metavar="NAME=OPTIONS")
    parser.add_argument("--steps", type=int, default=3_000, help="learner steps (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1_000, help="steps between two lines (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=30, help="games played at the end (default: %(default)s)")
    parser.add_argument("--simulations", type=int, nargs="*", default=[0, 16], help="of their moves (default: 0 16)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    folder, config, checkpoint = open_run(chosen.run)
    task = probe(config)
    parts = enumerate(split_shards(checkpoint.files, config.replay.shards))
    archives = ((ReplayArchive(shard_folder(folder / "replay", shard)), files) for shard, files in parts)
    games = [game for archive, files in archives for game in archive.games(files)]
    print(f"{len(games)} games, {sum(game.owned for game in games):,} transitions of {checkpoint.path}")
    print(f"| variant | learner steps | CPU s | {' | '.join(MEASURES)} |")
    print("|---|---:|---:" + "|---:" * len(MEASURES) + "|", flush=True)
    scores = []
    for name, options in (variant.split("=", 1) for variant in chosen.variants):
        own = config_of(folder, options, chosen.steps)
        for learner, metrics, seconds in trained(own, task, games, chosen.every):
            figures = " | ".join(f"{metrics.get(key, np.nan):.3f}" for key in MEASURES.values())
            print(f"| {name} | {learner.step:,} | {seconds:.0f} | {figures} |", flush=True)
        player = Player(own, task, build_engine(own, task))
        player.engine.load(learner.weights())
        for count in chosen.simulations:
            choose = player.search(count, None, true=False) if count else player.policy()
            played = play(own, task, player.engine, choose, chosen.episodes)
            scores.append(f"{name}, {count} simulations: {score_text(played.returns)}")
    print("\n".join(scores))


if __name__ == "__main__":
    main()
