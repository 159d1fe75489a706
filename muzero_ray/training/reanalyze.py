"""Reanalyze (MuZero, appendix H): search old positions again with newer weights, to refresh their targets."""

from __future__ import annotations

import numpy as np

from muzero_ray.search.planner import Planner
from muzero_ray.types import Array, BoolArray, FloatArray


def reanalyze_games(
    observations: Array,
    legal: BoolArray,
    planner: Planner,
    rng: np.random.Generator,
    *,
    batch_size: int,
) -> tuple[FloatArray, FloatArray]:
    """New targets of `S` live positions: (policies `[S, A]`, root values `[S]` in env units for the player to move).

    observations: `[S, ...]`, frames stacked. legal: `[S, A]`. Positions are searched `batch_size` at a time; they may
    belong to several games. Where nothing is legal (a game may be truncated so), the value is the network's own, as
    self-play bootstraps it, and the policy means nothing.

    The searches explore nothing (`explore=False`: no Dirichlet or Gumbel noise): noise is there to try new actions in
    the environment, and none is played here, while in a target it only adds variance to the policy and pulls the root
    value down.
    """
    policies = np.zeros(legal.shape, np.float32)
    values = np.zeros(len(legal), np.float32)
    for start in range(0, len(legal), batch_size):
        rows = slice(start, start + batch_size)
        stuck = legal[rows].sum(axis=1) == 0
        allowed = legal[rows] | stuck[:, None]
        greedy = np.zeros(len(stuck), np.float32)
        root, found = planner.plan(observations[rows], allowed, rng, explore=False, temperature=greedy)
        policies[rows] = found.policy_target
        values[rows] = np.where(stuck, root.value, found.root_value)
    return policies, values
