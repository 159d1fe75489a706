"""Environments that break at stated moves: their games leave no trace but a report, all others are whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from muzero_ray.acting.rollout_stats import RolloutStats
from muzero_ray.acting.self_play import SelfPlay
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.restarting import MAX_FAULTS
from muzero_ray.errors import EnvironmentFault
from muzero_ray.evaluation.episodes import AGAIN
from muzero_ray.evaluation.evaluator import play_episodes
from muzero_ray.evaluation.policies import random_policy
from muzero_ray.evaluation.protocol import EvaluationProtocol
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.search.planner import Planner
from muzero_ray.types import Array, EnvStep, GameHistory, Weights, WeightsVersion
from tests.acting.scripted import ScriptedEngine, ScriptedEnvironment, ScriptedSearch, where

NEVER = -1


class Breaking(ScriptedEnvironment):
    """Its games are of five moves; it breaks at `move` of its first game (0: in the reset)."""

    def __init__(self, number: int, move: int) -> None:
        super().__init__(number, (5,))
        self._breaks = move

    def reset(self, seed: int) -> Array:
        frame = super().reset(seed)
        self._break(0)
        return frame

    def step(self, action: int) -> EnvStep:
        self._break(self._move + 1)
        return super().step(action)

    def _break(self, move: int) -> None:
        if self._game == 0 and move == self._breaks:
            raise EnvironmentFault(f"environment {self.spec.name}: move {move}")


def maker(moves: Sequence[int]) -> tuple[Callable[[], Breaking], list[Breaking]]:
    """Makes environments that break at `moves`, by turns, the last one for ever; and all it has made."""
    made: list[Breaking] = []

    def make() -> Breaking:
        made.append(Breaking(len(made), moves[min(len(made), len(moves) - 1)]))
        return made[-1]

    return make, made


def play(
    moves: Sequence[int], num_envs: int, transitions: int
) -> tuple[RolloutStats, list[GameHistory], list[Breaking]]:
    make, made = maker(moves)
    emitted: list[GameHistory] = []
    names: dict[str, Any] = {"actor": 0, "incarnation": 0, "seed": 1, "frame_stack": 1, "temperature_moves": None}
    self_play = SelfPlay(
        [make() for _ in range(num_envs)],
        Planner(ScriptedEngine(), ScriptedSearch()),  # type: ignore[arg-type]
        segment_length=50,
        overlap=3,
        simulations=2,
        make_environment=make,
        **names,
    )
    self_play.set_weights(Weights(WeightsVersion(0, 1), np.zeros(1, np.float32)))
    return self_play.play(transitions, temperature=1.0, emit=emitted.append), emitted, made


def test_a_game_that_breaks_is_lost_and_no_other() -> None:
    """Environment 0 breaks in its reset, 1 at its fourth move, 2 and 3 (in their places) never."""
    stats, emitted, made = play([0, 4, NEVER], num_envs=2, transitions=38)
    assert stats.faults == ("environment scripted-0: move 0", "environment scripted-1: move 4")
    assert [environment.closed for environment in made] == [True, True, False, False]
    # Three moves of the game that broke were played, and are in no segment.
    assert len(made[1].diary) == 3
    assert sum(len(environment.diary) for environment in made) == stats.transitions
    assert {where(game.observations[0])[0] for game in emitted} == {2, 3}
    for game in emitted:
        assert (game.owned, game.terminated) == (5, True)
        assert [where(frame)[2] for frame in game.observations] == [0, 1, 2, 3, 4, 5]
    assert stats.inserted == 5 * len(emitted) == 5 * len(stats.episodes)
    assert {episode.length for episode in stats.episodes} == {5}
    rewards = [sum(move.reward for move in made[2].diary[:5]), sum(move.reward for move in made[3].diary[:5])]
    assert sorted(rewards)[0] in [episode.score for episode in stats.episodes]


@pytest.mark.parametrize("move", [0, 3])
def test_one_that_always_breaks_ends_it_at_the_sixth(move: int) -> None:
    with pytest.raises(EnvironmentFault, match=rf"move {move}\. That was fault number {MAX_FAULTS + 1} in a row"):
        play([move], num_envs=1, transitions=100)


def test_a_game_between_two_faults_is_another_start() -> None:
    """Twice five in a row: nothing but the first game of each environment breaks."""
    one_game = [*[2] * MAX_FAULTS, NEVER]
    stats, emitted, _ = play(one_game, num_envs=1, transitions=30)
    assert len(stats.faults) == MAX_FAULTS
    assert emitted


def evaluate(moves: Sequence[int], episodes: int) -> tuple[Evaluation, list[Breaking]]:
    make, made = maker(moves)

    def factory(_: bool) -> Environment:
        return make()

    protocol = EvaluationProtocol({"id": "test"}, "gumbel", 4, False, None)
    result = play_episodes(factory, random_policy(0), episodes=episodes, seed=10, frame_stack=1, protocol=protocol)
    return result, made


def test_an_episode_that_breaks_is_played_again_with_another_seed() -> None:
    result, made = evaluate([NEVER, 4, 0, NEVER], episodes=3)
    assert len(result.faults) == 2
    assert result.lengths.tolist() == [5, 5, 5]
    assert "environment_faults=2" in result.summary()
    assert all(environment.closed for environment in made)
    assert [environment.seeds for environment in made] == [[10], [11], [12], [12 + AGAIN], [11 + AGAIN]]
    played = [made[0], made[4], made[3]]
    assert result.returns.tolist() == [sum(move.reward for move in environment.diary) for environment in played]


def test_without_faults_nothing_is_said_of_them() -> None:
    result, _ = evaluate([NEVER], episodes=2)
    assert result.faults == ()
    assert "fault" not in result.summary()


def test_an_evaluation_ends_at_the_sixth_in_a_row() -> None:
    with pytest.raises(EnvironmentFault, match="number 6 in a row"):
        evaluate([1], episodes=1)
