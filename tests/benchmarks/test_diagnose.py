"""The diagnosis: the true game as a model foresees what is there, and what was earned is counted as by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from benchmarks.ablation import ROOT
from benchmarks.diagnose import Played, Player, _earned, _values, play
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.inference.build import build_engine
from tests.patience import PATIENCE

LENGTH = 3


class Corridor(gymnasium.Env[Any, int]):
    """Three steps to the right earn 1; one to the left, or the sixth move, ends the game."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._place = 0
        return self._seen(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._place = self._place + 1 if action == 1 else -1
        return self._seen(), float(self._place == LENGTH), self._place in (-1, LENGTH), False, {}

    def _seen(self) -> Any:
        return np.array([self._place / LENGTH, 1.0], np.float32).clip(0.0, 1.0)


gymnasium.register("Corridor-v0", Corridor, max_episode_steps=6)


@pytest.fixture(scope="module")
def player() -> Player:
    """With fresh weights: all values are 0 and all actions alike."""
    config = Config.model_validate(
        {
            "env": {"id": f"{__name__}:Corridor-v0"},
            "search": {"kind": "puct", "simulations": 4},
            "actors": {"engine": "torch"},
        }
    )
    task = probe(config)
    return Player(config, task, build_engine(config, task))


def test_a_search_over_the_true_game_finds_what_the_policy_does_not_know(player: Player) -> None:
    places = player.config, player.task, player.engine
    assert play(*places, player.policy(), 2).returns.tolist() == [0.0, 0.0]
    assert play(*places, player.search(64, None, true=True), 2).returns.tolist() == [1.0, 1.0]
    assert play(*places, player.search(64, None, true=False), 2).returns.tolist() == [0.0, 0.0]


def test_what_was_earned_is_discounted_and_ends_with_a_life() -> None:
    found = _earned([1.0, 2.0, 4.0, 8.0], [False, True, False, True], 0.5)
    assert found.tolist() == [2.0, 2.0, 8.0, 8.0]


def test_values_are_told_beside_what_was_earned() -> None:
    earned = np.array([3.0, 1.0, 4.0, 2.0], np.float32)
    text = _values(Played(np.zeros(1, np.float32), earned + 1, earned))
    assert text == "values explain 1.00 of what was earned; 2.00 for 1.00, 3.00 for 2.00, 4.00 for 3.00, 5.00 for 4.00"
    half = _values(Played(np.zeros(1, np.float32), np.zeros(4, np.float32), earned))
    assert half.startswith("values explain 0.00 ")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of CartPole that is over."""
    folder = tmp_path_factory.mktemp("runs")
    options = (
        "--iterations 8 --max-moves 20 --simulations 3 --network.hidden 16 --replay.min-size 300 --replay.capacity 900 "
        "--replay.segment-length 10 --replay.holdout 0.2 --learner.batch-size 16 --learner.td-steps 4 "
        "--actors.envs-per-actor 4 --actors.rollout-steps 40 --evaluation.final-episodes 2 --run.wandb disabled "
        "--run.name small --serial"
    )
    train = [sys.executable, "launch.py", "train", "cartpole", "--runs-dir", str(folder), *options.split()]
    subprocess.run(train, cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE)
    return folder / "small"


def lines_of(module: str, *asked: str) -> list[str]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *asked]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_run_is_diagnosed_with_both_its_weights(run: Path) -> None:
    asked = ["--simulations", "0", "3", "--true", "2", "--episodes", "2", "--averaged", "--positions", "8"]
    told = [line.split(" | ")[1:3] for line in lines_of("diagnose", str(run), *asked)]
    ways = ["0 simulations", "3 simulations", "2 simulations over the true game"]
    for weights, lines in (("newest weights", told[:8]), ("averaged weights", told[8:])):
        assert [name for name, _ in lines] == [weights] * 8
        assert [how for _, how in lines[:3]] == ways
        assert lines[3][1].startswith("values explain ")
        assert [how.split(":")[0] for _, how in lines[4:]] == [f"actions held for {moves}" for moves in (1, 2, 3, 5)]


def test_networks_are_trained_on_the_games_of_a_run(run: Path) -> None:
    """The same settings give the same figures, others do not; and the run is as it was."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    variants = ["as it was=", "again=", "slower=--learner.lr 1e-4"]
    asked = ["--variants", *variants, "--steps", "4", "--every", "2", "--episodes", "2", "--simulations", "0"]
    first, *told = lines_of("offline", str(run), *asked)
    assert int(first.split()[0]) > 10
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in told[2:8]]
    assert [(name, steps) for name, steps, *_ in rows] == [
        (variant.split("=")[0], steps) for variant in variants for steps in ("2", "4")
    ]
    as_it_was, again, slower = ([row[3:] for row in rows[i : i + 2]] for i in (0, 2, 4))
    assert as_it_was == again != slower
    assert [line.split(":")[0] for line in told[8:]] == [f"{v.split('=')[0]}, 0 simulations" for v in variants]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
