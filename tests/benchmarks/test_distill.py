"""What searches teach: two policies for each position, and a network that learns one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.diagnose import Player
from benchmarks.distill import collect, distill
from muzero_ray.networks.build import build_network
from tests.benchmarks.test_diagnose import LENGTH, lines_of, player, run

__all__ = ["player", "run"]  # fixtures


def test_only_the_true_game_shows_where_the_reward_is(player: Player) -> None:
    """With fresh weights the model knows nothing; one step before the reward, the game does."""
    taught = collect(player.config, player.task, player.engine, simulations=8, positions=400)
    assert len(taught.observations) == len(taught.by_model) == len(taught.by_game) == 400
    place = np.rint(taught.observations[:, 0] * LENGTH)
    before_the_reward = place == LENGTH - 1
    assert before_the_reward.sum() > 10
    assert taught.by_game[before_the_reward, 1].mean() > 0.7
    assert taught.by_model[:, 1].std() < 0.1  # alike everywhere


def test_a_network_learns_the_policies_it_is_shown(player: Player) -> None:
    rng = np.random.default_rng(0)
    observations = rng.random((500, 2), np.float32)
    right = np.where(observations[:, 0] > 0.5, 0.9, 0.1).astype(np.float32)
    policies = np.stack([1 - right, right], axis=1)
    network = build_network(player.config, player.task)
    before = distill(network, observations, policies, steps=1)
    assert before > 0.3
    assert distill(network, observations, policies, steps=300) < before / 4


def test_a_run_is_taught_by_both_searches(run: Path) -> None:
    asked = ["--positions", "32", "--simulations", "3", "--steps", "1", "2", "--episodes", "2"]
    told = [line.split(" | ")[1] for line in lines_of("distill", str(run), *asked)]
    searches = [
        f"taught by searches over {name}, {steps} steps" for name in ("the model", "the true game") for steps in (1, 2)
    ]
    assert told == ["as it is", *searches]
