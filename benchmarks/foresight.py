"""Does the learned model tell actions apart as the game does? Asked from positions of the policy's own games.

From each position every action is held for some moves, in the model and in the true game. Either way that has a value:
the rewards on the way and the network's value of where it leads, of the unrolled latent or of the true frames. What
counts for a search is how these values differ between the actions. Chance is drawn several times for the true game;
how well one half of the draws agrees with the other is the most that a model could reach.
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
"""For how long an action is held."""

DRAWS = 4
"""How many times chance is drawn; even, so that there are halves."""

ASKED, RANDOM = 0.25, 0.1
"""Share of the positions of a game that is taken, and of its moves that are random."""

BATCH = 256


class Positions(NamedTuple):
    """Positions `N`, and where the true game leads from them by action `A`, draw `D` and length `L` of `MOVES`.

    observations `[N, ...]`, stacked; frames `[N, A, D, L, ...]`, stacked, too; rewards `[N, A, D, L]`, the discounted
    sum on the way; over `[N, A, D, L]`, whether the game (or the life) ended there or before.
    """

    observations: Array
    frames: Array
    rewards: FloatArray
    over: BoolArray


class Foresight(NamedTuple):
    """How the values of actions held for `moves` differ, in the game and in the model. Spreads: standard deviations."""

    moves: int
    agreement: float
    """Correlation of the differences in the model with those in the game."""
    most: float
    """The same of the two halves of the draws."""
    spread: float
    true_spread: float
    rewards: float
    """Correlation of the rewards on the way."""

    def __str__(self) -> str:
        return (
            f"actions held for {self.moves}: their values differ by {self.spread:.3f} in the model and by "
            f"{self.true_spread:.3f} in the game, with a correlation of {self.agreement:.2f} (of {self.most:.2f} that "
            f"chance allows); that of rewards is {self.rewards:.2f}"
        )


def collect(config: Config, task: TaskSpec, engine: InferenceEngine, count: int) -> Positions:
    """`count` positions of games that the policy in `engine` plays with some random moves. ConfigError if a position
    has illegal actions: they cannot be held."""
    rng = np.random.default_rng(SEED)
    game, model = environment_factory(config)(False), TrueGame(config, engine, task.spec.observation_shape[0])
    stacker = FrameStacker(1, task.spec.observation_shape, task.spec.observation_dtype, config.env.frame_stack)
    stacker.start(0, game.reset(SEED))
    parts: list[tuple[Array, Array, FloatArray, BoolArray]] = []
    while len(parts) < count:
        legal = game.legal_actions()
        if not legal.all():
            raise ConfigError(f"{task.spec.name} has illegal actions, and only games without can be foreseen")
        if rng.random() < ASKED:
            seen = stacker.stacked[0].copy()
            parts.append((seen, *_held(model, state_of(game), seen, len(legal), config.learner.discount)))
        best = int(engine.initial(stacker.stacked).policy_logits[0].argmax())
        step = game.step(int(rng.integers(len(legal))) if rng.random() < RANDOM else best)
        stacker.push(0, step.observation)
        if step.terminated or step.truncated:
            stacker.start(0, game.reset(int(rng.integers(2**31))))
    game.close()
    return Positions(*(np.stack(part) for part in zip(*parts, strict=True)))


def _held(
    model: TrueGame, state: object, seen: Array, actions: int, discount: float
) -> tuple[Array, FloatArray, BoolArray]:
    """Frames, rewards and ends of one position, as in `Positions`."""
    where = (actions, DRAWS, len(MOVES))
    frames, rewards, ends = (
        np.zeros((*where, *seen.shape), seen.dtype),
        np.zeros(where, np.float32),
        np.zeros(where, bool),
    )
    for action, draw in np.ndindex(where[:2]):
        at, stacked, over, earned = state, seen, False, 0.0
        for move in range(max(MOVES)):
            if not over:
                at, frame, reward, over = model.step(at, action)
                stacked = np.concatenate((stacked[len(frame) :], frame))
                earned += discount**move * reward
            if move + 1 in MOVES:
                place = action, draw, MOVES.index(move + 1)
                frames[place], rewards[place], ends[place] = stacked, earned, over
    return frames, rewards, ends


def foresight(config: Config, engine: InferenceEngine, positions: Positions) -> Iterator[Foresight]:
    """How well the network in `engine` foresees them, for each of `MOVES`."""
    discount = config.learner.discount
    count, actions, draws, _ = positions.over.shape
    learned = [_unrolled(engine, positions.observations, action, actions, discount) for action in range(actions)]
    for index, moves in enumerate(MOVES):
        frames = positions.frames[:, :, :, index]
        flat = frames.reshape(-1, *frames.shape[3:])
        values = np.concatenate([engine.initial(part).value.copy() for part in _batches(flat)])
        worth = np.where(positions.over[:, :, :, index], 0.0, values.reshape(count, actions, draws))
        game = positions.rewards[:, :, :, index] + discount**moves * worth
        model = np.stack([returns[index] for returns, _ in learned], axis=1)
        rewards = np.stack([earned[index] for _, earned in learned], axis=1)
        true, foreseen = _differences(game.mean(axis=2)), _differences(model)
        half = draws // 2
        yield Foresight(
            moves=moves,
            agreement=_correlation(true, foreseen),
            most=_correlation(_differences(game[..., :half].mean(axis=2)), _differences(game[..., half:].mean(axis=2))),
            spread=float(foreseen.std()),
            true_spread=float(true.std()),
            rewards=_correlation(positions.rewards[:, :, :, index].mean(axis=2), rewards),
        )


def _unrolled(
    engine: InferenceEngine, observations: Array, action: int, actions: int, discount: float
) -> tuple[list[FloatArray], list[FloatArray]]:
    """(returns, rewards) `[N]` after each of `MOVES`, `action` held in the model."""
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
    return (array[begin : begin + BATCH] for begin in range(0, len(array), BATCH))


def _differences(values: FloatArray) -> FloatArray:
    """How far the values of actions, `[N, A]`, are from their mean."""
    out: FloatArray = values - values.mean(axis=1, keepdims=True)
    return out


def _correlation(first: FloatArray, second: FloatArray) -> float:
    """Over all entries; NaN where one of them does not vary."""
    one, other = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale > 0 else float("nan")
