"""Who has the other seat when a two-player game is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from muzero_ray.envs.environment import Environment
from muzero_ray.errors import ConfigError

Opponent = Callable[[Environment], int]
"""The live environment, its player to move, to an action."""

OPPONENTS = ("random", "minimax")


def make_opponent(name: str, seed: int) -> Opponent:
    """`random`: uniform over legal actions. `minimax`: exact, uniform over its best moves (small OpenSpiel games)."""
    rng = np.random.default_rng([seed, 7])
    if name == "random":
        return lambda environment: int(rng.choice(np.flatnonzero(environment.legal_actions())))
    if name == "minimax":
        solver = MinimaxSolver()
        return lambda environment: int(rng.choice(solver.best_actions(game_state(environment))))
    raise ConfigError(f"opponent={name!r} is unknown. Use one of: {', '.join(OPPONENTS)}")


def game_state(environment: Environment) -> Any:
    """The pyspiel state behind `environment`; ConfigError if there is none."""
    state = getattr(environment, "state", None)
    if state is None:
        raise ConfigError(
            f"opponent=minimax needs an OpenSpiel game to look ahead in, and {environment.spec.name} is none. "
            "Use opponent=random"
        )
    return state


class MinimaxSolver:
    """Exact values of a small perfect-information zero-sum OpenSpiel game, remembered by position."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}

    def value(self, state: Any) -> float:
        """Return of player 0 under best play from `state`."""
        key = f"{state.current_player()} {state}"
        if key not in self._values:
            if state.is_terminal():
                self._values[key] = float(state.returns()[0])
            else:
                best = max if state.current_player() == 0 else min
                self._values[key] = best(self.value(state.child(action)) for action in state.legal_actions())
        return self._values[key]

    def best_actions(self, state: Any) -> list[int]:
        """Every action that keeps the value of `state`."""
        value = self.value(state)
        return [action for action in state.legal_actions() if self.value(state.child(action)) == value]
