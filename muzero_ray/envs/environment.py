"""What an environment is to the rest of the program, and the guard that holds every environment to it.

Adapters (`gymnasium_env`, `atari`, `open_spiel`) translate; `CheckedEnvironment` alone decides what is a fault, words
it, and cuts games at `max_moves`. Gymnasium's own checker only warns, and then NaNs or wrong shapes reach the replay.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np

from muzero_ray.envs.crash_note import CrashNote
from muzero_ray.errors import EnvironmentFault
from muzero_ray.types import Array, BoolArray, EnvSpec, EnvStep

P = ParamSpec("P")
T = TypeVar("T")

# Built once: `isinstance` with a union written in place makes the union at every step.
_NUMBERS = (int, float, np.integer, np.floating, np.bool_)
_FLAGS = (bool, np.bool_)


class Environment(Protocol):
    """One game at a time. Frames are not stacked here: an observation is one frame, `spec.observation_shape`."""

    @property
    def spec(self) -> EnvSpec:
        """Shapes, number of actions and players; constant."""

    @property
    def goes_on(self) -> bool:
        """Whether `reset` will go on with the same game: a life was lost, and only its targets ended."""

    def reset(self, seed: int) -> Array:
        """Start a game and return its first frame. The seed, in [0, 2**32), decides everything random in the game."""

    def step(self, action: int) -> EnvStep:
        """Play `action`, in [0, spec.num_actions) and legal, for the player to move."""

    def legal_actions(self) -> BoolArray:
        """`[A]` bool, what the player to move may do; all False once terminated, and it may be once truncated. Not to
        be written to."""

    def to_play(self) -> int:
        """0 or 1: whose move it is; always 0 for one player."""

    def render(self) -> Array | None:
        """uint8 `[H, W, 3]` picture of the present state, or None if the environment has none (see `render=`)."""

    def save(self) -> dict[str, Any]:
        """JSON-able: seed and actions of the game in flight, enough for `restore` in another process."""

    def restore(self, saved: dict[str, Any]) -> Array:
        """Replay what `save` gave, of the same environment and settings. Returns its present frame."""

    def close(self) -> None:
        """Free what the environment holds; it cannot be used afterwards."""


class BrokenContract(Exception):
    """An adapter saw its environment do something wrong. `CheckedEnvironment` adds environment, seed and step."""

    def __init__(self, what: str, *, expected: str, got: str) -> None:
        super().__init__(f"{what}: expected {expected}, got {got}")


class CheckedEnvironment:
    """Wraps an adapter: EnvironmentFault instead of bad data, and truncation after `max_moves` steps.

    A fault names environment, seed, step, what was expected and what came. After one, only `reset` (or `restore`) is
    possible. The wrapped adapter is `inner`; `state` is its exact game state where there is one (OpenSpiel).
    """

    def __init__(self, inner: Environment, *, max_moves: int | None = None, note: CrashNote | None = None) -> None:
        """max_moves: truncate this many steps after `reset` (None: never). note: told of every call into `inner`."""
        self.inner = inner
        self._note = note
        self.spec = inner.spec
        self._dtype = np.dtype(inner.spec.observation_dtype)
        self._max_moves = max_moves
        self._nothing_legal = np.zeros(inner.spec.num_actions, np.bool_)
        self._nothing_legal.flags.writeable = False
        self._legal: BoolArray = self._nothing_legal
        self._seed: int | None = None
        self._moves = 0
        self._live = False
        self._terminated = False
        self._frame: Array | None = None

    @property
    def goes_on(self) -> bool:
        """Whether `reset` will go on with the same game: a life was lost, and only its targets ended."""
        return self.inner.goes_on

    @property
    def state(self) -> Any:
        """The adapter's `state` (a pyspiel.State), or None: for solvers that need the true game."""
        return getattr(self.inner, "state", None)

    def reset(self, seed: int) -> Array:
        """See Environment; raises EnvironmentFault."""
        self._seed, self._moves, self._live, self._terminated = seed, 0, False, False
        self._frame = self._observed(self._guarded("reset", self.inner.reset, seed))
        self._legal = self._allowed()
        self._live = True
        return self._frame

    def step(self, action: int) -> EnvStep:
        """See Environment; raises EnvironmentFault."""
        self._accept(action)
        self._live = False  # stays so if anything below is a fault
        self._moves += 1
        step = self._guarded("step", self.inner.step, int(action))
        self._frame = self._observed(step.observation)
        reward = self._rewarded(step.reward)
        terminated = self._flag(step.terminated, "terminated")
        truncated = self._flag(step.truncated, "truncated")
        # A game that is over has no value left to bootstrap from, whatever limit it ran into on the same step.
        truncated = not terminated and (truncated or self._moves == self._max_moves)
        self._terminated = terminated
        self._legal = self._nothing_legal if terminated else self._allowed(last=truncated)
        self._live = not (terminated or truncated)
        return EnvStep(self._frame, reward, terminated, truncated)

    def legal_actions(self) -> BoolArray:
        """See Environment. Asked of the adapter, and checked, once for every state."""
        return self._legal

    def to_play(self) -> int:
        """See Environment."""
        return self.inner.to_play()

    def render(self) -> Array | None:
        """See Environment; raises EnvironmentFault."""
        picture = self._guarded("render", self.inner.render)
        if picture is not None and (picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3):
            raise self._fault("render returned a wrong picture", "uint8 (H, W, 3)", describe(picture))
        return picture

    def save(self) -> dict[str, Any]:
        """See Environment. Holds a digest of the frame, so that `restore` notices a game that took another course."""
        if self._frame is None:
            raise self._fault("save without a game", "a call of reset before", "none")
        return {
            "env": self.spec.name,
            "moves": self._moves,
            "live": self._live,
            "terminated": self._terminated,
            "frame": _digest(self._frame),
            "game": self.inner.save(),
        }

    def restore(self, saved: dict[str, Any]) -> Array:
        """See Environment. EnvironmentFault if the replayed game does not arrive at the frame it was saved with."""
        if saved["env"] != self.spec.name:
            raise self._fault("restore got a game of another environment", self.spec.name, str(saved["env"]))
        self._seed, self._moves, self._live = int(saved["game"]["seed"]), int(saved["moves"]), False
        self._terminated = bool(saved["terminated"])
        self._frame = self._observed(self._guarded("restore", self.inner.restore, saved["game"]))
        if _digest(self._frame) != saved["frame"]:
            raise self._fault(
                "replaying the seed and actions of a game led elsewhere: the environment does not draw all its chance "
                "from the seed of reset, or its settings or version have changed",
                f"the frame with digest {saved['frame']}",
                _digest(self._frame),
            )
        live = bool(saved["live"])
        self._legal = self._nothing_legal if self._terminated else self._allowed(last=not live)
        self._live = live
        return self._frame

    def close(self) -> None:
        """See Environment."""
        self._live = False
        self.inner.close()

    def _accept(self, action: int) -> None:
        if not self._live:
            raise self._fault("step without a game in progress", "a call of reset before", f"action {action!r}")
        known = isinstance(action, int | np.integer) and not isinstance(action, bool)
        if not known or not 0 <= action < self.spec.num_actions:
            raise self._fault("action out of range", f"an integer in [0, {self.spec.num_actions})", repr(action))
        if not self._legal[action]:
            raise self._fault("illegal action", f"one of {np.flatnonzero(self._legal).tolist()}", repr(action))

    def _allowed(self, *, last: bool = False) -> BoolArray:
        """Legal actions of a state that is not terminal: at least one, unless the game was truncated there."""
        legal = self._guarded("legal_actions", self.inner.legal_actions)
        if legal.dtype != np.bool_ or legal.shape != (self.spec.num_actions,):
            raise self._fault("wrong legal-action mask", f"bool ({self.spec.num_actions},)", describe(legal))
        if not (last or legal.any()):
            raise self._fault("no legal action in a game that is not over", "at least one, or terminated", "none")
        return legal

    def _observed(self, frame: Array) -> Array:
        shape = self.spec.observation_shape
        if not isinstance(frame, np.ndarray) or frame.dtype != self._dtype or frame.shape != shape:
            raise self._fault("wrong observation", f"{self._dtype} {shape}", describe(frame))
        if frame.dtype.kind == "f" and not np.isfinite(frame).all():
            index = np.unravel_index(np.argmin(np.isfinite(frame)), frame.shape)
            where = ", ".join(str(int(i)) for i in index)
            raise self._fault("observation is not finite", "finite numbers", f"{frame[index]} at [{where}]")
        return frame

    def _rewarded(self, reward: Any) -> float:
        if not isinstance(reward, _NUMBERS):
            raise self._fault("wrong reward", "one number", describe(reward))
        if not math.isfinite(reward):
            raise self._fault("reward is not finite", "a finite number", repr(float(reward)))
        return float(reward)

    def _flag(self, value: Any, name: str) -> bool:
        if not isinstance(value, _FLAGS):
            raise self._fault(f"wrong `{name}`", "True or False", describe(value))
        return bool(value)

    def _guarded(self, name: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        note = self._note
        if note is not None:
            note.enter(name, self._seed, self._moves)
        try:
            result = call(*args, **kwargs)
        except BrokenContract as error:
            self._left()
            raise EnvironmentFault(f"{self.where}: {error}") from error
        except (Exception, SystemExit) as error:
            if asked_to_end(error):
                raise
            self._left()
            raise self._fault(f"{name} raised an exception", "none", f"{type(error).__name__}: {error}") from error
        if note is not None:
            note.leave()
        return result

    def _left(self) -> None:
        if self._note is not None:
            self._note.leave()

    def _fault(self, what: str, expected: str, got: str) -> EnvironmentFault:
        return EnvironmentFault(f"{self.where}: {BrokenContract(what, expected=expected, got=got)}")

    @property
    def where(self) -> str:
        """Environment, seed and step, for messages."""
        return f"environment {self.spec.name} (seed {self._seed}, step {self._moves})"


def asked_to_end(error: BaseException) -> bool:
    """Whether Ray raised it to end this process: it is then nothing of the environment's."""
    return hasattr(error, "ray_terminate_msg")


def describe(value: Any) -> str:
    """`float32 (4,)` for arrays, type and shortened value for anything else: for the `got` of a fault."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _digest(frame: Array) -> str:
    return hashlib.blake2b(np.ascontiguousarray(frame).tobytes(), digest_size=8).hexdigest()
