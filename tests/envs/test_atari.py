"""Atari games against gymnasium's own AtariPreprocessing, exact restoring, lives and limits, names."""

from __future__ import annotations

import json
import random
from typing import Any

import ale_py
import gymnasium
import numpy as np
import pytest

from muzero_ray.config.schema import AtariConfig, EnvConfig
from muzero_ray.envs.atari import AtariEnvironment
from muzero_ray.envs.environment import CheckedEnvironment
from muzero_ray.envs.registry import atari_games, make_environment, resolve_game
from muzero_ray.errors import ConfigError, EnvironmentFault
from muzero_ray.types import EnvStep

OTHERS = random.Random(20240).sample(sorted(set(atari_games()) - {"Breakout"}), 3)


def make(game: str, *, evaluation: bool = False, max_moves: int | None = None, **atari: object) -> CheckedEnvironment:
    config = EnvConfig(kind="atari", id=game, max_moves=max_moves, atari=AtariConfig.model_validate(atari))
    return make_environment(config, evaluation=evaluation)


class Sticky(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Machado et al. 2018, section 5.2, frame by frame over an emulator without chance; drawn from the game's seed."""

    def __init__(self, env: gymnasium.Env[Any, Any], probability: float) -> None:
        super().__init__(env)
        self._probability = probability

    def reset(self, **kwargs: Any) -> Any:
        self._last = 0  # no-op
        return self.env.reset(**kwargs)

    def step(self, action: int) -> Any:
        if not self._probability or self.unwrapped.np_random.random() >= self._probability:
            self._last = action
        return self.env.step(self._last)


@pytest.mark.parametrize(
    ("game", "grayscale", "skip", "noops", "sticky", "steps"),
    [
        ("Breakout", True, 4, 0, 0.0, 350),  # past the end of the game
        ("Breakout", False, 4, 7, 0.25, 60),
        (OTHERS[0], True, 4, 30, 0.0, 60),
        (OTHERS[1], False, 3, 0, 0.0, 60),
        (OTHERS[2], True, 1, 0, 0.25, 100),
        ("Qbert", True, 4, 30, 0.25, 350),
    ],
)
def test_frames_rewards_and_ends_equal_atari_preprocessing(
    game: str, grayscale: bool, skip: int, noops: int, sticky: float, steps: int
) -> None:
    options = {"grayscale": grayscale, "frame_skip": skip, "noop_max": noops, "sticky_actions": sticky}
    env = make(game, image_size=96, **options)
    reference = gymnasium.wrappers.AtariPreprocessing(
        Sticky(gymnasium.make(f"ALE/{game}-v5", frameskip=1, repeat_action_probability=0.0), sticky),
        noop_max=noops,
        frame_skip=skip,
        screen_size=96,
        grayscale_obs=grayscale,
        grayscale_newaxis=True,
    )
    assert env.spec.observation_shape == (1 if grayscale else 3, 96, 96)
    assert env.spec.num_actions == reference.action_space.n  # type: ignore[attr-defined]
    rng = np.random.default_rng(1)
    frame, expected, games = env.reset(5), reference.reset(seed=5)[0], 0
    for step in range(steps):
        np.testing.assert_array_equal(frame, np.transpose(expected, (2, 0, 1)), err_msg=f"step {step}")
        action = int(rng.integers(env.spec.num_actions))
        ours, (expected, reward, terminated, truncated, _) = env.step(action), reference.step(action)
        frame = ours.observation
        assert ours[1:] == (reward, terminated, truncated)
        if terminated:
            games += 1
            np.testing.assert_array_equal(frame, np.transpose(expected, (2, 0, 1)), err_msg="last frame")
            frame, expected = env.reset(6), reference.reset(seed=6)[0]
    assert games > 0 or steps < 350


@pytest.mark.parametrize("game", ["Qbert", "Tetris", "Assault", "Koolaid", *OTHERS])
def test_a_game_depends_on_its_seed_alone_and_not_on_the_games_before(game: str) -> None:
    """The ROM is loaded once. The first four are games in which a shorter way than a whole reset leaves a trace."""
    options = {"sticky_actions": 0.25, "noop_max": 30}
    used, fresh = make(game, **options), make(game, **options)
    rng = np.random.default_rng(0)
    used.reset(1)
    play(used, rng.integers(used.spec.num_actions, size=150).tolist(), 1)
    np.testing.assert_array_equal(used.reset(2), fresh.reset(2))
    actions = rng.integers(used.spec.num_actions, size=100).tolist()
    assert_same(play(used, actions, 3), play(fresh, actions, 3))


def test_a_reset_loads_no_rom(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("Breakout")
    monkeypatch.setattr(ale_py.AtariEnv, "load_game", lambda _self: pytest.fail("the ROM was loaded again"))
    env.reset(1)
    env.step(1)
    env.reset(2)


def test_another_seed_draws_other_sticky_actions() -> None:
    env = make("Breakout", sticky_actions=0.25)
    actions = np.random.default_rng(0).integers(env.spec.num_actions, size=50).tolist()
    frames = []
    for seed in (7, 8, 7):
        env.reset(seed)
        frames.append([env.step(action).observation.tobytes() for action in actions])
    assert frames[0] == frames[2] != frames[1]


def test_modes_and_difficulties_survive_a_reset() -> None:
    options = {"mode": 4, "difficulty": 1}
    atari = AtariConfig(sticky_actions=0.0, noop_max=0, image_size=84)
    env = make_environment(EnvConfig(kind="atari", id="Breakout", kwargs=options, atari=atari))
    reference = gymnasium.wrappers.AtariPreprocessing(
        gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0, **options), noop_max=0
    )
    for seed in (1, 2):
        np.testing.assert_array_equal(env.reset(seed)[0], reference.reset(seed=seed)[0])
        for action in [1, 2, 3, 0] * 20:
            np.testing.assert_array_equal(env.step(action).observation[0], reference.step(action)[0])


def test_a_sticky_game_saved_by_an_older_version_is_refused_in_words() -> None:
    """Its sticky actions came from the emulator's own generator."""
    sticky, plain = make("Breakout", sticky_actions=0.25), make("Breakout", sticky_actions=0.0)
    for env in (sticky, plain):
        env.reset(3)
        env.step(1)
    saved = [json.loads(json.dumps(env.save())) for env in (sticky, plain)]
    for game in saved:
        del game["game"]["sticky_draws"]
    with pytest.raises(EnvironmentFault, match="with sticky actions was saved by an older version"):
        sticky.restore(saved[0])
    plain.restore(saved[1])
    sticky.reset(4)


def play(env: CheckedEnvironment, actions: list[int], seed: int) -> list[EnvStep]:
    """Steps, going on with `reset(seed)` wherever a game ends."""
    steps = []
    for action in actions:
        steps.append(env.step(action))
        if steps[-1].terminated or steps[-1].truncated:
            env.reset(seed)
    return steps


def assert_same(ours: list[EnvStep], theirs: list[EnvStep]) -> None:
    assert [step[1:] for step in ours] == [step[1:] for step in theirs]
    for left, right in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(left.observation, right.observation)


@pytest.mark.parametrize("life_loss", [False, True])
def test_a_saved_game_restores_a_sticky_game_exactly(life_loss: bool) -> None:
    options = {"sticky_actions": 0.25, "noop_max": 5, "terminal_on_life_loss": life_loss}
    env, other = make("Breakout", **options), make("Breakout", **options)
    rng = np.random.default_rng(0)
    actions = rng.integers(env.spec.num_actions, size=140).tolist()
    env.reset(9)
    before = play(env, actions, 9)
    assert any(step.terminated for step in before) == life_loss  # the log spans lives
    saved = json.loads(json.dumps(env.save()))
    other.reset(1)
    other.restore(saved)
    again = rng.integers(env.spec.num_actions, size=60).tolist()
    assert_same(play(env, again, 3), play(other, again, 3))


def lose_a_life(env: CheckedEnvironment) -> EnvStep:
    """Breakout: serve (1), then stand still."""
    for move in range(400):
        step = env.step(1 if move % 2 == 0 else 0)
        if step.terminated:
            return step
    raise AssertionError("no life was lost")


def test_a_game_goes_on_from_a_position_in_another_environment() -> None:
    """Frame by frame, the serve of the ball and the lives included."""
    first = make("Breakout", fire_to_start=True, sticky_actions=0.0)
    second = make("Breakout", fire_to_start=True, sticky_actions=0.0)
    first.reset(1)
    second.reset(2)
    inner, other = first.inner, second.inner
    assert isinstance(inner, AtariEnvironment)
    assert isinstance(other, AtariEnvironment)
    actions = np.random.default_rng(0).integers(inner.spec.num_actions, size=400).tolist()
    positions = []
    steps = []
    for action in actions:
        positions.append(inner.position())
        steps.append(first.step(action))
        if steps[-1].terminated:
            break
    for begin in (0, 7, len(steps) // 2):
        other.go_on_from(positions[begin])
        for action, step in zip(actions[begin:], steps[begin:], strict=False):
            again = other.step(action)
            assert np.array_equal(again.observation, step.observation)
            assert (again.reward, again.terminated) == (step.reward, step.terminated)


def test_a_lost_life_ends_the_targets_and_not_the_game() -> None:
    env = make("Breakout", sticky_actions=0.0, terminal_on_life_loss=True)
    first = env.reset(4)
    lives = []
    for seed in range(5):
        step = lose_a_life(env)
        assert step.terminated
        assert not step.truncated
        lives.append(env.inner._ale.lives())  # type: ignore[attr-defined]
        # A game saved between a lost life and the reset must know what that reset will do.
        copy = make("Breakout", sticky_actions=0.0, terminal_on_life_loss=True)
        copy.restore(json.loads(json.dumps(env.save())))
        frame = env.reset(100 + seed)
        np.testing.assert_array_equal(frame, copy.reset(100 + seed))
        assert (frame.tobytes() == first.tobytes()) == (seed == 4)  # only then the wall is whole and the score zero
    assert lives == [4, 3, 2, 1, 0]
    assert env.save()["game"] == {"seed": 104, "actions": [], "sticky_draws": "adapter"}


def test_fire_serves_once_per_life() -> None:
    """Standing still with `fire_to_start` is the game in which an agent presses FIRE first in each life, not later."""
    served = make("Breakout", evaluation=True, sticky_actions=0.0, fire_to_start=True)
    by_hand = make("Breakout", evaluation=True, sticky_actions=0.0)
    np.testing.assert_array_equal(served.reset(4), by_hand.reset(4))
    lives, fire, moves = 5, True, 0
    while lives:
        ours, theirs = served.step(0), by_hand.step(1 if fire else 0)
        np.testing.assert_array_equal(ours.observation, theirs.observation)
        assert ours[1:] == theirs[1:]
        left = by_hand.inner._ale.lives()  # type: ignore[attr-defined]
        fire, lives, moves = left < lives, left, moves + 1
    assert ours.terminated
    assert moves > 50
    # Without a FIRE button nothing changes; without serving, the ball never comes.
    make("Skiing", fire_to_start=True).reset(0)
    idle = make("Breakout", evaluation=True, sticky_actions=0.0, max_moves=400)
    idle.reset(4)
    assert [idle.step(0).truncated for _ in range(400)][-1]


def test_a_game_counts_as_one_episode_over_its_lives() -> None:
    env = make("Breakout", sticky_actions=0.0, fire_to_start=True, terminal_on_life_loss=True)
    env.reset(4)
    went_on = []
    for _ in range(5):
        while not env.step(0).terminated:
            pass
        went_on.append(env.goes_on)
        env.reset(5)
    assert went_on == [True, True, True, True, False]


def test_evaluation_plays_whole_games() -> None:
    env = make("Breakout", evaluation=True, sticky_actions=0.0, terminal_on_life_loss=True)
    env.reset(4)
    lose_a_life(env)
    assert env.inner._ale.lives() == 0  # type: ignore[attr-defined]


def test_limits_are_truncations() -> None:
    config = EnvConfig(kind="atari", id="Pong", kwargs={"max_num_frames_per_episode": 100})
    env = make_environment(config)
    env.reset(0)
    assert [env.step(0)[2:] for _ in range(25)] == [(False, False)] * 24 + [(False, True)]

    env = make("Breakout", max_moves=6, sticky_actions=0.0, terminal_on_life_loss=True)
    first = env.reset(0)
    assert [env.step(1)[2:] for _ in range(6)][-1] == (False, True)
    np.testing.assert_array_equal(env.reset(0), first)  # the next game is a new one: no life was lost


def test_an_action_out_of_range_is_refused() -> None:
    env = make("Breakout")
    env.reset(0)
    with pytest.raises(EnvironmentFault, match=r"environment Breakout \(seed 0, step 0\).*\[0, 4\), got 4"):
        env.step(4)


def test_emulators_are_silent_and_draw(capfd: pytest.CaptureFixture[str]) -> None:
    for config in (EnvConfig(kind="atari", id="Pong"), EnvConfig(id="ALE/Pong-v5")):
        env = make_environment(config, render=True)
        env.reset(0)
        picture = env.render()
        assert picture is not None
        assert (picture.dtype, picture.shape) == (np.uint8, (210, 160, 3))
        env.close()
    assert capfd.readouterr() == ("", "")


def test_every_game_is_known_by_name() -> None:
    for_two = {"combat", "joust", "maze_craze", "warlords"}
    snake = set(ale_py.roms.get_all_rom_ids()) - for_two
    assert len(snake) > 100
    assert {resolve_game(name) for name in snake} == set(atari_games())
    assert all(resolve_game(name) == name for name in atari_games())


@pytest.mark.parametrize("name", ["space_invaders", "SpaceInvaders", "SPACE INVADERS", "ALE/SpaceInvaders-v5"])
def test_names_are_read_tolerantly(name: str) -> None:
    assert resolve_game(name) == "SpaceInvaders"


@pytest.mark.parametrize(("name", "near"), [("Brekout", "Breakout"), ("pongg", "Pong"), ("MrsPacman", "MsPacman")])
def test_unknown_names_suggest_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"env.id={name} .*Nearest: .*{near}"):
        make_environment(EnvConfig(kind="atari", id=name))


def test_settings_of_the_emulator() -> None:
    for key, value in (("mode", 1212), ("modes", 1), ("frameskip", 4), ("continuous", True)):
        with pytest.raises(ConfigError, match=str(key)):
            make_environment(EnvConfig(kind="atari", id="Breakout", kwargs={key: value}))
    full = make_environment(EnvConfig(kind="atari", id="Breakout", kwargs={"full_action_space": True}))
    assert full.spec.num_actions == 18
