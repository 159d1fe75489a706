"""Gymnasium environments: any id with discrete actions and a box observation, `my_pkg:MyEnv-v0` included.

What the network sees, by the observation space:
- image, `(H, W)`, `(H, W, C)` or `(C, H, W)`: channels first. uint8 stays uint8; bool planes (MinAtar) become uint8 0
  and 255, a byte each, which the networks read as 0 and 1; any other type becomes float32. `env.channels` says where
  the channels are; unless it is set, they are the first axis if that is the shortest of three, else the last.
- vector `(D,)`: float32; bool becomes 0 and 1.
- integers are scaled by the bounds of the space (see `observations`).
`info["action_mask"]`, `[A]`, is honoured as the legal actions where an environment gives it.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec
from gymnasium.envs.registration import load_env_creator

from muzero_ray.envs.environment import BrokenContract, describe
from muzero_ray.envs.observations import ObservationReader
from muzero_ray.errors import ConfigError, EnvironmentFault
from muzero_ray.types import Array, BoolArray, EnvSpec, EnvStep
from muzero_ray.user_modules import imported, raised

RESERVED = ("render_mode", "disable_env_checker")


class GymnasiumSpaces:
    """See OwnSpaces."""

    def __init__(self, name: str, space: gymnasium.spaces.Box, reader: ObservationReader, first_action: int) -> None:
        self._name, self._space, self._reader, self._first_action = name, space, reader, first_action

    def frame(self, observation: Any) -> Array:
        """See OwnSpaces. Numbers of another type are converted if that loses nothing but precision."""
        raw, dtype = np.asarray(observation), np.dtype(self._space.dtype)
        if raw.shape != self._space.shape or not np.can_cast(raw.dtype, dtype, "same_kind"):
            wanted = f"{dtype} {self._space.shape} as its space says"
            raise ValueError(f"observation of {self._name}: expected {wanted}, got {describe(raw)}")
        try:
            return self._reader.read(raw.astype(dtype, copy=False))
        except BrokenContract as error:
            raise ValueError(f"observation of {self._name}: {error}") from None

    def legal(self, observation: Any) -> None:
        """See OwnSpaces: gymnasium says it beside the observation, in `info["action_mask"]`."""

    def action(self, index: int) -> int:
        """See OwnSpaces."""
        return index + self._first_action


class GymnasiumEnvironment:
    """Adapter of one gymnasium environment; use it inside a CheckedEnvironment."""

    def __init__(
        self,
        name: str,
        kwargs: Mapping[str, Any],
        *,
        render: bool = False,
        channels: Literal["auto", "first", "last"] = "auto",
        scaling: Literal["bounds", "bytes"] = "bounds",
    ) -> None:
        """name: gymnasium id, `module:id` included. kwargs: for gymnasium.make. channels, scaling: see EnvConfig.

        Raises ConfigError or EnvironmentFault.
        """
        if render:
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws into arrays: no display is needed
        self._env = _make(name, kwargs, render=render)
        self._render = self._env.render_mode == "rgb_array"
        try:
            self._space, self._first_action = _box(name, self._env), _first_action(name, self._env)
        except ConfigError:
            self._env.close()
            raise
        self._reader = ObservationReader(self._space, channels=channels, scaling=scaling)
        reader, num_actions = self._reader, int(self._env.action_space.n)  # type: ignore[attr-defined]
        limit = _time_limit(self._env)
        self.spaces = GymnasiumSpaces(name, self._space, reader, self._first_action)
        self.spec = EnvSpec(name, reader.shape, reader.dtype, num_actions, max_moves=limit, note=reader.note)
        self._all_legal = np.ones(self.spec.num_actions, np.bool_)
        self._all_legal.flags.writeable = False
        self._legal: BoolArray = self._all_legal
        self._seed = 0
        self._actions: list[int] = []
        self._raw: Array | None = None

    goes_on = False
    """See Environment."""

    def reset(self, seed: int) -> Array:
        """See Environment."""
        self._seed, self._actions = seed, []
        answer = self._env.reset(seed=seed)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise BrokenContract("reset", expected="(observation, info)", got=describe(answer))
        return self._take(*answer)

    def step(self, action: int) -> EnvStep:
        """See Environment."""
        self._actions.append(action)
        answer: Any = self._env.step(action + self._first_action)
        if not (isinstance(answer, tuple) and len(answer) == 5):
            wanted = "(observation, reward, terminated, truncated, info)"
            raise BrokenContract("step", expected=wanted, got=describe(answer))
        observation, reward, terminated, truncated, info = answer
        if isinstance(reward, np.ndarray) and reward.ndim == 0:
            reward = reward[()]
        return EnvStep(self._take(observation, info), reward, terminated, truncated)

    def legal_actions(self) -> BoolArray:
        """See Environment."""
        return self._legal

    def to_play(self) -> int:
        """See Environment."""
        return 0

    def render(self) -> Array | None:
        """The environment's own picture; for planes of booleans (MinAtar) one colour per plane."""
        if not self._render:
            return None
        if self._space.dtype == np.bool_ and self._raw is not None and self._raw.ndim == 3:
            return _draw_planes(self._raw)
        picture: Any = self._env.render()
        if not isinstance(picture, np.ndarray):
            raise BrokenContract("render", expected="uint8 (H, W, 3)", got=describe(picture))
        return picture

    def save(self) -> dict[str, Any]:
        """See Environment."""
        return {"seed": self._seed, "actions": list(self._actions)}

    def restore(self, saved: dict[str, Any]) -> Array:
        """See Environment."""
        frame = self.reset(int(saved["seed"]))
        for action in saved["actions"]:
            frame = self.step(int(action)).observation
        return frame

    def close(self) -> None:
        """See Environment."""
        self._env.close()

    def _take(self, raw: Any, info: Any) -> Array:
        """Check an observation against its space, before any conversion could hide a wrong type."""
        space = self._space
        if not isinstance(raw, np.ndarray) or raw.dtype != space.dtype or raw.shape != space.shape:
            wanted = f"{space.dtype} {space.shape} as its space says"
            raise BrokenContract("wrong observation", expected=wanted, got=describe(raw))
        if not isinstance(info, Mapping):
            raise BrokenContract("wrong info", expected="a dict", got=describe(info))
        self._legal = self._mask(info["action_mask"]) if "action_mask" in info else self._all_legal
        self._raw = raw
        return self._reader.read(raw)

    def _mask(self, mask: Any) -> BoolArray:
        given = np.asarray(mask)
        if given.shape != self._all_legal.shape or given.dtype.kind not in "bui":
            raise BrokenContract("info['action_mask']", expected=f"0/1 {self._all_legal.shape}", got=describe(mask))
        legal: BoolArray = given.astype(np.bool_)
        if given.dtype.kind != "b" and (given != legal).any():  # indices of actions, perhaps
            raise BrokenContract("info['action_mask']", expected="0 and 1 alone", got=str(given.tolist()))
        return legal


def _make(name: str, kwargs: Mapping[str, Any], *, render: bool) -> gymnasium.Env[Any, Any]:
    """gymnasium.make with the ways it can fail told apart."""
    if taken := sorted(set(kwargs) & set(RESERVED)):
        raise ConfigError(f"env.kwargs.{taken[0]}={kwargs[taken[0]]!r} is set by muzero_ray itself. Leave it out")
    spec = _find(name)
    try:
        creator: Any = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        modes = getattr(creator, "metadata", {}).get("render_modes") or []
        options = {**kwargs, "render_mode": "rgb_array"} if render and "rgb_array" in modes else dict(kwargs)
        # Checked more strictly by CheckedEnvironment; gymnasium's checker warns and costs time.
        return gymnasium.make(spec, disable_env_checker=True, **options)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise ConfigError(
            f"env.id={name} needs a package that is not installed: {_sentence(error)} {_remedy(spec)}"
        ) from error
    except Exception as error:
        if isinstance(error, TypeError) and (kwargs or not _is_from_within(error)):
            raise ConfigError(f"env.id={name} refused env.kwargs={dict(kwargs)}: {_sentence(error)}") from error
        # gymnasium raises a TypeError of a constructor once more
        raise EnvironmentFault(f"environment {name} could not be made: {raised(error.__cause__ or error)}") from error


def _is_from_within(error: TypeError) -> bool:
    """Whether the constructor raised it. Otherwise calling it did, with arguments that it does not take."""
    within = error.__cause__.__traceback__ if error.__cause__ is not None else None
    return within is not None and within.tb_next is not None


def _find(name: str) -> GymnasiumSpec:
    module, _, bare = name.rpartition(":")
    if module:
        imported(lambda: importlib.import_module(module), f"env.id={name}")
    elif bare not in gymnasium.registry:
        _register_plugins(bare)
    try:
        return gymnasium.spec(bare)
    except gymnasium.error.Error as error:
        near = difflib.get_close_matches(bare, list(gymnasium.registry), n=3, cutoff=0.5)
        hint = f"Nearest: {', '.join(near)}" if near else "No registered id is spelt like it"
        raise ConfigError(
            f"env.id={name} is not a registered gymnasium id: {_sentence(error)} {hint}. "
            "For an environment of your own write my_pkg:MyEnv-v0, where importing my_pkg registers MyEnv-v0"
        ) from error


def _register_plugins(bare: str) -> None:
    """Gymnasium loads no plugins by itself; these are the ones known by name."""
    import ale_py

    gymnasium.register_envs(ale_py)
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner for each emulator
    if bare.startswith("MinAtar/") and "MinAtar/Breakout-v1" not in gymnasium.registry:
        handlers = list(logging.root.handlers)
        try:
            remedy = "Install it: pip install 'muzero-ray[minatar]'"
            imported(lambda: importlib.import_module("minatar.gym"), f"env.id={bare}", remedy).register_envs()
        finally:
            # minatar.gym warns that seaborn is absent in a way that gives the root logger a handler; it is not needed.
            logging.root.handlers[:] = handlers


def _remedy(spec: GymnasiumSpec) -> str:
    place = str(spec.entry_point).removeprefix("gymnasium.envs.").partition(".")[0].replace("_", "-")
    if place in ("box2d", "mujoco", "classic-control", "toy-text"):
        return f"Install it: pip install 'gymnasium[{place}]'"
    return "Install what the environment's documentation asks for"


def _box(name: str, env: gymnasium.Env[Any, Any]) -> gymnasium.spaces.Box:
    space = env.observation_space
    if isinstance(space, gymnasium.spaces.Box) and 1 <= len(space.shape) <= 3 and 0 not in space.shape:
        return space
    raise ConfigError(
        f"env.id={name} has observation space {space}, which no network here can read. Supported: Box of one axis "
        "(vector), two (H, W) or three (H, W, C). Wrap the environment, for instance in gymnasium's FlattenObservation"
    )


def _first_action(name: str, env: gymnasium.Env[Any, Any]) -> int:
    space = env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.start)
    raise ConfigError(
        f"env.id={name} has action space {space}; the search needs a list of actions. Supported: Discrete. Wrap the "
        "environment so that it takes one (some have a keyword for it, as env.kwargs.continuous=False)"
    )


def _time_limit(env: gymnasium.Env[Any, Any]) -> int | None:
    """Steps after which gymnasium's own wrapper truncates a game; None without one."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            return int(env._max_episode_steps)
        env = env.env
    return None


def _sentence(error: Exception) -> str:
    text = str(error).strip()
    return text if text.endswith((".", "!", "?")) else text + "."


def _draw_planes(planes: Array, scale: int = 24) -> Array:
    """Colour `[H, W, C]` booleans, later planes over earlier ones, hues evenly apart, on black."""
    count = planes.shape[2]
    angle = 2 * np.pi * (np.arange(count)[:, None] / count + np.array([0.0, 1 / 3, 2 / 3]))
    colours = np.vstack([np.zeros(3), 127.5 + 127.5 * np.cos(angle)]).astype(np.uint8)
    top = np.max(planes * np.arange(1, count + 1), axis=2)
    picture: Array = colours[top].repeat(scale, axis=0).repeat(scale, axis=1)
    return picture
