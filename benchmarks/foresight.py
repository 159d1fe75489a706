"""How well the learned model tells which action is better, compared with the true game.

From positions of the policy's own games every action is held for some moves, in the model and in the true game. The
return of that is the discounted rewards on the way plus the network's value of the end: of the unrolled latent, or of
the true frames. A search depends on how returns differ between actions, so these differences are compared. The true
game is played several times, as chance differs; how well one half of these plays agrees with the other is the most
that a model can reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.true_game import SEED, TrueGame, state_of
from muzero_ray.acting.frame_stacker import FrameStacker
from muzero_ray.config.schema import Config
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.environments import environment_factory
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.types import Array, BoolArray, FloatArray, NetworkOutput

MOVES = (1, 2, 3, 5)
"""For how many moves an action is held."""

DRAWS = 4
"""How many times the true game is played for each action; even, so that there are halves."""

TAKEN, RANDOM = 0.25, 0.1
"""Share of the positions of a game that is taken, and of its moves that are random."""

BATCH_SIZE = 256
"""Positions per call of the network."""


class Positions(NamedTuple):
    """`N` positions, and where the true game leads for each of `A` actions, `D` draws and `L` numbers of `MOVES`.

    observations: `[N, ...]`, stacked. frames: `[N, A, D, L, ...]`, stacked, at the end. rewards: `[N, A, D, L]`, their
    discounted sum. over: `[N, A, D, L]`, whether the game (or the life) ended there or before.
    """

    observations: Array
    frames: Array
    rewards: FloatArray
    over: BoolArray


class Foresight(NamedTuple):
    """How the returns of actions held for `moves` differ, in the game and in the model."""

    moves: int
    agreement: float
    """Correlation of the differences in the model with those in the game."""
    max_agreement: float
    """The same between the two halves of the draws in the game."""
    spread: float
    """Standard deviation of the differences in the model, env units."""
    true_spread: float
    """The same in the game."""
    reward_agreement: float
    """Correlation of the discounted sums of rewards."""

    def __str__(self) -> str:
        return (
            f"actions held for {self.moves}: their returns differ by {self.spread:.3f} in the model and by "
            f"{self.true_spread:.3f} in the game (standard deviations), with a correlation of {self.agreement:.2f} "
            f"(chance allows {self.max_agreement:.2f}); that of rewards is {self.reward_agreement:.2f}"
        )


def collect(config: Config, task: TaskSpec, engine: InferenceEngine, count: int) -> Positions:
    """`count` positions of games that the policy in `engine` plays with some random moves. ConfigError if a position
    has illegal actions."""
    rng = np.random.default_rng(SEED)
    game, true_game = environment_factory(config)(False), TrueGame(config, engine, task.spec.observation_shape[0])
    stacker = FrameStacker(1, task.spec.observation_shape, task.spec.observation_dtype, config.env.frame_stack)
    stacker.start(0, game.reset(SEED))
    parts: list[tuple[Array, Array, FloatArray, BoolArray]] = []
    while len(parts) < count:
        legal = game.legal_actions()
        if not legal.all():
            raise ConfigError(f"{task.spec.name} has illegal actions, which cannot be held. Give --positions 0")
        if rng.random() < TAKEN:
            seen = stacker.stacked[0].copy()
            parts.append((seen, *_hold(true_game, state_of(game), seen, len(legal), config.learner.discount)))
        best = int(engine.initial(stacker.stacked).policy_logits[0].argmax())
        step = game.step(int(rng.integers(len(legal))) if rng.random() < RANDOM else best)
        stacker.push(0, step.observation)
        if step.terminated or step.truncated:
            stacker.start(0, game.reset(int(rng.integers(2**31))))
    game.close()
    return Positions(*(np.stack(part) for part in zip(*parts, strict=True)))


def _hold(
    true_game: TrueGame, state: object, seen: Array, actions: int, discount: float
) -> tuple[Array, FloatArray, BoolArray]:
    """`frames`, `rewards` and `over` of one position, as in `Positions`."""
    shape = (actions, DRAWS, len(MOVES))
    frames, rewards, ends = (
        np.zeros((*shape, *seen.shape), seen.dtype),
        np.zeros(shape, np.float32),
        np.zeros(shape, bool),
    )
    for action, draw in np.ndindex(shape[:2]):
        at, stacked, over, earned = state, seen, False, 0.0
        for move in range(max(MOVES)):
            if not over:
                at, frame, reward, over = true_game.step(at, action)
                stacked = np.concatenate((stacked[len(frame) :], frame))
                earned += discount**move * reward
            if move + 1 in MOVES:
                index = action, draw, MOVES.index(move + 1)
                frames[index], rewards[index], ends[index] = stacked, earned, over
    return frames, rewards, ends


def foresight(config: Config, engine: InferenceEngine, positions: Positions) -> Iterator[Foresight]:
    """How well the network in `engine` foresees what happens from these positions, for each of `MOVES`."""
    discount = config.learner.discount
    count, actions, draws, _ = positions.over.shape
    unrolled = [_unrolled(engine, positions.observations, action, actions, discount) for action in range(actions)]
    for index, moves in enumerate(MOVES):
        frames = positions.frames[:, :, :, index]
        flat = frames.reshape(-1, *frames.shape[3:])
        values = np.concatenate([engine.initial(part).value.copy() for part in _batches(flat)])
        values = np.where(positions.over[:, :, :, index], 0.0, values.reshape(count, actions, draws))
        true_returns = positions.rewards[:, :, :, index] + discount**moves * values
        returns = np.stack([of_action[index] for of_action, _ in unrolled], axis=1)
        rewards = np.stack([of_action[index] for _, of_action in unrolled], axis=1)
        true, foreseen = _differences(true_returns.mean(axis=2)), _differences(returns)
        halves = [_differences(half.mean(axis=2)) for half in np.split(true_returns, 2, axis=2)]
        yield Foresight(
            moves=moves,
            agreement=_correlation(true, foreseen),
            max_agreement=_correlation(*halves),
            spread=float(foreseen.std()),
            true_spread=float(true.std()),
            reward_agreement=_correlation(positions.rewards[:, :, :, index].mean(axis=2), rewards),
        )


def _unrolled(
    engine: InferenceEngine, observations: Array, action: int, actions: int, discount: float
) -> tuple[list[FloatArray], list[FloatArray]]:
    """(returns, sums of rewards), each `[N]` for each of `MOVES`: `action` held in the model."""
    found: list[list[tuple[FloatArray, FloatArray]]] = []
    for part in _batches(observations):
        hidden, size = engine.initial(part).hidden.copy(), len(part)
        earned, lines = np.zeros(size, np.float32), []
        for move in range(max(MOVES)):
            out = NetworkOutput(
                np.empty_like(hidden),
                np.empty(size, np.float32),
                np.empty(size, np.float32),
                np.empty((size, actions), np.float32),
            )
            engine.recurrent(hidden, np.full(size, action, np.int32), out)
            hidden, earned = out.hidden, earned + np.float32(discount**move) * out.reward
            if move + 1 in MOVES:
                lines.append((earned + np.float32(discount ** (move + 1)) * out.value, earned))
        found.append(lines)
    joined = [
        [np.concatenate(pieces) for pieces in zip(*of_moves, strict=True)] for of_moves in zip(*found, strict=True)
    ]
    return [returns for returns, _ in joined], [earned for _, earned in joined]


def _batches(array: Array) -> Iterator[Array]:
    return (array[begin : begin + BATCH_SIZE] for begin in range(0, len(array), BATCH_SIZE))


def _differences(returns: FloatArray) -> FloatArray:
    """Returns of actions `[N, A]` less their mean in each position."""
    out: FloatArray = returns - returns.mean(axis=1, keepdims=True)
    return out


def _correlation(first: FloatArray, second: FloatArray) -> float:
    """Over all entries; NaN if one of the arrays is constant."""
    one, other = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale > 0 else float("nan")
