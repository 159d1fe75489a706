"""Training targets: n-step values of a game, and the targets and masks of a batch that is unrolled over K steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from muzero_ray.types import Array, BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Horizon:
    """How far value targets look ahead: td_steps rewards, with a discount per agent step.

    shorten_steps: if newer weights searched a game again, its targets count one reward less for each so many learner
    steps between old and new weights, down to one (EfficientZero's off-policy correction). None: always td_steps.
    """

    td_steps: int
    discount: float
    shorten_steps: int | None = None

    def num_rewards(self, age: int) -> int:
        """How many rewards a target counts. age: learner steps from the weights that played to those that searched."""
        fewer = max(age, 0) // self.shorten_steps if self.shorten_steps is not None else 0
        return max(self.td_steps - fewer, 1)


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
    # Seen by player 0 every sign is +. At the end each target is turned back to the player to move.
    sign = 1.0 - 2.0 * to_play.astype(np.float64)
    earned = rewards * sign[:-1]
    values = np.empty(steps + 1, np.float64)
    full = max(steps + 1 - n, 0)  # how many positions have n steps ahead of them
    values[:full] = discount**n * (root_values * sign)[n:]
    steps_left = np.arange(steps - full, -1, -1)  # of the other positions
    values[full:] = discount**steps_left * (root_values[-1] * sign[-1])
    for i in range(min(n, steps)):
        values[: steps - i] += discount**i * earned[i:]
    return (values * sign).astype(np.float32)


class UnrolledTargets(NamedTuple):
    """Targets of `B` positions, each unrolled over K steps. The fields are those of `types.Batch`."""

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
    """Targets of `B` positions, from their own and the K following rows of `StoredGame`.

    windows: `[B, K + 1]` of `stored_game.row_dtype`, all zero past the last row of the game. steps_left: `[B]`, from
    each position to the end of its game. terminated: `[B]`; if True, value and reward past the end are trained towards
    0 (absorbing state); if False (truncated), they are masked, since nothing is known of them. filler: `[B, K]`, the
    actions past the end.
    """
    step = np.arange(windows.shape[1])
    has_action = step < steps_left[:, None]
    is_state = step <= steps_left[:, None]  # the last state of a game has no action
    return UnrolledTargets(
        actions=np.where(has_action[:, :-1], windows["action"][:, :-1], filler),
        target_value=np.ascontiguousarray(windows["value"]),
        # The model starts at step 0, so it does not predict the reward on the way there.
        target_reward=np.where(step > 0, windows["reward"], np.float32(0.0)),
        target_policy=np.ascontiguousarray(windows["policy"]),
        policy_mask=has_action.astype(np.float32),
        value_mask=(is_state | terminated[:, None]).astype(np.float32),
        observation_mask=is_state[:, 1:].astype(np.float32),
    )
