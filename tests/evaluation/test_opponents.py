"""Opponents: random is uniform over what is legal, minimax is exact."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyspiel
import pytest
from open_spiel.python.algorithms import minimax

from muzero_ray.config.schema import EnvConfig
from muzero_ray.envs.environment import CheckedEnvironment
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.opponents import MinimaxSolver, make_opponent


def board(game: str = "tic_tac_toe", moves: tuple[int, ...] = ()) -> CheckedEnvironment:
    environment = make_environment(EnvConfig(kind="openspiel", id=game))
    environment.reset(0)
    for action in moves:
        environment.step(action)
    return environment


def test_minimax_values_equal_open_spiels_own() -> None:
    """In positions of random games, for either player to move."""
    game, rng, solver = pyspiel.load_game("tic_tac_toe"), np.random.default_rng(0), MinimaxSolver()
    values = []
    for _ in range(12):
        state = game.new_initial_state()
        for _ in range(3):
            state.apply_action(int(rng.choice(state.legal_actions())))
        while not state.is_terminal():
            value, _ = minimax.alpha_beta_search(game, state=state.clone(), maximizing_player_id=0)
            assert solver.value(state) == value
            # The best actions are those, and all those, that keep it.
            keeping = [a for a in state.legal_actions() if solver.value(state.child(a)) == value]
            assert solver.best_actions(state) == keeping != []
            values.append(value)
            state.apply_action(int(rng.choice(state.legal_actions())))
    assert set(values) == {-1.0, 0.0, 1.0}
    assert solver.value(game.new_initial_state()) == 0.0


@pytest.mark.parametrize(
    ("moves", "best"),
    [
        ((0, 3, 1, 4), {2}),  # x completes the top row
        ((0, 4, 1), {2}),  # o must block it
        ((0, 8), {2, 6}),  # only the other corners win against the far corner
        ((4,), {0, 2, 6, 8}),  # against the centre only corners draw
    ],
)
def test_minimax_plays_every_best_move_and_no_other(moves: tuple[int, ...], best: set[int]) -> None:
    environment, opponent = board(moves=moves), make_opponent("minimax", seed=0)
    assert {opponent(environment) for _ in range(60)} == best


def test_minimax_leaves_the_game_as_it_is() -> None:
    environment = board(moves=(4, 0))
    before = str(environment.state)
    make_opponent("minimax", seed=0)(environment)
    assert str(environment.state) == before


def test_random_is_uniform_over_legal_actions_and_seeded() -> None:
    environment = board(moves=(4, 0, 8))
    opponent = make_opponent("random", seed=5)
    draws = [opponent(environment) for _ in range(1200)]
    counts = Counter(draws)
    assert set(counts) == {1, 2, 3, 5, 6, 7}
    # 200 expected each; five standard deviations of a binomial.
    assert all(abs(count - 200) < 5 * np.sqrt(1200 / 6 * 5 / 6) for count in counts.values())
    again, other = make_opponent("random", seed=5), make_opponent("random", seed=6)
    assert [again(environment) for _ in range(50)] == draws[:50]
    assert [other(environment) for _ in range(50)] != draws[:50]


def test_unknown_and_impossible_opponents_are_refused() -> None:
    for name in ("alphazero", "mcts", "mcts:0", "mcts:1e3", "mcts:-5", "minimax "):
        with pytest.raises(ConfigError, match=rf"opponent='{name}' is unknown\. Use random, minimax or mcts:N"):
            make_opponent(name, seed=0)
    cartpole = make_environment(EnvConfig(id="CartPole-v1"))
    cartpole.reset(0)
    for name in ("minimax", "mcts:5"):
        with pytest.raises(ConfigError, match=rf"opponent={name} needs an OpenSpiel game .* CartPole-v1 is not one"):
            make_opponent(name, seed=0)(cartpole)


@pytest.mark.parametrize(("moves", "best"), [((0, 3, 1, 4), {2}), ((0, 4, 1), {2}), ((0, 8), {2, 6})])
def test_mcts_finds_wins_and_blocks(moves: tuple[int, ...], best: set[int]) -> None:
    environment = board(moves=moves)
    before = str(environment.state)
    opponent = make_opponent("mcts:2000", seed=0)
    assert {opponent(environment) for _ in range(5)} <= best
    assert str(environment.state) == before


def test_mcts_is_as_strong_as_its_simulations_say_and_seeded() -> None:
    """In Connect Four, both sides played: 300 simulations against 10."""

    def play(strong: int, weak: int, strong_first: bool) -> tuple[float, list[int]]:
        bots = [make_opponent(f"mcts:{count}", seed=seed) for seed, count in enumerate((strong, weak))]
        environment = board("connect_four")
        while not environment.state.is_terminal():
            environment.step(bots[environment.to_play() ^ (not strong_first)](environment))
        return environment.state.returns()[0 if strong_first else 1], list(environment.state.history())

    games = [play(300, 10, strong_first) for strong_first in (True, False)]
    assert [won for won, _ in games] == [1.0, 1.0]
    assert [play(300, 10, strong_first) for strong_first in (True, False)] == games
