"""How soon does a network see that a move wins? `python -m benchmarks.board_rewards connect4 "--network.norm group"`

The learner of a preset, once for each string of options, trained on nothing but the rewards of random games: no search,
no policy, and values that are all 0. What comes out is a matter of observations, network and optimizer alone. Prints
how much of the reward is explained on games held out, one step and K steps from the observation.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch

from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import parse_args
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.registry import make_environment
from muzero_ray.training.build import make_learner
from muzero_ray.types import Array, Batch, FloatArray, IntArray, ItemKeys

HELD_OUT = 0.1
"""Share of the games."""

PRINT_EVERY = 400


@dataclass(frozen=True)
class Moves:
    """All moves of all games, one after the other: what was seen before each, what it was, what it brought, and the
    index of the last move of its game."""

    frames: Array
    actions: IntArray
    rewards: FloatArray
    last: IntArray

    def batch(self, starts: IntArray, steps: int, num_actions: int, rng: np.random.Generator) -> Batch:
        """From each start `[B]`, `steps` moves; past the end of a game, random ones without reward."""
        rows, ahead = len(starts), np.arange(steps)
        index = np.minimum(starts[:, None] + ahead, self.last[starts][:, None])
        inside = starts[:, None] + ahead <= self.last[starts][:, None]
        rewards = np.zeros((rows, steps + 1), np.float32)
        rewards[:, 1:] = np.where(inside, self.rewards[index], 0.0)
        nothing = np.zeros((rows, steps + 1), np.float32)
        return Batch(
            frames=self.frames[starts][:, None],
            stack=1,
            actions=np.where(inside, self.actions[index], rng.integers(0, num_actions, index.shape)).astype(np.int32),
            target_value=nothing,
            target_reward=rewards,
            target_policy=np.full((rows, steps + 1, num_actions), 1 / num_actions, np.float32),
            policy_mask=nothing,
            value_mask=nothing + 1,
            observation_mask=nothing[:, 1:],
            weights=np.ones(rows, np.float32),
            keys=ItemKeys(np.zeros(rows, np.int64), np.zeros(rows, np.int32)),
        )


def random_games(config: Config, count: int, seed: int) -> Moves:
    """`count` games of the environment, legal moves drawn evenly."""
    environment = make_environment(config.env)
    rng = np.random.default_rng(seed)
    frames, actions, rewards, last = [], [], [], list[int]()
    for game in range(count):
        frame, over = environment.reset(game), False
        begin = len(frames)
        while not over:
            action = int(rng.choice(np.flatnonzero(environment.legal_actions())))
            step = environment.step(action)
            frames.append(frame)
            actions.append(action)
            rewards.append(step.reward)
            frame, over = step.observation, step.terminated or step.truncated
        last += [len(frames) - 1] * (len(frames) - begin)
    environment.close()
    return Moves(np.stack(frames), np.array(actions), np.array(rewards, np.float32), np.array(last))


def train(words: list[str], games: int, updates: int) -> None:
    """One line for every `PRINT_EVERY` updates."""
    command = parse_args(["train", *words])
    assert isinstance(command, TrainCommand)
    config = command.config
    settings = config.learner
    moves = random_games(config, games, config.run.seed)
    num_actions = probe(config).spec.num_actions
    learner = make_learner(config, observation_shape=moves.frames.shape[1:], num_actions=num_actions)
    rng = np.random.default_rng([config.run.seed, 1])
    cut = int(moves.last[int(len(moves.actions) * (1 - HELD_OUT))]) + 1  # between two games
    test = moves.batch(np.arange(cut, len(moves.actions)), settings.unroll_steps, num_actions, rng)
    begin = time.perf_counter()
    for update in range(1, updates + 1):
        starts = rng.integers(0, cut, settings.batch_size)
        learner.train_step(moves.batch(starts, settings.unroll_steps, num_actions, rng))
        if update % PRINT_EVERY == 0:
            seconds = time.perf_counter() - begin
            found = learner.validate(test)
            explained = (found[f"model/reward_explained_{step}"] for step in ("first", "last"))
            print(f"| {' '.join(words)} | {update:,} | {' | '.join(f'{x:.2f}' for x in explained)} | {seconds:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("options", nargs="*", default=[""], help="each a string of options of `launch.py train`")
    parser.add_argument("--games", type=int, default=8_000)
    parser.add_argument("--updates", type=int, default=1_200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| preset and options | updates | explained, 1 step | explained, K steps | seconds |")
    print("|---|---:|---:|---:|---:|")
    for options in arguments.options:
        train([arguments.preset, *options.split()], arguments.games, arguments.updates)


if __name__ == "__main__":
    main()
