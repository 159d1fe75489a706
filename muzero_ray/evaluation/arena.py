"""Two players against each other over many games of a board game: who is stronger, by how much, how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from muzero_ray.acting.frame_stacker import FrameStacker
from muzero_ray.envs.environment import Environment
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.episodes import MAX_ENVIRONMENTS, Policy
from muzero_ray.evaluation.opponents import Opponent
from muzero_ray.types import Array, EnvSpec, FloatArray

Z = 1.96
"""Standard deviations of a 95 % interval."""

OPENING_TRIES = 100
"""Random openings that may end the game, before they count as too long."""


class Player(Protocol):
    """Sees every frame of every game it plays, and moves where it is its turn."""

    def start(self, env: int, frame: Array) -> None:
        """A game begins in environment number `env`."""

    def push(self, env: int, frame: Array) -> None:
        """The next frame there, whoever moved."""

    def act(self, envs: Sequence[int], environments: Sequence[Environment]) -> list[int]:
        """An action for each of those games."""


class NetworkPlayer:
    """A trained network with its noise-free search."""

    def __init__(self, policy: Policy, spec: EnvSpec, frame_stack: int) -> None:
        self._policy = policy
        self._stacker = FrameStacker(MAX_ENVIRONMENTS, spec.observation_shape, spec.observation_dtype, frame_stack)

    def start(self, env: int, frame: Array) -> None:
        """See Player."""
        self._stacker.start(env, frame)

    def push(self, env: int, frame: Array) -> None:
        """See Player."""
        self._stacker.push(env, frame)

    def act(self, envs: Sequence[int], environments: Sequence[Environment]) -> list[int]:
        """See Player. One search for all of them."""
        legal = np.stack([environment.legal_actions() for environment in environments])
        actions: list[int] = self._policy(self._stacker.stacked[list(envs)], legal).tolist()
        return actions


class BotPlayer:
    """An opponent that looks at the game itself."""

    def __init__(self, bot: Opponent) -> None:
        self._bot = bot

    def start(self, env: int, frame: Array) -> None:
        """See Player."""

    def push(self, env: int, frame: Array) -> None:
        """See Player."""

    def act(self, envs: Sequence[int], environments: Sequence[Environment]) -> list[int]:
        """See Player."""
        del envs
        return [self._bot(environment) for environment in environments]


@dataclass(frozen=True)
class Match:
    """returns: of the first player, `[games]`; it moved first in games 0, 2, 4, ..."""

    returns: FloatArray

    def counts(self, side: slice = slice(None)) -> tuple[int, int, int]:
        """Games won, drawn and lost, of those on one side."""
        returns = self.returns[side]
        won, lost = int((returns > 0).sum()), int((returns < 0).sum())
        return won, len(returns) - won - lost, lost

    @property
    def score(self) -> float:
        """Share of points: 1 for a game won, a half for a draw."""
        won, drawn, _ = self.counts()
        return (won + drawn / 2) / len(self.returns)

    def elo(self) -> tuple[float, float, float]:
        """Elo difference to the second player, and its 95 % interval: Wilson's of the score.

        Draws count as half games won, half lost, so with many draws the interval is wider than it had to be.
        """
        n, score = len(self.returns), self.score
        centre = (score + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * math.sqrt(score * (1 - score) / n + Z**2 / (4 * n**2))
        return elo_difference(score), elo_difference(centre - half), elo_difference(centre + half)


def elo_difference(score: float) -> float:
    """Rating difference at which `score` is expected: 400 log10(s / (1 - s)); infinite at 0 and 1."""
    if not 0.0 < score < 1.0:
        return math.copysign(math.inf, score - 0.5)
    return 400.0 * math.log10(score / (1.0 - score))


def play_match(
    make_environment: Callable[[], Environment],
    players: tuple[Player, Player],
    *,
    games: int,
    seed: int,
    opening_moves: int,
) -> Match:
    """Play `games` games, up to MAX_ENVIRONMENTS side by side.

    Each two games in a row begin with the same `opening_moves` moves, drawn at random, and the players change sides:
    noise-free players would else play the same two games again and again.
    """
    environments = [make_environment() for _ in range(min(games, MAX_ENVIRONMENTS))]
    returns: list[float] = []
    try:
        while len(returns) < games:
            first = len(returns)
            batch = [
                _Game(env, environment, players, (first + env) % 2)
                for env, environment in enumerate(environments[: games - first])
            ]
            for game in batch:
                pair = (first + game.env) // 2
                game.open(np.random.default_rng([seed, pair]), opening_moves)
            _play_out(batch, players)
            returns += [game.score for game in batch]
    finally:
        for environment in environments:
            environment.close()
    return Match(np.array(returns, np.float32))


def _play_out(batch: Sequence[_Game], players: tuple[Player, Player]) -> None:
    """All games to their end; each player's moves are found together."""
    while active := [game for game in batch if not game.over]:
        for number, player in enumerate(players):
            if turn := [game for game in active if not game.over and game.to_move == number]:
                actions = player.act([game.env for game in turn], [game.environment for game in turn])
                for game, action in zip(turn, actions, strict=True):
                    game.step(action)


class _Game:
    """One game. first: number of the player who moves first."""

    def __init__(self, env: int, environment: Environment, players: tuple[Player, Player], first: int) -> None:
        self.env, self.environment = env, environment
        self._players, self._first = players, first
        self.score, self.over = 0.0, False

    @property
    def to_move(self) -> int:
        """Number of the player whose turn it is."""
        return (self.environment.to_play() + self._first) % 2

    def open(self, rng: np.random.Generator, moves: int) -> None:
        """Begin a game with random moves, none of which ends it."""
        for _ in range(OPENING_TRIES):
            self.score, self.over = 0.0, False
            frame = self.environment.reset(0)
            for player in self._players:
                player.start(self.env, frame)
            for _ in range(moves):
                self.step(int(rng.choice(np.flatnonzero(self.environment.legal_actions()))))
                if self.over:
                    break
            else:
                return
        raise ConfigError(
            f"opening_moves={moves}: {OPENING_TRIES} random openings of that length all ended the game. Use fewer"
        )

    def step(self, action: int) -> None:
        mine = self.to_move == 0
        step = self.environment.step(action)
        self.score += step.reward if mine else -step.reward
        self.over = step.terminated or step.truncated
        for player in self._players:
            player.push(self.env, step.observation)
