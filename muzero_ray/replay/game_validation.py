"""The checks replay makes before it keeps a game."""

from __future__ import annotations

import numpy as np

from muzero_ray.types import GameHistory


def validate_game(game: GameHistory, *, num_players: int = 2) -> None:
    """Check shapes, dtypes and ranges. Raises ValueError naming game, field, what was expected and what came."""
    # The values only once the shapes are right.
    if problem := _layout_problem(game) or _value_problem(game, num_players):
        raise ValueError(f"game {tuple(game.id)}: {problem}")


def _layout_problem(game: GameHistory) -> str | None:
    steps, num_actions = len(game), game.policies.shape[-1] if game.policies.ndim == 2 else 0
    if steps == 0 or num_actions == 0:
        return f"no steps or actions: policies have shape {game.policies.shape}"
    if not 1 <= game.owned <= steps:
        return f"owned={game.owned} is not within 1..{steps}, its number of steps"
    if game.context < 0:
        return f"context={game.context} is negative"
    if game.terminated and game.truncated:
        return "both terminated and truncated"
    if game.observations.dtype not in (np.uint8, np.float32):
        return f"observations are {game.observations.dtype}"
    if game.observations.ndim < 2:
        return f"observations have shape {game.observations.shape}, frames have none"
    if len(game.observations) != game.context + steps + 1:
        return f"{len(game.observations)} frames for context {game.context} and {steps} steps, expected one more"
    expected = {
        "actions": ((steps,), np.int32),
        "rewards": ((steps,), np.float32),
        "to_play": ((steps + 1,), np.int8),
        "legal": ((steps + 1, num_actions), np.bool_),
        "policies": ((steps, num_actions), np.float32),
        "root_values": ((steps + 1,), np.float32),
    }
    for name, (shape, dtype) in expected.items():
        array = getattr(game, name)
        if array.shape != shape or array.dtype != dtype:
            return f"{name} is {array.dtype}{array.shape}, expected {np.dtype(dtype)}{shape}"
    return None


def _value_problem(game: GameHistory, num_players: int) -> str | None:
    num_actions = game.policies.shape[1]
    if game.actions.min() < 0 or game.actions.max() >= num_actions:
        return f"actions outside 0..{num_actions - 1}"
    if game.to_play.min() < 0 or game.to_play.max() >= num_players:
        return f"to_play outside 0..{num_players - 1}"
    for name in ("rewards", "root_values", "policies"):
        if not np.isfinite(getattr(game, name)).all():
            return f"{name} holds NaN or infinity"
    sums = game.policies.sum(axis=1)
    if game.policies.min() < 0 or not (np.abs(sums - 1.0) < 1e-3).all():
        return "policies are not distributions: negative, or not summing to 1"
    if game.terminated and game.root_values[-1] != 0:
        return "the root value of a terminal state is not 0"
    return None
