"""Does a fast engine search as float32 torch does? `python -m benchmarks.engine_quality RUN [--observations N]`

The trained agent of a run plays, with noise and at its last temperature; at observations it meets, each engine searches
without noise, and its policy at the root is compared with that of the reference: the shares of visits with PUCT. With
Gumbel it is the improved policy, since the visits follow a schedule that hardly depends on the network.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.bars import judge
from benchmarks.engines import engines_for
from benchmarks.measure import FULL, Effort, Row, Samples, make_row, table
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.evaluation.environments import environment_factory
from muzero_ray.evaluation.evaluator import play_episodes
from muzero_ray.evaluation.opponents import make_opponent
from muzero_ray.evaluation.protocol import evaluation_protocol
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.networks.build import build_network
from muzero_ray.networks.flat import load_flat
from muzero_ray.runs.output import learner_state
from muzero_ray.runs.run import open_run
from muzero_ray.search.policies import build_search
from muzero_ray.training.build import build_learner
from muzero_ray.types import Array, BoolArray, FloatArray, IntArray

SEED = 0
GAMES = 8
"""Side by side."""

EVERY = 4
"""One in so many moves is compared: neighbours in a game are much alike."""

CHUNKS = 10
"""Samples of a mean: as many parts of the observations."""


@dataclass(frozen=True)
class Positions:
    """observations: stacked, `[N, ...]`; legal: `[N, A]`."""

    observations: Array
    legal: BoolArray


def quality(run: Path, effort: Effort) -> Iterator[Row]:
    """Mean total variation of the root's policy, and how often its best action is another one."""
    _, config, checkpoint = open_run(run, read="learner")
    task = probe(config)
    learner = build_learner(config, task)
    learner.load_state(*learner_state(checkpoint))
    network = build_network(config, task)
    load_flat(network, learner.weights())
    (_, reference), *others = engines_for(config).items()
    exact = reference.make(network)
    positions = collect(config, task, exact, effort.observations)
    expected = root_policies(config, task, exact, positions)
    title = f"{config.env.id}/S{config.search.simulations}"
    for label, choice in others:
        found = root_policies(config, task, choice.make(network), positions)
        yield from _rows(f"{title}/{label}", 1.0 / config.search.simulations, expected, found)


def _rows(name: str, one_visit: float, expected: FloatArray, found: FloatArray) -> Iterator[Row]:
    parts = min(CHUNKS, len(expected))
    distance = 0.5 * np.abs(expected - found).sum(axis=1)
    moved = expected.argmax(axis=1) != found.argmax(axis=1)
    samples: Samples = {
        "distance": [float(part.mean()) for part in np.array_split(distance, parts)],
        "moved": [float(part.mean()) for part in np.array_split(moved, parts)],
        "one visit": [one_visit] * parts,
    }
    row = make_row(f"quality/{name}", "variation", samples, "distance", "one visit", "one visit moved")
    mean = float(distance.mean())  # the bar is on the mean over all observations, not on the median part
    yield replace(row, figure=mean, ratio=mean / one_visit)
    row = make_row(f"quality-action/{name}", "of moves", samples, "moved")
    yield replace(row, figure=float(moved.mean()))


class _Enough(Exception):
    """As many positions as were asked for."""


def collect(config: Config, task: TaskSpec, engine: InferenceEngine, count: int) -> Positions:
    """`count` positions that the agent meets in self-play, or against random play in two-player games."""
    search = build_search(config, task)
    rng = np.random.default_rng(SEED)
    observations: list[Array] = []
    legal_actions: list[BoolArray] = []
    temperature = config.search.temperature_at(1.0)
    rounds = 0

    def act(stacked: Array, legal: BoolArray) -> IntArray:
        nonlocal rounds
        # Each game's turn comes in another round, so that early moves of board games are met as often as late ones.
        chosen = (rounds + np.arange(len(stacked))) % EVERY == 0
        observations.extend(stacked[chosen].copy())
        legal_actions.extend(legal[chosen].copy())
        if len(observations) >= count:
            raise _Enough
        rounds += 1
        root = engine.initial(stacked)
        temperatures = np.full(len(stacked), temperature, np.float32)
        return search(root, engine, legal, rng, explore=True, temperature=temperatures).action

    players = task.spec.num_players
    for seed in range(count):
        try:
            play_episodes(
                environment_factory(config),
                act,
                episodes=GAMES,
                seed=seed * GAMES,
                frame_stack=config.env.frame_stack,
                protocol=evaluation_protocol(config, task.spec),
                opponent=make_opponent("random", seed) if players == 2 else None,
            )
        except _Enough:
            break
    return Positions(np.stack(observations[:count]), np.stack(legal_actions[:count]))


def root_policies(config: Config, task: TaskSpec, engine: InferenceEngine, positions: Positions) -> FloatArray:
    """Policy at each root, `[N, A]`, in batches of the size that self-play has. Deterministic."""
    search = build_search(config, task)
    size = config.actors.envs_per_actor
    policies = []
    for begin in range(0, len(positions.legal), size):
        legal = positions.legal[begin : begin + size]
        root = engine.initial(positions.observations[begin : begin + size])
        zeros = np.zeros(len(legal), np.float32)
        rng = np.random.default_rng(SEED)  # breaks exact ties only
        result = search(root, engine, legal, rng, explore=False, temperature=zeros)
        policies.append(result.policy_target.copy())
    return np.concatenate(policies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--observations", type=int, default=FULL.observations)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(table(judge(list(quality(arguments.run, replace(FULL, observations=arguments.observations))))))


if __name__ == "__main__":
    main()
