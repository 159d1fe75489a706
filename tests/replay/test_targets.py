import numpy as np
import pytest

from muzero_ray.replay.targets import n_step_values
from tests.replay.games import DISCOUNT, make_buffer, make_game, slow_value


@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize("players", [1, 2])
@pytest.mark.parametrize("first_player", [0, 1])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 99])
def test_n_step_values_match_the_definition(end: str, players: int, first_player: int, n: int) -> None:
    rng = np.random.default_rng(n)
    for steps in (1, 2, 7, 12):
        game = make_game(rng, steps, end=end, players=players, first_player=first_player)
        values = n_step_values(game.rewards, game.root_values, game.to_play, n=n, discount=DISCOUNT)
        expected = [slow_value(game, s, n=n) for s in range(steps + 1)]
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
        assert values.dtype == np.float32


def test_a_won_board_game_by_hand() -> None:
    # Player 0 moves at 0, 2, 4 and wins with the fifth move: +1 for every position of player 0, -1 for player 1.
    rewards = np.array([0, 0, 0, 0, 1], np.float32)
    to_play = np.array([0, 1, 0, 1, 0, 1], np.int8)
    values = n_step_values(rewards, np.zeros(6, np.float32), to_play, n=9, discount=1.0)
    np.testing.assert_array_equal(values, [1, -1, 1, -1, 1, 0])
    # Cut off after two moves, search says +0.5 for the player to move at 2.
    root_values = np.array([0, 0, 0.5], np.float32)
    values = n_step_values(rewards[:2], root_values, to_play[:3], n=9, discount=0.5)
    np.testing.assert_array_equal(values, [0.125, -0.25, 0.5])


def test_not_alternating_turns_keep_the_sign_of_each_mover() -> None:
    # The same player moves twice: its reward two steps on counts for it, not against it.
    values = n_step_values(
        np.array([0, 0, 4], np.float32), np.zeros(4, np.float32), np.array([0, 1, 1, 0], np.int8), n=3, discount=0.5
    )
    np.testing.assert_array_equal(values, [-1, 2, 4, 0])


def test_time_limits_are_not_deaths() -> None:
    rng = np.random.default_rng(0)
    game = make_game(rng, 6, end="truncated")
    buffer = make_buffer(alpha=0.0)
    buffer.add(game)
    batch = buffer.sample(64, 1.0)
    last = batch.target_value[batch.keys.position == 5, 0]
    expected = game.rewards[5] + np.float32(DISCOUNT) * game.root_values[6]
    np.testing.assert_allclose(last, expected, rtol=1e-6)
    assert len(last)
