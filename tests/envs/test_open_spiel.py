"""Board games against rules written down here, and the games that are refused."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

from muzero_ray.config.schema import EnvConfig
from muzero_ray.envs import open_spiel
from muzero_ray.envs.environment import CheckedEnvironment
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import ConfigError, EnvironmentFault

LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


def make(name: str, **kwargs: bool | int | float | str) -> CheckedEnvironment:
    return make_environment(EnvConfig(kind="openspiel", id=name, kwargs=kwargs))


@pytest.fixture(autouse=True)
def _needs_open_spiel() -> None:
    pytest.importorskip("pyspiel")


def test_tic_tac_toe_by_the_rules() -> None:
    env = make("tic_tac_toe")
    assert (env.spec.observation_shape, env.spec.num_actions, env.spec.num_players) == ((4, 3, 3), 9, 2)
    rng = np.random.default_rng(0)
    outcomes = set()
    for seed in range(30):
        frame, cells, player, over = env.reset(seed), [-1] * 9, 0, False
        while not over:
            free = [i for i in range(9) if cells[i] == -1]
            assert env.to_play() == player
            assert np.flatnonzero(env.legal_actions()).tolist() == free
            # OpenSpiel's planes: empty, noughts (second player), crosses (first); ours: the player to move.
            for plane, owner in enumerate((-1, 1, 0)):
                assert frame[plane].ravel().tolist() == [float(cell == owner) for cell in cells]
            assert (frame[3] == player).all()
            action = int(rng.choice(free))
            cells[action] = player
            won = any(all(cells[i] == player for i in line) for line in LINES)
            over = won or -1 not in cells
            frame, reward, terminated, truncated = env.step(action)
            assert (reward, terminated, truncated) == (float(won), over, False)
            player = 1 - player
            outcomes.add((won, player))
        assert env.to_play() == player
        assert not env.legal_actions().any()
    assert {(True, 0), (True, 1), (False, 1)} <= outcomes  # both sides won, and a board was filled


def test_connect_four_column() -> None:
    env = make("connect_four")
    assert (env.spec.observation_shape, env.spec.num_actions) == ((4, 6, 7), 7)
    env.reset(0)
    steps = [env.step(action) for action in (3, 2, 3, 2, 0, 2, 0, 2)]
    assert [step.reward for step in steps] == [0] * 7 + [1.0]  # the second player, four in column 2
    assert [step.terminated for step in steps] == [False] * 7 + [True]
    env.reset(0)
    for _ in range(3):
        env.step(5), env.step(5)
    assert np.flatnonzero(~env.legal_actions()).tolist() == [5]
    with pytest.raises(EnvironmentFault, match=r"environment connect_four \(seed 0, step 6\): illegal action.*got 5"):
        env.step(5)


def test_the_tensor_is_that_of_the_player_to_move() -> None:
    """Othello's tensor shows empty cells, own stones, the other's: after one move Black has four and White one."""
    env = make("othello")
    assert env.reset(0)[:3].sum(axis=(1, 2)).tolist() == [60, 2, 2]
    frame = env.step(int(np.flatnonzero(env.legal_actions())[0])).observation
    assert env.to_play() == 1
    assert frame.sum(axis=(1, 2)).tolist() == [59, 1, 4]


def test_whose_move_it_is_comes_with_boards_that_look_the_same_to_both() -> None:
    """Columns 3 and 2 are taken, then 0: in the second plane are the second player's, or those of the one to move."""
    sided, plain = make("connect_four", egocentric_obs_tensor=True), make("connect_four")
    assert (sided.spec.observation_shape, plain.spec.observation_shape) == ((3, 6, 7), (4, 6, 7))
    for env, expected in ((sided, [[3], [2]]), (plain, [[2], [2]])):
        env.reset(0)
        frames = [env.step(column).observation for column in (3, 2, 0)][1:]
        assert [np.flatnonzero(frame[1].any(axis=0)).tolist() for frame in frames] == expected
        assert [frame[2].sum() for frame in frames] == [40, 39]  # empty cells
        if env is plain:
            assert [frame[3].mean() for frame in frames] == [0, 1]


def test_whoever_acts_gets_the_reward_even_if_it_loses() -> None:
    """Misere tic-tac-toe: three in a row loses."""
    env = make("misere(game=tic_tac_toe())")
    env.reset(0)
    steps = [env.step(action) for action in (0, 3, 1, 4, 2)]
    assert [(step.reward, step.terminated) for step in steps] == [(0, False)] * 4 + [(-1.0, True)]


def test_a_saved_game_restores_exactly() -> None:
    env, other = make("tic_tac_toe"), make("tic_tac_toe")
    env.reset(3)
    for action in (4, 0, 8):
        frame = env.step(action).observation
    other.reset(0)
    np.testing.assert_array_equal(other.restore(json.loads(json.dumps(env.save()))), frame)
    assert (other.to_play(), str(other.state)) == (1, "o..\n.x.\n..x")
    np.testing.assert_array_equal(other.legal_actions(), env.legal_actions())
    np.testing.assert_array_equal(other.step(2).observation, env.step(2).observation)


def test_games_of_self_play_begin_after_random_moves_and_evaluations_do_not() -> None:
    cfg = EnvConfig(kind="openspiel", id="tic_tac_toe", opening_moves=8)
    env, other = make_environment(cfg), make_environment(cfg)
    openings = []
    for seed in range(300):
        frame = env.reset(seed)
        stones = round(9 - float(frame[0].sum()))
        assert env.to_play() == stones % 2  # the cross begins
        assert env.legal_actions().sum() == 9 - stones
        np.testing.assert_array_equal(other.reset(seed), frame)
        openings.append((stones, str(env.state)))
    counts = np.bincount([stones for stones, _ in openings])
    assert min(counts[:5]) > 15  # of 33 each; whoever wins in five moves or more has no opening
    assert len({board for stones, board in openings if stones == 2}) > 10

    seed = next(seed for seed, (stones, _) in enumerate(openings) if stones == 3)
    env.reset(seed)
    env.step(int(np.flatnonzero(env.legal_actions())[0]))
    frame = other.restore(json.loads(json.dumps(env.save())))
    assert str(other.state) == str(env.state)
    assert frame[0].sum() == 5

    plain = make_environment(cfg, evaluation=True)
    assert all(plain.reset(seed)[0].sum() == 9 for seed in range(20))


def test_game_parameters_and_flat_tensors() -> None:
    assert make("go(board_size=5)").spec.num_actions == 26
    both = make("go(board_size=5)", komi=6.5)
    both.reset(0)
    assert (both.spec.num_actions, "komi=6.5" in str(both.state)) == (26, True)
    nim = make("nim")
    first = nim.reset(0)
    assert first.shape == nim.spec.observation_shape == (40,)
    second = nim.step(int(np.flatnonzero(nim.legal_actions())[0])).observation
    assert (first[-1], second[-1]) == (0, 1)


def test_render_draws_the_board() -> None:
    env = make("tic_tac_toe")
    env.reset(0)
    empty = env.render()
    env.step(4)
    one = env.render()
    assert empty is not None
    assert one is not None
    assert (one.dtype, one.shape) == (np.uint8, empty.shape)
    changed = np.argwhere((one != empty).any(axis=2))
    height, width = one.shape[:2]
    # Only around the centre of the board.
    assert (np.abs(changed - [height / 2, width / 2]) < [height / 4, width / 4]).all()
    assert len(changed) > 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hearts", "for 4 players"),
        ("goofspiel", "move at the same time"),
        ("pig", "chance events"),
        ("phantom_ttt", "do not see everything"),
        ("dots_and_boxes", "move twice in a row"),
        ("mancala", "move twice in a row"),
        ("tictactoe", "Nearest: tic_tac_toe"),
        ("go(board=5)", "Unknown parameter 'board'"),
    ],
)
def test_other_games_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"env.id={name}")) as caught:
        make(name)
    assert reason in str(caught.value)


def test_a_second_turn_in_a_row_stops_the_game(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the look at a few random games have missed it."""
    monkeypatch.setattr(open_spiel, "_moves_twice", lambda _: False)
    env = make("dots_and_boxes(num_rows=1,num_cols=2)")
    env.reset(0)

    def draw_every_line() -> None:
        for action in range(env.spec.num_actions):
            env.step(action)

    with pytest.raises(EnvironmentFault, match=r"players do not take turns: expected player \d to move, got player \d"):
        draw_every_line()


def test_without_open_spiel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    open_spiel._load.cache_clear()
    with pytest.raises(ConfigError, match=re.escape("pip install 'muzero-ray[boards]'")):
        make("tic_tac_toe")
