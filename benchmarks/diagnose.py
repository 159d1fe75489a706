"""Does looking ahead help, and if not, is it the model or the values? `python -m benchmarks.diagnose RUN [RUN ...]`

Plays games with the weights of a run (or of one of its checkpoints), each time the same games: with the network's
policy alone (0 simulations), with the searches of several sizes, and with searches over the true game in place of the
learned model, which leave values and policies to the network. If only those improve on the policy, the model is at
fault; if they do not either, the values are. Further lines say how well the network's values foretell what the games
of the policy alone still earned, discounted and per part of that, and how well the model tells actions apart
(`foresight`).

    python -m benchmarks.diagnose runs/NAME --simulations 0 16 50 --true 16
    python -m benchmarks.diagnose runs/NAME/checkpoints/* --averaged   # the moving average of the weights, too
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.foresight import collect, foresight
from benchmarks.true_game import SEED, Games, TrueGame
from muzero_ray.acting.frame_stacker import FrameStacker
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.atari import AtariEnvironment
from muzero_ray.envs.environment import CheckedEnvironment
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.environments import environment_factory
from muzero_ray.evaluation.protocol import evaluation_protocol
from muzero_ray.inference.build import build_engine
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.runs.output import learner_state
from muzero_ray.runs.run import open_run
from muzero_ray.search.policies import build_search
from muzero_ray.training.build import build_learner
from muzero_ray.types import Array, BoolArray, FloatArray, IntArray

QUARTERS = 4
"""Parts of the positions, by what they still earned."""

Choose = Callable[[Games, Array, BoolArray], IntArray]
"""Games in play, their stacked observations `[B, ...]` and legal actions `[B, A]` to actions `[B]`."""


class Played(NamedTuple):
    """returns: `[games]`. values, earned: of all positions, the network's value and what the game still earned."""

    returns: FloatArray
    values: FloatArray
    earned: FloatArray


def play(config: Config, task: TaskSpec, engine: InferenceEngine, choose: Choose, episodes: int) -> Played:
    """Play `episodes` games side by side.

    What is earned is discounted, and ends with a life where it does in training.
    """
    games = [environment_factory(config)(False) for _ in range(episodes)]
    spec = task.spec
    stacker = FrameStacker(episodes, spec.observation_shape, spec.observation_dtype, config.env.frame_stack)
    for index, game in enumerate(games):
        stacker.start(index, game.reset(SEED + index))
    values: list[list[float]] = [[] for _ in games]
    rewards: list[list[float]] = [[] for _ in games]
    ends: list[list[bool]] = [[] for _ in games]
    limit = evaluation_protocol(config, spec).move_limit
    active = list(range(episodes))
    moves = 0
    while active and (limit is None or moves < limit):
        moves += 1
        playing = [games[index] for index in active]
        legal = np.stack([game.legal_actions() for game in playing])
        observations = stacker.stacked[active]
        lives = [_lives(game) for game in playing]
        known = engine.initial(observations).value.tolist()
        actions = choose(playing, observations, legal).tolist()
        going: list[int] = []
        for index, game, action, value, before in zip(active, playing, actions, known, lives, strict=True):
            step = game.step(action)
            stacker.push(index, step.observation)
            values[index].append(value)
            rewards[index].append(step.reward)
            lost = config.env.atari.terminal_on_life_loss and _lives(game) < before
            ends[index].append(step.terminated or lost)
            if not (step.terminated or step.truncated):
                going.append(index)
        active = going
    for game in games:
        game.close()
    earned = [_earned(*pair, config.learner.discount) for pair in zip(rewards, ends, strict=True)]
    returns = np.array([sum(one) for one in rewards], np.float32)
    return Played(returns, np.concatenate([np.array(one, np.float32) for one in values]), np.concatenate(earned))


def _lives(game: CheckedEnvironment) -> int:
    return game.inner.lives() if isinstance(game.inner, AtariEnvironment) else 0


def _earned(rewards: Sequence[float], ends: Sequence[bool], discount: float) -> FloatArray:
    """Discounted rewards from each position to the end of the life, or of the game."""
    found, total = np.zeros(len(rewards), np.float32), 0.0
    for index in reversed(range(len(rewards))):
        total = rewards[index] + (0.0 if ends[index] else discount * total)
        found[index] = total
    return found


@dataclass(frozen=True)
class Player:
    """What chooses, from the weights in `engine`."""

    config: Config
    task: TaskSpec
    engine: InferenceEngine

    def policy(self) -> Choose:
        """The likeliest action of the network's policy."""

        def choose(_games: Games, observations: Array, legal: BoolArray) -> IntArray:
            logits = np.where(legal, self.engine.initial(observations).policy_logits, -np.inf)
            actions: IntArray = logits.argmax(axis=1).astype(np.int32)
            return actions

        return choose

    def search(self, simulations: int, c_scale: float | None, *, true: bool) -> Choose:
        """A search without noise. true: over the game itself."""
        search = build_search(self.config, self.task, simulations=simulations, c_scale=c_scale)
        game = TrueGame(self.config, self.engine, self.task.spec.observation_shape[0]) if true else None
        rng = np.random.default_rng(SEED)  # breaks exact ties only

        def choose(games: Games, observations: Array, legal: BoolArray) -> IntArray:
            root = self.engine.initial(observations) if game is None else game.root(games, observations)
            model = self.engine if game is None else game
            zeros = np.zeros(len(legal), np.float32)
            return search(root, model, legal, rng, explore=False, temperature=zeros).action

        return choose


def diagnose(run: Path, chosen: argparse.Namespace) -> None:
    """Print the lines of one run."""
    _, config, checkpoint = open_run(run, read="learner")
    task = probe(config)
    if task.spec.num_players != 1:
        raise ConfigError(f"run {run} plays {task.spec.name}, a game for two. Use evaluate and arena for those")
    learner = build_learner(config, task)
    learner.load_state(*learner_state(checkpoint))
    weights = {"newest weights": learner.weights()}
    if chosen.averaged:
        weights["averaged weights"] = learner.target_weights()
    player = Player(config, task, build_engine(config, task))
    for name, flat in weights.items():
        player.engine.load(flat)
        alone: Played | None = None
        for true, sizes in ((False, chosen.simulations), (True, chosen.true)):
            for count in sizes:
                choose = player.search(count, chosen.c_scale, true=true) if count else player.policy()
                played = play(config, task, player.engine, choose, chosen.episodes)
                alone = played if count == 0 else alone
                how = f"{count} simulations over the true game" if true else f"{count} simulations"
                print(f"{checkpoint.path} | {name} | {how} | {score_text(played.returns)}", flush=True)
        if alone is not None:
            print(f"{checkpoint.path} | {name} | {_values(alone)}", flush=True)
        if chosen.positions:
            positions = collect(config, task, player.engine, chosen.positions)
            for line in foresight(config, player.engine, positions):
                print(f"{checkpoint.path} | {name} | {line}", flush=True)


def score_text(returns: FloatArray) -> str:
    """Mean and standard error, for people."""
    error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else float("nan")
    return f"{returns.mean():.2f} +- {error:.2f} (standard error, {len(returns)} games)"


def _values(played: Played) -> str:
    """How much of what was earned the values explain, and their mean beside it in each quarter of the positions."""
    spread = float(played.earned.var())
    explained = 1.0 - float((played.earned - played.values).var()) / spread if spread > 0 else float("nan")
    parts = np.array_split(np.argsort(played.earned, kind="stable"), QUARTERS)
    means = ", ".join(f"{played.values[part].mean():.2f} for {played.earned[part].mean():.2f}" for part in parts)
    return f"values explain {explained:.2f} of what was earned; {means}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--simulations", type=int, nargs="*", default=[0, 16, 50], help="default: 0 16 50")
    parser.add_argument("--true", type=int, nargs="*", default=[16], help="over the true game (default: 16)")
    parser.add_argument("--episodes", type=int, default=30, help="default: %(default)s")
    parser.add_argument(
        "--positions", type=int, default=200, help="to hold actions from (default: %(default)s; 0: none)"
    )
    parser.add_argument("--c-scale", type=float, help="of the searches, in place of the run's (gumbel)")
    parser.add_argument("--averaged", action="store_true", help="the moving average of the weights, too")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for run in chosen.runs:
        diagnose(run, chosen)


if __name__ == "__main__":
    main()
