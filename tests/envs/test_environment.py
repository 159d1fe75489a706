"""The guarded boundary: what an environment does wrong never gets past it, and games can be taken up again."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from muzero_ray.config.schema import EnvConfig
from muzero_ray.envs.environment import CheckedEnvironment
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import EnvironmentFault


def make(package: str, *, max_moves: int | None = None, **kwargs: bool | int | float | str) -> CheckedEnvironment:
    return make_environment(EnvConfig(id=f"{package}:Walk-v0", kwargs=kwargs, max_moves=max_moves))


@pytest.mark.parametrize(
    ("fault", "expected", "got"),
    [
        ("dtype", "float32 (3,)", "float64 (3,)"),
        ("shape", "float32 (3,)", "float32 (2,)"),
        ("list", "float32 (3,)", "list [2.0, 1.0, 0.0]"),
        ("nan", "finite numbers", "nan at [1]"),
        ("inf", "finite numbers", "-inf at [2]"),
        ("reward nan", "a finite number", "nan"),
        ("reward inf", "a finite number", "inf"),
        ("reward text", "one number", "str 'one'"),
        ("reward array", "one number", "float64 (2,)"),
        ("reward none", "one number", "NoneType None"),
        ("done int", "True or False", "int 1"),
        ("truncated none", "True or False", "NoneType None"),
        ("info", "a dict", "NoneType None"),
        ("mask shape", "(3,)", "int8 (2,)"),
        ("mask empty", "at least one", "none"),
        ("four", "(observation, reward, terminated, truncated, info)", "tuple ("),
        ("raises", "none", "ZeroDivisionError: lives / 0"),
    ],
)
def test_a_misbehaving_environment_is_named_with_what_was_expected_and_got(
    user_package: str, fault: str, expected: str, got: str
) -> None:
    env = make(user_package, fault=fault)
    env.reset(7)
    env.step(1)
    with pytest.raises(EnvironmentFault) as caught:
        env.step(1)
    message = str(caught.value)
    assert message.startswith("environment their_games:Walk-v0 (seed 7, step 2): ")
    assert re.search(rf"expected .*{re.escape(expected)}.*, got .*{re.escape(got)}", message), message
    with pytest.raises(EnvironmentFault, match="step without a game in progress"):
        env.step(1)
    assert env.reset(7).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("fault", "got"), [("reset", "float32 (3,)"), ("reset raises", "RuntimeError: no board")], ids=["shape", "raise"]
)
def test_faults_of_reset(user_package: str, fault: str, got: str) -> None:
    with pytest.raises(EnvironmentFault, match=re.escape(got)) as caught:
        make(user_package, fault=fault).reset(3)
    assert "their_games:Walk-v0 (seed 3, step 0)" in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("action", [-1, 3, 99, 1.0, "1", True, None, np.float32(1)])
def test_actions_out_of_range_never_reach_the_environment(user_package: str, action: object) -> None:
    env = make(user_package)
    env.reset(0)
    with pytest.raises(EnvironmentFault, match=r"expected an integer in \[0, 3\), got") as caught:
        env.step(action)  # type: ignore[arg-type]
    assert repr(action) in str(caught.value)
    # It was refused before anything happened, so the game goes on.
    assert env.step(np.int32(2)).observation.tolist() == [1, 2, 0]


def test_action_masks_are_kept_to(user_package: str) -> None:
    env = make(user_package, fault="mask")
    env.reset(0)
    assert env.legal_actions().tolist() == [True] * 3
    env.step(0)
    env.step(0)
    other = make(user_package, fault="mask")
    other.restore(env.save())
    for same in (env, other):
        assert same.legal_actions().tolist() == [False, True, False]
        with pytest.raises(EnvironmentFault, match=r"illegal action: expected one of \[1\], got 2"):
            same.step(2)


def test_step_needs_a_live_game(user_package: str) -> None:
    env = make(user_package)
    for call in (lambda: env.step(0), env.save):
        with pytest.raises(EnvironmentFault, match="expected a call of reset before"):
            call()
    env.reset(0)
    steps = [env.step(0) for _ in range(10)]
    assert [step.terminated for step in steps] == [False] * 9 + [True]
    assert not env.legal_actions().any()
    with pytest.raises(EnvironmentFault, match="step without a game in progress"):
        env.step(0)


def test_max_moves_truncates_and_termination_wins(user_package: str) -> None:
    env = make(user_package, max_moves=4)
    for _ in range(2):
        env.reset(0)
        ends = [env.step(0)[2:] for _ in range(4)]
        assert ends == [(False, False)] * 3 + [(False, True)]
        assert env.legal_actions().all()  # the state still has a value: it can be searched
        with pytest.raises(EnvironmentFault, match="step without a game in progress"):
            env.step(0)
    env = make(user_package, max_moves=10)
    env.reset(0)
    assert [env.step(0) for _ in range(10)][-1][2:] == (True, False)


def test_observations_are_copies(user_package: str) -> None:
    """The environment writes all its observations into one array."""
    env = make(user_package)
    frames = [env.reset(0)] + [env.step(1).observation for _ in range(3)]
    assert [frame[0] for frame in frames] == [0, 1, 2, 3]


def test_scalar_rewards_of_any_kind_become_floats(user_package: str) -> None:
    env = make(user_package, fault="reward 0-d")
    env.reset(0)
    env.step(0)
    reward = env.step(0).reward
    assert (type(reward), reward) == (float, 2.5)


def test_restore_continues_counts_and_state(user_package: str) -> None:
    env, other = make(user_package, max_moves=6), make(user_package, max_moves=6)
    env.reset(0)
    for _ in range(5):
        env.step(1)
    saved = json.loads(json.dumps(env.save()))
    assert other.restore(saved).tolist() == [5, 1, 0]
    assert other.step(2)[2:] == env.step(2)[2:] == (False, True)
    # A finished game comes back finished.
    assert other.restore(json.loads(json.dumps(env.save()))).tolist() == [6, 2, 0]
    with pytest.raises(EnvironmentFault, match="step without a game"):
        other.step(0)


def test_restore_notices_a_game_that_took_another_course(user_package: str) -> None:
    env = make(user_package, fault="noise")
    env.reset(0)
    env.step(0)
    env.step(0)
    with pytest.raises(EnvironmentFault, match="replaying the seed and actions of a game led elsewhere"):
        env.restore(env.save())
    with pytest.raises(EnvironmentFault, match="a game of another environment"):
        make_environment(EnvConfig()).restore(env.save())
