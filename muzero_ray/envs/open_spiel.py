"""Board games from OpenSpiel: two players in strict turn, zero-sum, deterministic, perfect information.

Observation: OpenSpiel's observation tensor for the player to move, float32. Where it is the same for both, whose move
it is (0 or 1) comes with it: as one more plane `(C + 1, H, W)` where the tensor has planes, as one more number `(D +
1,)` where it is of another shape. The reward of a step is what the player who made it earned.
"""

from __future__ import annotations

import difflib
import functools
import random
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from muzero_ray.envs.environment import BrokenContract
from muzero_ray.errors import ConfigError
from muzero_ray.types import Array, BoolArray, EnvSpec, EnvStep, FloatArray

PROBE_GAMES, PROBE_MOVES = 3, 200


class OpenSpielSpaces:
    """See OwnSpaces; an observation is the pyspiel.State in play. tensor: shape of what OpenSpiel shows of it."""

    def __init__(self, spec: EnvSpec, tensor: tuple[int, ...]) -> None:
        self._spec, self._tensor = spec, tensor

    def frame(self, observation: Any) -> FloatArray:
        """See OwnSpaces. Of the player to move."""
        if not hasattr(observation, "observation_tensor") or observation.is_terminal():
            raise ValueError(f"observation of {self._spec.name}: expected a pyspiel.State in play, got {observation!r}")
        return self.seen_by(observation, observation.current_player())

    def seen_by(self, state: Any, player: int) -> FloatArray:
        """The frame of `state` for `player`."""
        frame = np.full(self._spec.observation_shape, player, np.float32)
        frame[: self._tensor[0]] = np.reshape(state.observation_tensor(player), self._tensor)
        return frame

    def legal(self, observation: Any) -> BoolArray:
        """See OwnSpaces."""
        legal = np.zeros(self._spec.num_actions, np.bool_)
        legal[observation.legal_actions()] = True
        return legal

    def action(self, index: int) -> int:
        """See OwnSpaces."""
        return index


class OpenSpielEnvironment:
    """Adapter of one game; use it inside a CheckedEnvironment. `state` is the pyspiel.State in play."""

    def __init__(self, name: str, kwargs: Mapping[str, Any], *, opening_moves: int = 0) -> None:
        """name: OpenSpiel game string, as `tic_tac_toe` or `go(board_size=5)`. kwargs: further game parameters.

        opening_moves: each game begins after 0 to so many random moves, all numbers alike, drawn from its seed.
        """
        self._opening_moves = opening_moves
        for key, value in kwargs.items():
            if value is None or isinstance(value, list | dict):
                raise ConfigError(
                    f"env.kwargs.{key}={value!r}: parameters of OpenSpiel games are numbers, text, true or false. "
                    "Write one of those"
                )
        self._game = _load(name, tuple(sorted(kwargs.items())))
        self.state: Any = self._game.new_initial_state()
        tensor = tuple(self._game.observation_tensor_shape())
        seen = tensor if len(tensor) == 3 else (int(np.prod(tensor)),)
        shape = (seen[0] + (not _sees_sides(self._game)), *seen[1:])
        actions, longest = self._game.num_distinct_actions(), self._game.max_game_length()
        self.spec = EnvSpec(name, shape, "float32", actions, num_players=2, max_moves=longest)
        self.spaces = OpenSpielSpaces(self.spec, seen)
        self._seed = 0
        self._player = 0

    goes_on = False
    """See Environment."""

    def reset(self, seed: int) -> Array:
        """See Environment. The seed decides the opening, and nothing else: these games have no chance in them."""
        self._seed = seed
        self.state = _opened(self._game, self._opening_moves, random.Random(seed))
        self._player = self.state.current_player()
        return self._frame()

    def step(self, action: int) -> EnvStep:
        """See Environment."""
        actor = self._player
        self.state.apply_action(action)
        over = self.state.is_terminal()
        # Past the end the other player is to move, so that the sign of a stored value stays that of its position.
        self._player = 1 - actor
        if not over and self.state.current_player() != self._player:
            got = f"player {self.state.current_player()} again"
            raise BrokenContract("players do not take turns", expected=f"player {self._player} to move", got=got)
        return EnvStep(self._frame(), self.state.rewards()[actor], over, False)

    def legal_actions(self) -> BoolArray:
        """See Environment."""
        return self.spaces.legal(self.state)

    def to_play(self) -> int:
        """See Environment. At the end of a game: the player who would have been next."""
        return self._player

    def render(self) -> Array | None:
        """The text of the state, drawn on a black background."""
        return _draw_text(str(self.state))

    def save(self) -> dict[str, Any]:
        """See Environment."""
        return {"seed": self._seed, "actions": list(self.state.history())}

    def restore(self, saved: dict[str, Any]) -> Array:
        """See Environment."""
        self._seed = int(saved["seed"])
        self.state = self._game.new_initial_state()
        self._player = self.state.current_player()
        for action in saved["actions"]:  # the opening's, too
            self.step(int(action))
        return self._frame()

    def close(self) -> None:
        """See Environment. Nothing to free."""

    def _frame(self) -> FloatArray:
        return self.spaces.seen_by(self.state, self._player)


def _opened(game: Any, most: int, rng: random.Random) -> Any:
    """A state that is not over, 0 to `most` random moves into the game."""
    while True:
        state = game.new_initial_state()
        for _ in range(rng.randint(0, most)):
            if not state.is_terminal():
                state.apply_action(rng.choice(state.legal_actions()))
        if not state.is_terminal():
            return state


def _sees_sides(game: Any) -> bool:
    """Whether the observation is that of the player who asks, as own and other stones, and not the same for both.

    Who is to move need not be said then, and had better not be: what is learned for one side holds for the other.
    """
    state = game.new_initial_state()
    state.apply_action(state.legal_actions()[0])
    return bool(state.observation_tensor(0) != state.observation_tensor(1))


def _pyspiel() -> ModuleType:
    try:
        import pyspiel
    except ModuleNotFoundError as error:
        raise ConfigError(
            "env.kind=openspiel needs the package open-spiel, which is not installed. "
            "Install it: pip install 'muzero-ray[boards]'"
        ) from error
    module: ModuleType = pyspiel
    return module


@functools.cache
def _load(name: str, kwargs: tuple[tuple[str, Any], ...]) -> Any:
    """The pyspiel.Game, after checking that it is of the supported kind. ConfigError."""
    pyspiel = _pyspiel()
    short = name.partition("(")[0]
    known = pyspiel.registered_names()
    # Asked first, as OpenSpiel prints all its games to the terminal when a name is wrong.
    if short not in known:
        near = difflib.get_close_matches(short, known, n=3, cutoff=0.4)
        hint = f"Nearest: {', '.join(near)}" if near else f"OpenSpiel has {', '.join(known)}"
        raise ConfigError(f"env.id={name} is not an OpenSpiel game. {hint}")
    if kwargs:
        written = [part for part in name.partition("(")[2].rstrip(")").split(",") if part]
        name = f"{short}({','.join(written + [f'{key}={value}' for key, value in kwargs])})"
    try:
        game = pyspiel.load_game(name)
    except pyspiel.SpielError as error:
        raise ConfigError(f"env.id={name} cannot be loaded by OpenSpiel: {error}") from error
    if reason := _unsupported(pyspiel, game):
        raise ConfigError(
            f"env.id={name}: {reason}. Supported: two players in strict turn, zero-sum, no chance, perfect "
            "information, as tic_tac_toe, connect_four, othello, hex or go(board_size=9)"
        )
    return game


def _unsupported(pyspiel: ModuleType, game: Any) -> str | None:
    kind, wanted = game.get_type(), pyspiel.GameType
    if game.num_players() != 2:
        return f"the game is for {game.num_players()} players"
    if kind.dynamics != wanted.Dynamics.SEQUENTIAL:
        return "the players move at the same time"
    if kind.chance_mode != wanted.ChanceMode.DETERMINISTIC:
        return "the game has chance events"
    if kind.information != wanted.Information.PERFECT_INFORMATION:
        return "the players do not see everything"
    if kind.utility != wanted.Utility.ZERO_SUM:
        return "the game is not zero-sum"
    if not kind.provides_observation_tensor:
        return "OpenSpiel gives no observation tensor for it"
    return "a player can move twice in a row" if _moves_twice(game) else None


def _moves_twice(game: Any) -> bool:
    """Whether turns are ever not strict in a few random games: no flag of OpenSpiel says so."""
    for seed in range(PROBE_GAMES):
        rng, state = random.Random(seed), game.new_initial_state()
        for _ in range(PROBE_MOVES):
            actor = state.current_player()
            state.apply_action(rng.choice(state.legal_actions()))
            if state.is_terminal():
                break
            if state.current_player() != 1 - actor:
                return True
    return False


def _draw_text(text: str, width: int = 20, height: int = 28) -> Array:
    """One cell a character: OpenCV's fonts are not of fixed width. uint8 `[H, W, 3]`."""
    import cv2

    lines = text.rstrip("\n").split("\n")
    columns = max(len(line) for line in lines)
    picture = np.zeros((height * (len(lines) + 1), width * (columns + 2), 3), np.uint8)
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            corner = (width * (column + 1), height * (row + 1))
            cv2.putText(picture, character, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 1, cv2.LINE_AA)
    return picture
