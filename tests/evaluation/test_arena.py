"""Games of known players against games played by hand in OpenSpiel; the Elo difference against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyspiel
import pytest
from scipy.stats import binomtest

from muzero_ray import launch
from muzero_ray.config.schema import EnvConfig
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.arena import BotPlayer, Match, NetworkPlayer, elo_difference, play_match
from muzero_ray.evaluation.episodes import MAX_ENVIRONMENTS
from muzero_ray.evaluation.opponents import make_opponent
from muzero_ray.types import Array, BoolArray, IntArray
from tests.small_runs import run_serial, small_config

GAME = "breakthrough(rows=4,columns=3)"


def maker(game: str = GAME) -> Callable[[], Environment]:
    return lambda: make_environment(EnvConfig(kind="openspiel", id=game))


def first_legal(environment: Environment) -> int:
    return int(np.argmax(environment.legal_actions()))


def last_legal(environment: Environment) -> int:
    return int(np.flatnonzero(environment.legal_actions())[-1])


def test_games_are_those_played_by_hand_with_openings_shared_by_pairs() -> None:
    """More games than environments, an odd number, and a network player that must see every frame, whoever moved."""
    games, seed, opening_moves, stack = MAX_ENVIRONMENTS + 3, 5, 3, 2
    seen: dict[int, list[Array]] = {}

    def policy(observations: Array, legal: BoolArray) -> IntArray:
        for row in observations:
            seen.setdefault(row.tobytes().__hash__(), []).append(row.copy())
        return (legal.shape[1] - 1 - np.argmax(legal[:, ::-1], axis=1)).astype(np.int32)

    spec = maker()().spec
    players = (NetworkPlayer(policy, spec, stack), BotPlayer(first_legal))
    match = play_match(maker(), players, games=games, seed=seed, opening_moves=opening_moves)

    adapter, expected, stacks = maker()(), [], set()
    for game in range(games):
        rng = np.random.default_rng([seed, game // 2])
        state = pyspiel.load_game(GAME).new_initial_state()
        frames = [np.zeros(spec.observation_shape, np.float32), adapter.reset(0)]
        for move in range(100):
            if state.is_terminal():
                break
            mine = state.current_player() == game % 2  # the first player moves first in even games
            if move < opening_moves:
                action = int(rng.choice(state.legal_actions()))
            else:
                action = state.legal_actions()[-1 if mine else 0]
                if mine:
                    stacks.add(np.concatenate(frames[-stack:]).tobytes())
            state.apply_action(action)
            frames.append(adapter.step(action).observation)
        expected.append(state.returns()[game % 2])
    assert match.returns.tolist() == expected
    assert {row.tobytes() for rows in seen.values() for row in rows} == stacks
    assert {-1.0, 1.0} == set(expected)  # such games end both ways


def test_without_opening_moves_all_games_of_a_side_are_alike() -> None:
    match = play_match(
        maker(), (BotPlayer(first_legal), BotPlayer(last_legal)), games=6, seed=0, opening_moves=0
    ).returns
    assert len(set(match[0::2].tolist())) == len(set(match[1::2].tolist())) == 1


def test_exact_players_draw_and_random_ones_lose_to_them() -> None:
    def play(one: str, other: str) -> Match:
        players = BotPlayer(make_opponent(one, 1)), BotPlayer(make_opponent(other, 2))
        return play_match(maker("tic_tac_toe"), players, games=20, seed=0, opening_moves=0)

    assert play("minimax", "minimax").counts() == (0, 20, 0)
    won, _, lost = play("minimax", "random").counts()
    assert (won > 10, lost) == (True, 0)
    won, _, lost = play("random", "minimax").counts()
    assert (won, lost > 10) == (0, True)


def test_openings_that_end_the_game_are_drawn_again_or_refused() -> None:
    """Tic-tac-toe may be over after five moves, and is after nine."""
    players = BotPlayer(first_legal), BotPlayer(last_legal)
    assert len(play_match(maker("tic_tac_toe"), players, games=40, seed=0, opening_moves=6).returns) == 40
    with pytest.raises(ConfigError, match="opening_moves=9: 100 random openings of that length all ended the game"):
        play_match(maker("tic_tac_toe"), players, games=2, seed=0, opening_moves=9)


def test_environments_are_closed() -> None:
    made: list[Environment] = []
    closed: list[int] = []

    def make() -> Environment:
        environment = maker("tic_tac_toe")()
        made.append(environment)
        environment.close = lambda: closed.append(1)  # type: ignore[method-assign]
        return environment

    def failing(_: Environment) -> int:
        raise RuntimeError("no move")

    with pytest.raises(RuntimeError, match="no move"):
        play_match(make, (BotPlayer(failing), BotPlayer(failing)), games=3, seed=0, opening_moves=0)
    assert len(closed) == len(made) == 3


@pytest.mark.parametrize(("won", "lost"), [(30, 10), (10, 30), (20, 20), (40, 0), (0, 40)])
def test_elo_follows_from_the_score(won: int, lost: int) -> None:
    """A player whose expected score is 10 times the other's is 400 points stronger; the interval is SciPy's Wilson."""
    elo, low, high = Match(np.array([1.0] * won + [-1.0] * lost, np.float32)).elo()
    interval = binomtest(won, won + lost).proportion_ci(0.95, method="wilson")
    for value, bound in ((low, interval.low), (high, interval.high)):
        assert 1 / (1 + 10 ** (-value / 400)) == pytest.approx(bound, abs=1e-4)
    if lost == 0 or won == 0:
        assert elo == math.copysign(math.inf, won - lost)
    else:
        assert 10 ** (elo / 400) == pytest.approx(won / lost)
    assert low < high
    assert elo_difference(10 / 11) == pytest.approx(400.0)


def test_draws_count_as_half_a_point() -> None:
    match = Match(np.array([1.0, 0.0, 0.0, -1.0, 1.0, 0.0], np.float32))
    assert match.counts() == (2, 3, 1)
    assert match.counts(slice(0, None, 2)) == (2, 1, 0)
    assert match.score == pytest.approx(3.5 / 6)


def test_arena_of_a_run_against_bots_and_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert run_serial(small_config("tictactoe"), run)
    capsys.readouterr()
    assert launch.main(["arena", str(run), "mcts:50", "--games", "8"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{run} against mcts:50, openings of 2 random moves"
    counts = [[int(word) for word in line.split() if word.isdigit()] for line in lines[1:]]
    assert [sum(three) for three in counts] == [4, 4]
    points = sum(won + drawn / 2 for won, drawn, _ in counts)
    assert last.startswith(f"score={points / 8:.3f} elo=")
    assert last.endswith("games=8")
    # Against itself, each opening is played from both sides: the same two games, so as many points each.
    assert launch.main(["arena", str(run), str(run / "checkpoints" / "40"), "--games", "6"]) == 0
    assert "score=0.500 elo=+0" in capsys.readouterr().out
    for players, message in (
        (["random", "minimax"], "arena: one player must be a run"),
        (["random", str(tmp_path / "none")], "arena: the folder does not exist"),
        ([str(run)], "arena"),
    ):
        assert launch.main(["arena", *players]) == 2
        assert message in capsys.readouterr().err
