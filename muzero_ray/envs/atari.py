"""Atari games of the Arcade Learning Environment, preprocessed as gymnasium's AtariPreprocessing does.

The emulator is driven directly: pixel for pixel the frames of AtariPreprocessing over `ALE/X-v5` with `frameskip=1`
(a test compares them), without fetching the RGB screen at each of the skipped frames.

Sticky actions are drawn here and not by the emulator, whose generator can only be seeded by loading the ROM again: 66
ms of CPU for each game. They are distributed as gymnasium's, but a seed draws others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import ale_py
import cv2
import numpy as np
from ale_py import roms

from muzero_ray.config.schema import AtariConfig
from muzero_ray.envs.environment import BrokenContract, describe
from muzero_ray.errors import ConfigError
from muzero_ray.types import Array, BoolArray, EnvSpec, EnvStep

MAX_FRAMES = 108_000  # 30 minutes of play, the limit used throughout the literature; shows as truncated
SETTINGS = {
    "frameskip": "env.atari.frame_skip",
    "repeat_action_probability": "env.atari.sticky_actions",
    "obs_type": "env.atari.grayscale",
}
FIXED = ("game", "continuous", "continuous_action_threshold", "render_mode", "sound_obs")
CONTINUE = -1  # in the action log: a reset that went on with the same game after a lost life
STICKY_DRAWS = "adapter"  # in a saved game: who drew the sticky actions; older ones do not say, it was the emulator


class Position(NamedTuple):
    """A game as it stands. held: the button that may stick. fire_due: FIRE stands in for the next action."""

    emulator: Any
    held: Any
    fire_due: bool


class AtariSpaces:
    """See OwnSpaces: what gymnasium's AtariPreprocessing shows of `ALE/X-v5`, and its actions."""

    def __init__(self, game: str, shape: tuple[int, ...]) -> None:
        self._game, self._shape = game, shape

    def frame(self, observation: Any) -> Array:
        """See OwnSpaces. Gray `(S, S)` or `(S, S, 1)`, or RGB `(S, S, 3)`; channels first will do as well."""
        raw, (channels, size, _) = np.asarray(observation), self._shape
        flat = channels == 1 and raw.shape in ((size, size), (size, size, 1))
        if raw.dtype == np.uint8 and flat:
            return np.array(raw.reshape(self._shape))
        if raw.dtype == np.uint8 and raw.shape == self._shape:
            return np.array(raw)
        if raw.dtype == np.uint8 and raw.shape == (size, size, channels):
            return np.array(np.moveaxis(raw, -1, 0), order="C")
        raise ValueError(
            f"observation of {self._game}: expected uint8 {(size, size) if channels == 1 else (size, size, 3)} as "
            f"gymnasium's AtariPreprocessing shows with screen_size={size}, got {describe(raw)}"
        )

    def legal(self, observation: Any) -> None:
        """See OwnSpaces: all actions always are."""

    def action(self, index: int) -> int:
        """See OwnSpaces."""
        return index


class AtariEnvironment:
    """Adapter of one game; use it inside a CheckedEnvironment. Frames: uint8 `(1, S, S)` gray or `(3, S, S)` RGB.

    With life_loss, a lost life is `terminated`; the next `reset` then plays one no-op in the same game instead of
    starting another, so that all of the game is seen. Its seed argument is not used then.
    """

    def __init__(self, game: str, config: AtariConfig, kwargs: Mapping[str, Any], *, life_loss: bool = False) -> None:
        """game: a name of `registry.atari_games()`. kwargs: of ale_py.AtariEnv (`mode`, `difficulty`, ...)."""
        for key in kwargs:
            if key in SETTINGS:
                raise ConfigError(f"env.kwargs.{key}={kwargs[key]!r} has a setting of its own. Use {SETTINGS[key]}")
            if key in FIXED:
                raise ConfigError(f"env.kwargs.{key}={kwargs[key]!r} cannot be set for Atari games. Leave it out")
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner for each emulator
        cv2.setNumThreads(0)  # one core per environment process; OpenCV would take them all
        options = {"max_num_frames_per_episode": MAX_FRAMES, "full_action_space": False, **kwargs}
        try:
            self._env = ale_py.AtariEnv(game=_rom(game), frameskip=1, repeat_action_probability=0.0, **options)
        except (TypeError, RuntimeError) as error:
            raise ConfigError(f"env.id={game} cannot be made with env.kwargs={dict(kwargs)}: {error}") from error
        self._ale = self._env.ale
        self._loaded = self._ale.cloneState()
        self._sticky, self._held = config.sticky_actions, ale_py.Action.NOOP
        self._skip, self._noop_max, self._life_loss = config.frame_skip, config.noop_max, life_loss
        self._gray, self._size = config.grayscale, config.image_size
        self._action_set = list(self._env._action_set)
        shape = (1 if self._gray else 3, self._size, self._size)
        frames = int(options["max_num_frames_per_episode"])  # 0: no limit
        longest = math.ceil(frames / self._skip) if frames else None
        note = "uint8 0..255, scaled by 255"
        self.spec = EnvSpec(game, shape, "uint8", len(self._action_set), max_moves=longest, note=note)
        self.spaces = AtariSpaces(game, shape)
        self._all_legal = np.ones(self.spec.num_actions, np.bool_)
        self._all_legal.flags.writeable = False
        screen = self._ale.getScreenDims() + (() if self._gray else (3,))
        self._screens = [np.zeros(screen, np.uint8), np.zeros(screen, np.uint8)]
        self._seed = 0
        self._log: list[int] = []
        self._lost_a_life = False
        self._fire = config.fire_to_start and ale_py.Action.FIRE in self._action_set
        self._fire_due = False

    @property
    def goes_on(self) -> bool:
        """Whether a life was lost, so that `reset` goes on with the same game."""
        return self._lost_a_life

    def reset(self, seed: int) -> Array:
        """See Environment."""
        if self._lost_a_life:
            self._log.append(CONTINUE)
            _, terminated, truncated = self._continue()
            if not (terminated or truncated):
                return self._frame()
        self._start(seed)
        return self._frame()

    def step(self, action: int) -> EnvStep:
        """See Environment."""
        self._log.append(action)
        reward, terminated, truncated = self._advance(self._action_set[action])
        return EnvStep(self._frame(), reward, terminated, truncated)

    def legal_actions(self) -> BoolArray:
        """See Environment."""
        return self._all_legal

    def to_play(self) -> int:
        """See Environment."""
        return 0

    def render(self) -> Array | None:
        """The emulator's RGB screen, `[210, 160, 3]` for most games."""
        screen: Array = self._ale.getScreenRGB()
        return screen

    def save(self) -> dict[str, Any]:
        """See Environment. The log spans all lives: back to where the game really began."""
        return {"seed": self._seed, "actions": list(self._log), "sticky_draws": STICKY_DRAWS}

    def restore(self, saved: dict[str, Any]) -> Array:
        """See Environment. About 3,000 steps a second: no frame but the last is resized."""
        drawn_by = saved.get("sticky_draws", "emulator")
        if self._sticky and drawn_by != STICKY_DRAWS:
            raise BrokenContract(
                "this game with sticky actions was saved by an older version, which drew them in another way, so it "
                "cannot be replayed",
                expected=f"sticky_draws={STICKY_DRAWS}",
                got=drawn_by,
            )
        self._start(int(saved["seed"]))
        for action in saved["actions"]:
            self._log.append(int(action))
            if action == CONTINUE:
                self._continue()
            else:
                self._advance(self._action_set[action])
        return self._frame()

    def lives(self) -> int:
        """That are left."""
        return int(self._ale.lives())

    def position(self) -> Position:
        """The game as it stands, for `go_on_from`; 0.05 ms."""
        return Position(self._ale.cloneState(), self._held, self._fire_due)

    def go_on_from(self, position: Position) -> None:
        """Continue from there, in this or another environment of the same game and settings.

        Chance to come is this environment's. `save` and `restore` know nothing of it.
        """
        self._ale.restoreState(position.emulator)
        self._held, self._fire_due = position.held, position.fire_due
        self._lost_a_life = False

    def close(self) -> None:
        """See Environment."""
        self._env.close()

    def _start(self, seed: int) -> None:
        """A new game, then 1 to noop_max single-frame no-ops."""
        self._seed, self._log, self._lost_a_life = seed, [], False
        self._fire_due = self._fire
        self._power_on(seed)
        noops = int(self._env.np_random.integers(1, self._noop_max + 1)) if self._noop_max else 0
        for _ in range(noops):
            self._act(ale_py.Action.NOOP)
            if self._ale.game_over():
                self._power_on(seed)
        self._grab(0)
        self._screens[1].fill(0)
        self._pool()

    def _power_on(self, seed: int) -> None:
        """The first frame of the game, the same for all seeds, as if the ROM had just been loaded.

        Restoring the first frame itself would not do: the screen is not part of the emulator's state, and Q*bert and
        Tetris then take another course.
        """
        self._ale.restoreState(self._loaded)
        self._ale.reset_game()
        self._env.seed_game(seed)
        self._held = ale_py.Action.NOOP

    def _act(self, action: Any) -> float:
        """One frame; with probability `sticky_actions` the button of the frame before is held instead."""
        if not self._sticky or self._env.np_random.random() >= self._sticky:
            self._held = action
        reward: float = self._ale.act(self._held, 1.0)
        return reward

    def _continue(self) -> tuple[float, bool, bool]:
        self._lost_a_life = False
        reward, _, truncated = self._advance(ale_py.Action.NOOP)
        # A second life lost during the no-op is not a reason for a game without steps.
        self._lost_a_life = False
        return reward, self._ale.game_over(with_truncation=False), truncated

    def _advance(self, action: Any) -> tuple[float, bool, bool]:
        """`frame_skip` frames of one action: (summed reward, terminated, truncated)."""
        if self._fire_due:
            action, self._fire_due = ale_py.Action.FIRE, False
        reward, lives = 0.0, self._ale.lives()
        over = truncated = lost = False
        for frame in range(self._skip):
            reward += self._act(action)
            over, truncated = self._ale.game_over(with_truncation=False), self._ale.game_truncated()
            lost = self._life_loss and self._ale.lives() < lives
            if over or truncated or lost:
                break
            if frame >= self._skip - 2:
                self._grab(self._skip - 1 - frame)
        self._pool()
        self._fire_due = self._fire and self._ale.lives() < lives
        self._lost_a_life = lost and not (over or truncated)
        return reward, over or lost, truncated

    def _grab(self, index: int) -> None:
        if self._gray:
            self._ale.getScreenGrayscale(self._screens[index])
        else:
            self._ale.getScreenRGB(self._screens[index])

    def _pool(self) -> None:
        """Maximum of the last two frames: many games draw a sprite only on every other one."""
        if self._skip > 1:
            np.maximum(self._screens[0], self._screens[1], out=self._screens[0])

    def _frame(self) -> Array:
        image = cv2.resize(self._screens[0], (self._size, self._size), interpolation=cv2.INTER_AREA)
        planes = image[None] if self._gray else image.transpose(2, 0, 1)
        return np.array(planes, np.uint8, order="C")


@functools.cache
def _roms_by_name() -> dict[str, str]:
    return {rom.title().replace("_", ""): rom for rom in roms.get_all_rom_ids()}


def _rom(game: str) -> str:
    return _roms_by_name()[game]
