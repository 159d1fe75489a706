"""A world without chance: every frame, reward and answer of the network is a formula of where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from muzero_ray.types import (
    Array,
    BoolArray,
    EdgeAnswers,
    EnvSpec,
    EnvStep,
    FloatArray,
    GameHistory,
    IntArray,
    NetworkOutput,
    SearchResult,
)

ACTIONS = 4
FRAME = (2, 3, 3)


def frame_at(env: int, game: int, move: int) -> Array:
    """uint8 `FRAME`: no two are alike, and none holds a zero (which would look like padding)."""
    y, x = np.mgrid[: FRAME[1], : FRAME[2]]
    plane = (1 + env + 3 * x + y, 1 + game + 31 * (move % 7) + 5 * x * y)
    picture = np.stack(plane).astype(np.uint8)
    picture[0, 0, 0], picture[0, 0, 1], picture[0, 0, 2] = 1 + env, 1 + game, 1 + move
    return picture


def where(frame: Array) -> tuple[int, int, int]:
    """(env, game, move) of a frame."""
    return int(frame[0, 0, 0]) - 1, int(frame[0, 0, 1]) - 1, int(frame[0, 0, 2]) - 1


def legal_at(env: int, game: int, move: int) -> BoolArray:
    legal = (np.arange(ACTIONS) + env + game + move) % 3 != 0
    return legal


def reward_at(env: int, game: int, move: int, action: int) -> float:
    """Not symmetric in anything; exact in float32."""
    return (1 + env + 4 * game + 8 * move) * (action + 1) / 16 - 2.0


class Move(NamedTuple):
    """One line of a `ScriptedEnvironment`'s diary."""

    game: int
    move: int
    action: int
    player: int
    reward: float


class ScriptedEnvironment:
    """Games of given lengths, over and over. It keeps a diary of what it was really made to do.

    lengths: moves of its first, second, ... game. truncated: whether games end by a limit instead of by themselves.
    """

    def __init__(self, env: int, lengths: Sequence[int], *, players: int = 1, truncated: bool = False) -> None:
        self.spec = EnvSpec(f"scripted-{env}", FRAME, "uint8", ACTIONS, players)
        self.diary: list[Move] = []
        self.seeds: list[int] = []
        self.closed = False
        self._env, self._lengths, self._truncated = env, lengths, truncated
        self._game, self._move = -1, 0

    goes_on = False

    def reset(self, seed: int) -> Array:
        self.seeds.append(seed)
        self._game, self._move = self._game + 1, 0
        return frame_at(self._env, self._game, 0)

    def step(self, action: int) -> EnvStep:
        assert self.legal_actions()[action]
        assert self._move < self._length()
        reward = reward_at(self._env, self._game, self._move, action)
        self.diary.append(Move(self._game, self._move, action, self.to_play(), reward))
        self._move += 1
        over = self._move == self._length()
        frame = frame_at(self._env, self._game, self._move)
        return EnvStep(frame, reward, over and not self._truncated, over and self._truncated)

    def _length(self) -> int:
        return self._lengths[self._game % len(self._lengths)]

    def legal_actions(self) -> BoolArray:
        if self._move == self._length() and not self._truncated:
            return np.zeros(ACTIONS, np.bool_)
        return legal_at(self._env, self._game, self._move)

    def to_play(self) -> int:
        return (self._game + self._move) % self.spec.num_players

    def render(self) -> Array | None:
        return None

    def save(self) -> dict[str, Any]:
        return {"game": self._game, "move": self._move}

    def restore(self, saved: dict[str, Any]) -> Array:
        self._game, self._move = saved["game"], saved["move"]
        return frame_at(self._env, self._game, self._move)

    def close(self) -> None:
        self.closed = True


def value_of(stacked: Array) -> float:
    """What the scripted network thinks of one stacked observation: depends on every pixel and its place."""
    weights = np.arange(1, stacked.size + 1, dtype=np.float64)
    return float(np.float32(weights @ stacked.reshape(-1) / 1000.0))


class ScriptedEngine:
    """`value_of`, flat policies; the stacked observation is its own latent. Keeps the weights it was given."""

    precision = "float32"

    def __init__(self) -> None:
        self.flat: FloatArray | None = None
        self.seen: list[Array] = []

    def initial(self, observations: Array) -> NetworkOutput:
        self.seen.append(observations.copy())
        rows = len(observations)
        value = np.array([value_of(row) for row in observations], np.float32)
        logits = np.zeros((rows, ACTIONS), np.float32)
        return NetworkOutput(observations.astype(np.float32), np.zeros(rows, np.float32), value, logits)

    def recurrent(self, hidden: Array, actions: IntArray, out: NetworkOutput) -> None:
        del hidden, actions, out
        raise AssertionError("the scripted search looks no further than the root")

    def pool(self, root: Array, nodes: int) -> None:
        del root, nodes

    def expand(self, leaf: int, parents: IntArray, actions: IntArray, out: EdgeAnswers) -> None:
        del leaf, parents, actions, out
        raise AssertionError("the scripted search looks no further than the root")

    def prepare(self, flat: FloatArray) -> FloatArray:
        return flat.copy()

    def adopt(self, prepared: FloatArray) -> None:
        self.flat = prepared

    def load(self, flat: FloatArray) -> None:
        self.adopt(self.prepare(flat))


class ScriptedSearch:
    """Plays a random legal action from its generator; policy and root value are formulas of action and value."""

    def __init__(self) -> None:
        self.temperatures: list[FloatArray] = []
        self.explored: list[bool] = []

    def __call__(
        self,
        root: NetworkOutput,
        model: Any,
        legal: BoolArray,
        rng: np.random.Generator,
        *,
        explore: bool,
        temperature: FloatArray,
    ) -> SearchResult:
        del model
        self.temperatures.append(temperature.copy())
        self.explored.append(explore)
        rows = len(legal)
        action = np.argmax(rng.random(legal.shape) * legal, axis=1).astype(np.int32)
        policy = np.stack([policy_for(int(a), row) for a, row in zip(action, legal, strict=True)])
        return SearchResult(
            action=action,
            policy_target=policy,
            root_value=root.value + np.float32(0.5),
            visit_counts=np.ones((rows, ACTIONS), np.int32),
            depth=np.ones(rows, np.float32),
        )


def policy_for(action: int, legal: BoolArray) -> FloatArray:
    """Half of the mass on the action played, the rest evenly over what is legal."""
    policy = 0.5 * legal / legal.sum()
    policy[action] += 0.5
    return policy.astype(np.float32)


class WholeGames:
    """Puts the segments of one actor together again, each checked for overlap and ids."""

    def __init__(self, overlap: int) -> None:
        self.games: dict[tuple[int, int], list[GameHistory]] = {}
        self._overlap = overlap
        self._ids: set[tuple[int, int, int]] = set()

    def take(self, segment: GameHistory) -> None:
        assert tuple(segment.id) not in self._ids
        self._ids.add(tuple(segment.id))
        env, game, move = where(segment.observations[segment.context])
        parts = self.games.setdefault((env, game), [])
        assert move == sum(part.owned for part in parts), "a segment begins where the one before it ends"
        assert not any(part.terminated or part.truncated for part in parts)
        if segment.terminated or segment.truncated:
            assert segment.owned == len(segment)
        else:
            assert len(segment) >= segment.owned + self._overlap
        parts.append(segment)
