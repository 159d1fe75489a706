"""Reanalyze (MuZero, appendix H): search old positions again with newer weights, to refresh their targets."""

from __future__ import annotations

import numpy as np

from muzero_ray.search.planner import Planner
from muzero_ray.types import Array, BoolArray, FloatArray


def reanalyze_positions(
    observations: Array,
    legal: BoolArray,
    planner: Planner,
    rng: np.random.Generator,
    *,
    batch_size: int,
) -> tuple[FloatArray, FloatArray]:
    """New targets of `S` positions: (policies `[S, A]`, root values `[S]` in env units, for the player to move).

    observations: `[S, ...]`, frames stacked. legal: `[S, A]`, legal actions. batch_size: positions searched at once.

    A truncated game may end in a position without legal actions. Its value is the network's own, which self-play also
    bootstraps from; its policy means nothing.

    The search adds no Dirichlet or Gumbel noise (`explore=False`). Noise serves to try new actions in the environment,
    and none is played here. In a target it would only add variance to the policy and lower the root value.
    """
    policies = np.zeros(legal.shape, np.float32)
    values = np.zeros(len(legal), np.float32)
    for start in range(0, len(legal), batch_size):
        rows = slice(start, start + batch_size)
        stuck = legal[rows].sum(axis=1) == 0
        searchable = legal[rows] | stuck[:, None]  # a search needs a legal action
        temperature = np.zeros(len(stuck), np.float32)
        root, result = planner.plan(observations[rows], searchable, rng, explore=False, temperature=temperature)
        policies[rows] = result.policy_target
        values[rows] = np.where(stuck, root.value, result.root_value)
    return policies, values
