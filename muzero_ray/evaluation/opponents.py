"""Who has the other seat when a two-player game is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from muzero_ray.config.schema import OPPONENT
from muzero_ray.envs.environment import Environment
from muzero_ray.errors import ConfigError

Opponent = Callable[[Environment], int]
"""The live environment, its player to move, to an action."""

MCTS_EXPLORATION = 2.0
"""OpenSpiel's own default, of its example program: UCT's c, for returns in [-1, 1]."""

MCTS_MEMORY_MB = 1_000
"""More than a tree of any sensible number of simulations takes."""


def make_opponent(name: str, seed: int) -> Opponent:
    """`random`, `minimax` or `mcts:N`.

    `random` is uniform over legal actions; `minimax` exact, uniform over its best moves (small OpenSpiel games);
    `mcts:N` OpenSpiel's MCTSBot: UCT with N simulations a move, one random playout each, proven results backed up.
    """
    if not OPPONENT.fullmatch(name):
        raise ConfigError(f"opponent={name!r} is unknown. Use random, minimax or mcts:N, such as mcts:100")
    rng = np.random.default_rng([seed, 7])
    if name == "random":
        return lambda environment: int(rng.choice(np.flatnonzero(environment.legal_actions())))
    if name == "minimax":
        solver = MinimaxSolver()
        return lambda environment: int(rng.choice(solver.best_actions(game_state(environment, name))))
    return _MctsOpponent(name, int(rng.integers(2**31)))


def game_state(environment: Environment, opponent: str) -> Any:
    """The pyspiel state behind `environment`; ConfigError if there is none, with the opponent who needs it."""
    state = getattr(environment, "state", None)
    if state is None:
        raise ConfigError(
            f"opponent={opponent} needs an OpenSpiel game to look ahead in, and {environment.spec.name} is not one. "
            "Use opponent=random"
        )
    return state


class _MctsOpponent:
    """A new search for every move; its random numbers go on from move to move."""

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed = name, seed
        self._bot: Any = None

    def __call__(self, environment: Environment) -> int:
        state = game_state(environment, self._name)
        if self._bot is None:
            import pyspiel

            simulations = int(self._name.removeprefix("mcts:"))
            playouts = pyspiel.RandomRolloutEvaluator(n_rollouts=1, seed=self._seed)
            self._bot = pyspiel.MCTSBot(
                state.get_game(),
                playouts,
                uct_c=MCTS_EXPLORATION,
                max_simulations=simulations,
                max_memory_mb=MCTS_MEMORY_MB,
                solve=True,
                seed=self._seed,
                verbose=False,
            )
        return int(self._bot.step(state))


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
