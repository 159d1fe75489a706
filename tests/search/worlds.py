"""Exact models for the search tests: tables of states and actions, and tic-tac-toe enumerated as such a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from muzero_ray.config.schema import GumbelConfig, PuctConfig
from muzero_ray.inference.host_latents import HostLatents
from muzero_ray.search.search import gumbel_search, puct_search
from muzero_ray.types import Array, NetworkOutput, SearchResult


@dataclass
class Table(HostLatents):
    """A deterministic model: following `[S, A]` states, reward `[S, A]`, value `[S]`, logits `[S, A]`.

    The hidden state is the state's number, `[B, 1]`.
    """

    following: Array
    reward: Array
    value: Array
    logits: Array

    def __post_init__(self) -> None:
        super().__init__()

    def initial(self, states: Array) -> NetworkOutput:
        return self._output(np.asarray(states), np.zeros(len(states)))

    def recurrent(self, hidden: Array, actions: Array, out: NetworkOutput) -> None:
        states = hidden[:, 0].astype(int)
        answer = self._output(self.following[states, actions], self.reward[states, actions])
        for array, part in zip(out, answer, strict=True):
            array[...] = part

    def _output(self, states: Array, reward: Array) -> NetworkOutput:
        arrays = (states[:, None], reward, self.value[states], self.logits[states])
        return NetworkOutput(*(array.astype(np.float32) for array in arrays))

    def search(self, kind: str, states: Array, simulations: int, *, seed: int = 0, **settings: Any) -> SearchResult:
        """`kind`: puct or gumbel. Without noise and with every action legal, unless `settings` say otherwise."""
        root = self.initial(states)
        own = PuctConfig if kind == "puct" else GumbelConfig
        names = settings.keys() & own.model_fields.keys() - {"temperature"}  # that is one for each root here
        given = {name: settings.pop(name) for name in names}
        defaults = {} if kind == "puct" else {"c_scale": 0.1}
        config = own.model_validate({**defaults, **given, "simulations": simulations})
        legal = np.ones(root.policy_logits.shape, dtype=bool)
        common = {"legal": legal, "discount": 0.97, "noise": False, "rng": np.random.default_rng(seed)}
        if isinstance(config, GumbelConfig):
            return gumbel_search(root, self, config, **(common | settings))
        common["temperature"] = np.ones(len(states), np.float32)
        return puct_search(root, self, config, **(common | settings))


def random_table(seed: int, states: int, actions: int) -> Table:
    rng = np.random.default_rng(seed)
    return Table(
        rng.integers(states, size=(states, actions)),
        rng.normal(size=(states, actions)),
        rng.normal(size=states),
        rng.normal(size=(states, actions)),
    )


def bandit(rewards: Array, logits: Array) -> Table:
    """State 0: action a earns rewards[a] and ends in state 1, where nothing more is earned."""
    logits = np.asarray(logits, dtype=float)
    policy = np.exp(logits) / np.exp(logits).sum()
    rewards = np.asarray(rewards, dtype=float)
    return Table(
        np.ones((2, len(rewards)), dtype=int),
        np.stack([rewards, np.zeros(len(rewards))]),
        np.array([policy @ rewards, 0.0]),
        np.stack([logits, np.zeros(len(rewards))]),
    )


_LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]
Board = tuple[int, ...]


def _won(board: Board, player: int) -> bool:
    return any(all(board[cell] == player for cell in line) for line in _LINES)


@dataclass
class TicTacToe:
    """All positions reachable from the empty board, whoever starts, and their exact minimax values.

    positions `[P]` (board, player to move); legal, optimal `[P, 9]` moves; minimax `[P]`: what the player to move can
    still earn. `table` has one more state, for what follows a game that is over; an illegal move loses.
    """

    positions: list[tuple[Board, int]]
    legal: Array
    optimal: Array
    minimax: Array
    over: Array
    table: Table


def tic_tac_toe() -> TicTacToe:
    number: dict[tuple[Board, int], int] = {}
    results: dict[tuple[Board, int], float] = {}
    moves: dict[tuple[Board, int], dict[int, tuple[tuple[Board, int], float]]] = {}

    def solve(board: Board, player: int) -> float:
        position = (board, player)
        if position not in number:
            number[position], moves[position] = len(number), {}
            open_cells = [] if _won(board, -player) else [cell for cell in range(9) if board[cell] == 0]
            values = []
            for cell in open_cells:
                after = (*board[:cell], player, *board[cell + 1 :])
                won = 1.0 if _won(after, player) else 0.0
                moves[position][cell] = ((after, -player), won)
                values.append(won - solve(after, -player))
            results[position] = max(values, default=0.0)
        return results[position]

    solve((0,) * 9, 1)
    solve((0,) * 9, -1)
    count = len(number)
    following = np.full((count + 1, 9), count)
    reward, logits = np.zeros((count + 1, 9)), np.zeros((count + 1, 9))
    legal, optimal = np.zeros((count, 9), bool), np.zeros((count, 9), bool)
    for position, index in number.items():
        for cell, (after, won) in moves[position].items():
            following[index, cell], reward[index, cell], legal[index, cell] = number[after], won, True
            optimal[index, cell] = won - results[after] == results[position]
        if moves[position]:
            reward[index, ~legal[index]], logits[index, ~legal[index]] = -1.0, -20.0
    table = Table(following, reward, np.zeros(count + 1), logits)
    minimax = np.array([results[position] for position in number])
    return TicTacToe(list(number), legal, optimal, minimax, ~legal.any(axis=1), table)
