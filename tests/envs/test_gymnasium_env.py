"""Gymnasium ids, observation conversion, and the messages for what cannot be used."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from muzero_ray.config.schema import EnvConfig
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import ConfigError, EnvironmentFault


def test_cartpole_is_gymnasiums_cartpole() -> None:
    env, reference = make_environment(EnvConfig(id="CartPole-v1")), gymnasium.make("CartPole-v1")
    assert (env.spec.observation_shape, env.spec.observation_dtype, env.spec.num_actions) == ((4,), "float32", 2)
    assert (env.spec.num_players, env.to_play(), env.render()) == (1, 0, None)
    rng = np.random.default_rng(0)
    for seed in range(3):
        np.testing.assert_array_equal(env.reset(seed), reference.reset(seed=seed)[0])
        over = False
        while not over:
            action = int(rng.integers(2))
            step, (frame, reward, terminated, truncated, _) = env.step(action), reference.step(action)
            np.testing.assert_array_equal(step.observation, frame)
            assert step[1:] == (reward, terminated, truncated)
            over = terminated or truncated


def test_time_limit_is_a_truncation_and_a_fall_is_not() -> None:
    env = make_environment(EnvConfig(kwargs={"max_episode_steps": 5}))
    env.reset(0)
    assert [env.step(i % 2)[2:] for i in range(5)] == [(False, False)] * 4 + [(False, True)]

    env = make_environment(EnvConfig())
    env.reset(0)
    moves = 1
    while not (step := env.step(0)).terminated:
        moves += 1
    assert (step.terminated, step.truncated) == (True, False)
    # Falling on the very step of the limit is a fall: nothing can be earned any more.
    env = make_environment(EnvConfig(kwargs={"max_episode_steps": moves}))
    env.reset(0)
    assert [env.step(0) for _ in range(moves)][-1][2:] == (True, False)


def test_a_saved_game_of_cartpole_restores_exactly() -> None:
    env, other = make_environment(EnvConfig()), make_environment(EnvConfig())
    env.reset(11)
    for i in range(8):
        frame = env.step(i % 2).observation
    saved = json.loads(json.dumps(env.save()))
    other.reset(5)
    np.testing.assert_array_equal(other.restore(saved), frame)
    for i in range(6):
        ours, theirs = env.step(i % 2), other.step(i % 2)
        np.testing.assert_array_equal(ours.observation, theirs.observation)
        assert ours[1:] == theirs[1:]


def test_rendering() -> None:
    env = make_environment(EnvConfig(), render=True)
    env.reset(0)
    picture = env.render()
    assert picture is not None
    assert (picture.dtype, picture.shape) == (np.uint8, (400, 600, 3))
    assert picture.std() > 0
    env.close()


def test_a_users_package_needs_nothing_edited(user_package: str) -> None:
    env = make_environment(EnvConfig(id=f"{user_package}:Walk-v0", kwargs={"low": 5, "n": 4}), render=True)
    assert (env.spec.name, env.spec.num_actions) == ("their_games:Walk-v0", 4)
    env.reset(0)
    # Discrete(4, start=5): the search counts from 0, the environment from 5.
    assert [env.step(action).observation[1] for action in range(4)] == [5, 6, 7, 8]
    assert env.render() is None


@pytest.mark.parametrize(
    ("shape", "dtype", "expected_shape", "expected_dtype"),
    [
        ("5", "float64", (5,), "float32"),
        ("5", "int64", (5,), "float32"),
        ("5", "uint8", (5,), "float32"),
        ("6,7", "uint8", (1, 6, 7), "uint8"),
        ("6,7,3", "uint8", (3, 6, 7), "uint8"),
        ("6,7,1", "uint8", (1, 6, 7), "uint8"),
        ("3,6,7", "uint8", (3, 6, 7), "uint8"),
        ("6,7,3", "float32", (3, 6, 7), "float32"),
        ("6,7", "float64", (1, 6, 7), "float32"),
        ("6,7,4", "bool", (4, 6, 7), "uint8"),
    ],
)
def test_observations_become_vectors_or_channels_first_images(
    user_package: str, shape: str, dtype: str, expected_shape: tuple[int, ...], expected_dtype: str
) -> None:
    env = make_environment(EnvConfig(id=f"{user_package}:Picture-v0", kwargs={"shape": shape, "dtype": dtype}))
    assert (env.spec.observation_shape, env.spec.observation_dtype) == (expected_shape, expected_dtype)
    frame = env.reset(0)
    assert frame.flags.c_contiguous
    axes = [int(n) for n in shape.split(",")]
    for index in np.ndindex(*axes):
        value = float(np.ravel_multi_index(index, axes))  # what the environment put there
        if dtype == "bool":
            value = 255.0 * (value > 0)
        if shape == "5" and dtype in ("uint8", "int64"):  # as their bounds say
            value = np.float32(value) / np.float32(255)
        place = index if len(axes) == 1 or shape == "3,6,7" else (*([index[2]] if len(axes) == 3 else [0]), *index[:2])
        assert frame[place] == value


def test_minatar() -> None:
    pytest.importorskip("minatar")
    env = make_environment(EnvConfig(id="MinAtar/Breakout-v1"), render=True)
    assert (env.spec.observation_shape, env.spec.observation_dtype, env.spec.num_actions) == ((4, 10, 10), "uint8", 3)
    reference = gymnasium.make("MinAtar/Breakout-v1")
    frame, raw = env.reset(3), reference.reset(seed=3)[0]
    for action in (0, 1, 2, 1, 1, 0):
        np.testing.assert_array_equal(frame / 255, np.transpose(raw, (2, 0, 1)))
        step, (raw, reward, terminated, _, _) = env.step(action), reference.step(action)
        frame = step.observation
        assert step[1:3] == (reward, terminated)
    picture = env.render()
    assert picture is not None
    assert picture.shape == (240, 240, 3)
    lit = picture.reshape(10, 24, 10, 24, 3).any(axis=(1, 3, 4))
    np.testing.assert_array_equal(lit, frame.any(axis=0))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("CartPool-v1", ["CartPole-v1"]),
        ("Cartpole-v1", ["CartPole-v1"]),
        ("CartPole-v9", ["CartPole-v1"]),
        ("MinAtari/Breakout-v1", ["Nearest"]),
        ("nowhere_pkg:Thing-v0", ["module 'nowhere_pkg'", "PYTHONPATH"]),
        ("what is this", ["Malformed"]),
        ("Pendulum-v1", ["action space Box", "Supported: Discrete"]),
        ("FrozenLake-v1", ["observation space Discrete(16)", "Supported: Box"]),
        ("Blackjack-v1", ["observation space Tuple", "Supported: Box"]),
    ],
)
def test_what_can_not_be_used_is_a_config_error_with_a_remedy(name: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"env.id={name}")) as caught:
        make_environment(EnvConfig(id=name))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "module", "remedy"),
    [
        ("LunarLander-v3", "Box2D", "pip install 'gymnasium[box2d]'"),
        ("MinAtar/Breakout-v1", "minatar", "pip install 'muzero-ray[minatar]'"),
    ],
)
def test_missing_packages_name_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, remedy: str
) -> None:
    for known in [known for known in gymnasium.registry if known.startswith("MinAtar/")]:
        monkeypatch.delitem(gymnasium.registry, known)
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == module or "box2d" in loaded]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=re.escape(remedy)):
        make_environment(EnvConfig(id=name))


def test_wrong_keyword_arguments(user_package: str) -> None:
    with pytest.raises(ConfigError, match="unexpected keyword argument 'lo'"):
        make_environment(EnvConfig(id=f"{user_package}:Walk-v0", kwargs={"lo": 1}))
    with pytest.raises(ConfigError, match=r"env\.kwargs\.render_mode='human' is set by muzero_ray"):
        make_environment(EnvConfig(kwargs={"render_mode": "human"}))
    with pytest.raises(EnvironmentFault, match="environment their_games:Walk-v0 could not be made: ValueError"):
        make_environment(EnvConfig(id=f"{user_package}:Walk-v0", kwargs={"n": -1}))


MISTAKES = """
import gymnasium


class Adds(gymnasium.Env):
    def __init__(self):
        1 + "1"


class Needs(gymnasium.Env):
    def __init__(self, size):
        pass


gymnasium.register("Adds-v0", Adds)
gymnasium.register("Needs-v0", Needs)
"""


def test_an_error_of_the_users_own_is_told_from_a_wrong_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "with_mistakes.py").write_text(MISTAKES)
    (tmp_path / "asks_wrongly.py").write_text("import gymnasium\ngymnasium.spec('Nothing-v0')\n")
    with pytest.raises(ConfigError, match=r"asks_wrongly:Mine-v0: importing it failed \(NameNotFound: .* Correct that"):
        make_environment(EnvConfig(id="asks_wrongly:Mine-v0"))
    with pytest.raises(EnvironmentFault, match=r"could not be made: TypeError: unsupported .*with_mistakes\.py:7$"):
        make_environment(EnvConfig(id="with_mistakes:Adds-v0"))
    with pytest.raises(ConfigError, match=r"refused env\.kwargs=\{\}: .* missing 1 required .* 'size'"):
        make_environment(EnvConfig(id="with_mistakes:Needs-v0"))
    for name in ("Adds-v0", "Needs-v0"):
        del gymnasium.registry[name]
