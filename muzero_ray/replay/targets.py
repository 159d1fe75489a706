"""Training targets: n-step values of a game, and the masks of positions unrolled past its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from muzero_ray.types import Array, BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Horizon:
    """How far value targets look ahead. td_steps: rewards they count. discount: per agent step.

    shorten_steps: for each this many learner steps between the weights that played a game and those that searched it
    last, one reward less is counted, down to one (after EfficientZero, off-policy correction). None: never less.
    """

    td_steps: int
    discount: float
    shorten_steps: int | None = None

    def rewards(self, age: int) -> int:
        """How many rewards a target counts whose search is `age` learner steps younger than its game."""
        off = max(age, 0) // self.shorten_steps if self.shorten_steps is not None else 0
        return max(self.td_steps - off, 1)


def n_step_values(
    rewards: FloatArray, root_values: FloatArray, to_play: NDArray[np.int8], *, n: int, discount: float
) -> FloatArray:
    """Value targets `[T + 1]` of one game: n rewards, then the search value n steps on (MuZero, equation for z_t).

        z[s] = sum_{i < m} discount^i * sign(s, s + i) * rewards[s + i]
               + discount^m * sign(s, s + m) * root_values[s + m]

    with m = min(n, T - s), and sign +1 where the same player moves at both positions, else -1 (two-player, zero-sum).

    rewards: `[T]`, env units; `rewards[t]` is what `actions[t]` earned the player who took it.
    root_values: `[T + 1]`, env units, for the player to move; the last is 0 if the game terminated and the bootstrap
    value if it was truncated. to_play: `[T + 1]`, 0 or 1. n: horizon in agent steps. discount: per agent step.
    """
    steps = len(rewards)
    # In the units of player 0 every sign is +; each target is turned back to its own player at the end.
    sign = 1.0 - 2.0 * to_play.astype(np.float64)
    earned = rewards * sign[:-1]
    values = np.empty(steps + 1, np.float64)
    reach = max(steps + 1 - n, 0)  # positions whose whole horizon lies inside the game
    values[:reach] = discount**n * (root_values * sign)[n:]
    left = np.arange(steps - reach, -1, -1)  # steps left from the others
    values[reach:] = discount**left * (root_values[-1] * sign[-1])
    for i in range(min(n, steps)):
        values[: steps - i] += discount**i * earned[i:]
    return (values * sign).astype(np.float32)


class UnrolledTargets(NamedTuple):
    """Targets of `B` positions over K steps; fields as in `types.Batch`."""

    actions: IntArray
    target_value: FloatArray
    target_reward: FloatArray
    target_policy: FloatArray
    policy_mask: FloatArray
    value_mask: FloatArray
    observation_mask: FloatArray


def unroll_targets(
    windows: Array, steps_left: NDArray[np.int64], terminated: BoolArray, filler: IntArray
) -> UnrolledTargets:
    """Targets from windows over the rows of games (see `stored_game.row_dtype`).

    windows: `[B, K + 1]` rows from each position on, all zero past the end of the game (row `steps_left`).
    steps_left: `[B]`, T - position. terminated: `[B]`, whether the game ended there for good: its absorbing state is
    worth 0 and goes on earning 0, while nothing is known past a truncation. filler: `[B, K]` actions past the end.
    """
    step = np.arange(windows.shape[1])
    inside = step < steps_left[:, None]
    reached = step <= steps_left[:, None]
    return UnrolledTargets(
        actions=np.where(inside[:, :-1], windows["action"][:, :-1], filler),
        target_value=np.ascontiguousarray(windows["value"]),
        # The reward that led to the position itself is not the model's to predict.
        target_reward=np.where(step > 0, windows["reward"], np.float32(0.0)),
        target_policy=np.ascontiguousarray(windows["policy"]),
        policy_mask=inside.astype(np.float32),
        value_mask=(reached | terminated[:, None]).astype(np.float32),
        observation_mask=reached[:, 1:].astype(np.float32),
    )
