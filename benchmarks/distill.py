"""What is wrong with the policy: how it is learned, or what the search teaches it? `python -m benchmarks.distill RUN`

From positions of a run's games, each searched twice: over the learned model, as in training, and over the true game,
with the network's values and policies in both. Then the network of the run learns the policies that one of them found,
and plays with its policy alone; likewise the other. If the policies of the true game make it a better player and those
of the model do not, the network can learn and play better than it does: the model's searches teach it too little.

    python -m benchmarks.distill runs/NAME --positions 12000
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.diagnose import Player, play, score_text
from benchmarks.true_game import SEED, TrueGame
from muzero_ray.acting.frame_stacker import FrameStacker
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.evaluation.environments import environment_factory
from muzero_ray.inference.build import build_engine
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.networks.build import build_network
from muzero_ray.networks.flat import flatten_state, load_flat
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.runs.output import learner_state
from muzero_ray.runs.run import open_run
from muzero_ray.search.policies import build_search
from muzero_ray.training.build import build_learner
from muzero_ray.types import Array, FloatArray, IntArray

GAMES = 16
"""Played side by side."""

TRUE_SHARE, RANDOM_SHARE = 0.45, 0.1
"""Shares of the moves that the search over the true game chooses, and of random ones; the policy chooses the rest."""

HELD_OUT, BATCH, LEARNING_RATE, WEIGHT_DECAY = 0.1, 64, 1e-3, 1e-4


class Taught(NamedTuple):
    """observations `[N, ...]`, stacked, and what two searches make of the policy there, `[N, A]` each."""

    observations: Array
    by_model: FloatArray
    by_game: FloatArray


def collect(config: Config, task: TaskSpec, engine: InferenceEngine, simulations: int, positions: int) -> Taught:
    """Play until there are `positions`, and search each of them twice."""
    spec, rng = task.spec, np.random.default_rng(SEED)
    search = build_search(config, task, simulations=simulations, c_scale=None)
    true_game = TrueGame(config, engine, spec.observation_shape[0])
    games = [environment_factory(config)(False) for _ in range(GAMES)]
    stacker = FrameStacker(GAMES, spec.observation_shape, spec.observation_dtype, config.env.frame_stack)
    seeds = iter(range(SEED, 2**31))
    for index, game in enumerate(games):
        stacker.start(index, game.reset(next(seeds)))
    zeros = np.zeros(GAMES, np.float32)
    rounds: list[Taught] = []
    while len(rounds) * GAMES < positions:
        observations = stacker.stacked.copy()
        legal = np.stack([game.legal_actions() for game in games])
        root = engine.initial(observations)
        by_model = search(root, engine, legal, rng, explore=False, temperature=zeros)
        by_game = search(true_game.root(games, observations), true_game, legal, rng, explore=False, temperature=zeros)
        rounds.append(Taught(observations, by_model.policy_target.copy(), by_game.policy_target.copy()))
        likeliest = np.where(legal, root.policy_logits, -np.inf).argmax(axis=1)
        actions = _mixed(by_game.action, likeliest, legal, rng)
        for index, (game, action) in enumerate(zip(games, actions.tolist(), strict=True)):
            step = game.step(action)
            if step.terminated or step.truncated:
                stacker.start(index, game.reset(next(seeds)))
            else:
                stacker.push(index, step.observation)
    for game in games:
        game.close()
    return Taught(*(np.concatenate(column) for column in zip(*rounds, strict=True)))


def _mixed(searched: IntArray, likeliest: IntArray, legal: Array, rng: np.random.Generator) -> IntArray:
    """Moves `[GAMES]` of the search, of the policy, and random ones, by their shares."""
    drawn = rng.random(GAMES)
    any_legal = np.where(legal, rng.random(legal.shape), -1.0).argmax(axis=1)
    chosen = np.where(drawn < TRUE_SHARE, searched, likeliest)
    return np.where(drawn >= 1.0 - RANDOM_SHARE, any_legal, chosen).astype(np.int32)


def distill(network: MuZeroNetwork, observations: Array, policies: FloatArray, steps: int) -> float:
    """Teach `network` these policies in `steps` steps of Adam; returns the KL divergence at positions held out."""
    targets = torch.from_numpy(policies)
    trained = int(len(observations) * (1.0 - HELD_OUT))
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    rng = np.random.default_rng(SEED)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1.0 - step / steps)
        batch = rng.integers(trained, size=BATCH)
        loss = _cross_entropy(network, observations[batch], targets[batch]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
    held_out = targets[trained:]
    with torch.no_grad():
        wrong = _cross_entropy(network, observations[trained:], held_out).mean()
    entropy = -(held_out * held_out.clamp_min(1e-9).log()).sum(-1).mean()
    return float(wrong - entropy)


def _cross_entropy(network: MuZeroNetwork, observations: Array, targets: torch.Tensor) -> torch.Tensor:
    logits, _ = network.predict(network.represent(torch.from_numpy(observations)))
    return -(targets * F.log_softmax(logits, dim=-1)).sum(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--positions", type=int, default=12_000, help="to learn from (default: %(default)s)")
    parser.add_argument("--simulations", type=int, default=16, help="of both searches (default: %(default)s)")
    parser.add_argument("--steps", type=int, nargs="+", default=[300, 1_000], help="of learning (default: 300 1000)")
    parser.add_argument("--episodes", type=int, default=32, help="played by each policy (default: %(default)s)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    _, config, checkpoint = open_run(chosen.run, read="learner")
    task = probe(config)
    learner = build_learner(config, task)
    learner.load_state(*learner_state(checkpoint))
    engine, weights = build_engine(config, task), learner.weights()
    engine.load(weights)
    player = Player(config, task, engine)
    taught = collect(config, task, engine, chosen.simulations, chosen.positions)
    played = play(config, task, engine, player.policy(), chosen.episodes)
    print(f"{checkpoint.path} | as it is | policy alone {score_text(played.returns)}", flush=True)
    for name, policies in (("the model", taught.by_model), ("the true game", taught.by_game)):
        for steps in chosen.steps:
            network = build_network(config, task)
            load_flat(network, weights)
            divergence = distill(network, taught.observations, policies, steps)
            engine.load(flatten_state(network))
            played = play(config, task, engine, player.policy(), chosen.episodes)
            print(
                f"{checkpoint.path} | taught by searches over {name}, {steps} steps | policy alone "
                f"{score_text(played.returns)} | KL divergence at positions held out {divergence:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
