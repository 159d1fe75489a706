"""Scores against games played by hand, move by move, in the bare environments."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3
import numpy as np
import pyspiel
import pytest

from muzero_ray.config.schema import Config, EnvConfig
from muzero_ray.control.probe import probe
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.registry import make_environment
from muzero_ray.evaluation.episodes import MAX_ENVIRONMENTS
from muzero_ray.evaluation.evaluator import Evaluator, play_episodes
from muzero_ray.evaluation.opponents import make_opponent
from muzero_ray.evaluation.policies import random_policy
from muzero_ray.evaluation.protocol import EvaluationProtocol, evaluation_protocol
from muzero_ray.training.build import build_learner
from muzero_ray.types import Array, BoolArray, EnvSpec, IntArray
from tests.acting.scripted import ScriptedEnvironment
from tests.small_runs import small_config

PROTOCOL = EvaluationProtocol({"id": "test"}, "gumbel", 4, False, None)


def leaning(observations: Array, legal: BoolArray) -> IntArray:
    """Pushes to where the pole leans now, and a little away from where the cart stood a frame ago."""
    del legal
    before, now = observations[:, :4], observations[:, 4:]
    return (now[:, 2] + 0.3 * before[:, 0] > 0).astype(np.int32)


def test_scores_equal_a_hand_loop_in_the_bare_environment() -> None:
    """More episodes than environments, two stacked frames, and each episode under its own seed."""
    episodes, seed = MAX_ENVIRONMENTS + 9, 100
    result = play_episodes(
        lambda _: make_environment(EnvConfig(id="CartPole-v1", max_moves=70)),
        leaning,
        episodes=episodes,
        seed=seed,
        frame_stack=2,
        protocol=PROTOCOL,
    )
    bare = gymnasium.make("CartPole-v1")
    expected = []
    for episode in range(episodes):
        frame, _ = bare.reset(seed=seed + episode)
        frames = deque([np.zeros(4), frame], maxlen=2)
        score = 0.0
        for _ in range(70):
            action = leaning(np.concatenate(frames)[None].astype(np.float32), np.ones((1, 2), np.bool_))[0]
            frame, reward, terminated, _, _ = bare.step(int(action))
            frames.append(frame)
            score += float(reward)
            if terminated:
                break
        expected.append(score)
    assert result.returns.tolist() == expected
    assert result.lengths.tolist() == expected  # one point a move
    assert len(set(expected)) > 5
    assert 70 in expected
    assert result.seed == seed
    assert result.video is None
    assert result.mean == pytest.approx(np.mean(expected))
    metrics = result.metrics()
    assert metrics["eval/return_std"] == pytest.approx(np.std(expected))
    assert (metrics["eval/episodes"], metrics["eval/simulations"]) == (episodes, 4)
    assert result.summary() == (
        f"return_mean={np.mean(expected):.3f} return_std={np.std(expected):.3f} "
        f"episodes={episodes} env_steps={int(sum(expected))}"
    )


def last_legal(observations: Array, legal: BoolArray) -> IntArray:
    del observations
    return (legal.shape[1] - 1 - np.argmax(legal[:, ::-1], axis=1)).astype(np.int32)


def first_legal(environment: Environment) -> int:
    return int(np.argmax(environment.legal_actions()))


def test_two_player_games_alternate_seats_and_the_opponent_replies() -> None:
    """Last legal move against first legal move, from both sides, with a stack that shows the opponent's frames."""
    seen: list[Array] = []  # the first and the last row of every batch: as long as they last, episodes 0 and 1

    def policy(observations: Array, legal: BoolArray) -> IntArray:
        seen.append(observations[[0, -1]])
        return last_legal(observations, legal)

    result = play_episodes(
        lambda _: make_environment(EnvConfig(kind="openspiel", id="breakthrough(rows=4,columns=3)")),
        policy,
        episodes=2,
        seed=0,
        frame_stack=2,
        protocol=PROTOCOL,
        opponent=first_legal,
    )
    adapter = make_environment(EnvConfig(kind="openspiel", id="breakthrough(rows=4,columns=3)"))
    for seat in (0, 1):
        state = pyspiel.load_game("breakthrough(rows=4,columns=3)").new_initial_state()
        frames, moves, stacks = [np.zeros(adapter.spec.observation_shape), adapter.reset(0)], 0, []
        while not state.is_terminal():
            mine = state.current_player() == seat
            if mine:
                moves += 1
                stacks.append(np.concatenate(frames[-2:]))
            action = state.legal_actions()[-1 if mine else 0]
            state.apply_action(action)
            frames.append(adapter.step(action).observation)
        assert result.returns[seat] == state.returns()[seat] != 0.0
        assert result.lengths[seat] == moves
        np.testing.assert_array_equal(np.stack(seen[:moves])[:, seat], np.stack(stacks))


def test_the_opponent_must_fit_the_game() -> None:
    for players, opponent in ((1, first_legal), (2, None)):
        with pytest.raises(ValueError, match="an opponent is needed exactly for two"):
            play_episodes(
                lambda _, players=players: ScriptedEnvironment(0, (3,), players=players),
                last_legal,
                episodes=1,
                seed=0,
                frame_stack=1,
                protocol=PROTOCOL,
                opponent=opponent,
            )


def test_environments_are_closed_whatever_happens() -> None:
    made: list[ScriptedEnvironment] = []

    def make(_: bool) -> Environment:
        made.append(ScriptedEnvironment(len(made), (3, 5)))
        return made[-1]

    def failing(observations: Array, legal: BoolArray) -> IntArray:
        del observations, legal
        raise RuntimeError("no weights")

    for policy in (last_legal, failing):
        made.clear()
        arguments: dict[str, Any] = {"episodes": 3, "seed": 0, "frame_stack": 1, "protocol": PROTOCOL}
        if policy is failing:
            with pytest.raises(RuntimeError, match="no weights"):
                play_episodes(make, policy, **arguments)
        else:
            play_episodes(make, policy, **arguments)
        assert len(made) == 3
        assert all(environment.closed for environment in made)


def test_minimax_never_loses_and_random_sometimes_does() -> None:
    def against(opponent: str) -> Array:
        return play_episodes(
            lambda _: make_environment(EnvConfig(kind="openspiel", id="tic_tac_toe")),
            random_policy(1),
            episodes=60,
            seed=0,
            frame_stack=1,
            protocol=PROTOCOL,
            opponent=make_opponent(opponent, 0),
        ).returns

    exact, chance = against("minimax"), against("random")
    assert exact.max() <= 0.0
    assert exact[0::2].min() == exact[1::2].min() == -1.0  # it wins from both seats
    assert {-1.0, 1.0} <= set(chance.tolist())


def test_random_policy_is_uniform_over_legal_actions() -> None:
    legal = np.tile(np.array([[True, False, True, True], [False, True, False, False]]), (900, 1))
    actions = random_policy(3)(np.zeros((1800, 1)), legal)
    assert (actions[1::2] == 1).all()
    counts = np.bincount(actions[0::2], minlength=4)
    assert counts[1] == 0
    assert (abs(counts[[0, 2, 3]] - 300) < 5 * np.sqrt(900 / 3 * 2 / 3)).all()


def trained(config: Config) -> Evaluator:
    evaluator = Evaluator(config, probe(config))
    evaluator.load(build_learner(config, probe(config)).weights())
    return evaluator


def test_evaluations_repeat_and_do_not_depend_on_what_was_played_before() -> None:
    config = small_config(env={"id": "CartPole-v1", "max_moves": 40})
    evaluator = trained(config)
    first = evaluator.evaluate(episodes=6, seed=50)
    evaluator.evaluate(episodes=3, seed=7)
    again = evaluator.evaluate(episodes=6, seed=50)
    assert (
        first.returns.tolist()
        == again.returns.tolist()
        == trained(config).evaluate(episodes=6, seed=50).returns.tolist()
    )
    # Each episode is a game of its own: alone, side by side, or as part of a longer evaluation.
    later = trained(config).evaluate(episodes=4, seed=52)
    assert later.returns.tolist() == first.returns[2:].tolist()


def test_evaluations_may_weigh_values_otherwise_than_self_play() -> None:
    """Nothing but the weight of values differs: they play as a run does that has it in its self-play, too."""
    env = {"id": "CartPole-v1", "max_moves": 40}
    bold = {"kind": "gumbel", "simulations": 8, "c_scale": 30.0}
    timid = small_config(env=env, search=bold | {"c_scale": 1e-3})
    task = probe(timid)
    # Fresh weights give all positions the same value.
    weights = np.random.default_rng(0).normal(0.0, 0.5, build_learner(timid, task).weights().size).astype(np.float32)

    def returns(config: Config) -> list[float]:
        evaluator = Evaluator(config, task)
        evaluator.load(weights)
        return evaluator.evaluate(episodes=8, seed=3).returns.tolist()

    assert (
        returns(timid.override({"evaluation.c_scale": 30.0}))
        == returns(small_config(env=env, search=bold))
        != returns(timid)
    )


def test_the_random_baseline_plays_as_long_as_random_play_does() -> None:
    """Uniform pushes keep CartPole up for 22 moves in the mean, standard deviation 12 (10^5 games)."""
    result = trained(small_config(env={"id": "CartPole-v1"})).evaluate_random(episodes=100, seed=0)
    assert abs(result.mean - 22.2) < 5 * 12 / 10
    assert result.returns.tolist() == result.lengths.tolist()


def test_the_evaluator_plays_the_opponent_it_was_given() -> None:
    config = small_config("tictactoe")
    exact = trained(config.override({"evaluation.opponent": "minimax"})).evaluate(episodes=10, seed=0)
    assert exact.returns.max() <= 0.0
    assert exact.protocol.opponent == "minimax"
    assert "against minimax on both sides" in exact.protocol.describe()
    assert trained(config).protocol.opponent == "random"
    assert trained(small_config()).protocol.opponent is None


def test_a_protocol_is_what_scores_depend_on() -> None:
    def digest(config: Config, num_players: int = 1) -> str:
        spec = EnvSpec("test", (4,), "float32", 2, num_players, max_moves=500)
        return evaluation_protocol(config, spec).digest

    cartpole, breakout, board = small_config(), small_config("breakout"), small_config("tictactoe")
    base = digest(cartpole)
    assert digest(small_config(search={"simulations": 5})) != base
    assert digest(small_config(evaluation={"simulations": 5})) != base
    assert digest(small_config(search={"simulations": 9}, evaluation={"simulations": 4})) == base
    assert digest(small_config(search={"kind": "puct"})) != base
    assert digest(small_config(env={"id": "CartPole-v1", "max_moves": 61})) != base
    assert (
        digest(small_config(env={"id": "CartPole-v1", "max_moves": 60, "kwargs": {"sutton_barto_reward": True}}))
        != base
    )
    # What concerns training alone does not count: those scores may be compared.
    assert digest(small_config(learner={"lr": 0.5}, run={"seed": 9}, evaluation={"episodes": 99})) == base

    def atari(**changes: Any) -> Config:
        env = breakout.env.model_dump()
        return small_config("breakout", env=env | {"atari": env["atari"] | changes})

    assert digest(atari()) == digest(breakout) != base
    assert digest(atari(terminal_on_life_loss=True)) == digest(breakout)
    assert digest(atari(sticky_actions=0.0)) != digest(breakout)
    assert digest(atari(frame_skip=3)) != digest(breakout)
    assert digest(board, num_players=2) != digest(board.override({"evaluation.opponent": "minimax"}), num_players=2)
    opened = board.model_copy(update={"env": board.env.model_copy(update={"opening_moves": 4})})
    assert digest(opened, num_players=2) == digest(board, num_players=2)
    assert digest(cartpole.override({"evaluation.opponent": "minimax"})) == base  # nobody there to play against
    assert digest(cartpole.override({"evaluation.simulations": 5})) == digest(small_config(search={"simulations": 5}))


def test_the_first_episode_is_filmed(tmp_path: Path) -> None:
    config = small_config("breakout", env=small_config("breakout").env.model_dump() | {"max_moves": 6})
    result = trained(config).evaluate(episodes=2, seed=0, record=True)
    assert result.video is not None
    file = tmp_path / "video.mp4"
    file.write_bytes(result.video)
    frames = imageio.v3.imread(file)
    assert len(frames) == 7  # the first state and one after each move
    height, width = frames.shape[1:3]
    assert abs(height / width - 210 / 160) < 0.1
    assert frames.std() > 1.0
