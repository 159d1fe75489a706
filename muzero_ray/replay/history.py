"""The checks replay makes before it keeps a game."""

from __future__ import annotations

import numpy as np

from muzero_ray.types import GameHistory


def validate(game: GameHistory, *, num_players: int = 2) -> None:
    """Check shapes, dtypes and ranges. Raises ValueError naming game, field, what was expected and what came."""
    steps, num_actions = len(game), game.policies.shape[-1] if game.policies.ndim == 2 else 0

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise ValueError(f"game {tuple(game.id)}: {message}")

    require(steps > 0 and num_actions > 0, f"no steps or actions: policies have shape {game.policies.shape}")
    require(1 <= game.owned <= steps, f"owned={game.owned} is not within 1..{steps}, its number of steps")
    require(game.context >= 0, f"context={game.context} is negative")
    require(not (game.terminated and game.truncated), "both terminated and truncated")
    require(game.observations.dtype in (np.uint8, np.float32), f"observations are {game.observations.dtype}")
    require(game.observations.ndim >= 2, f"observations have shape {game.observations.shape}, frames have none")
    require(
        len(game.observations) == game.context + steps + 1,
        f"{len(game.observations)} frames for context {game.context} and {steps} steps, expected one more",
    )
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
        require(
            array.shape == shape and array.dtype == dtype,
            f"{name} is {array.dtype}{array.shape}, expected {np.dtype(dtype)}{shape}",
        )
    require(
        bool((game.actions >= 0).all() and (game.actions < num_actions).all()),
        f"actions outside 0..{num_actions - 1}",
    )
    require(
        bool((game.to_play >= 0).all() and (game.to_play < num_players).all()),
        f"to_play outside 0..{num_players - 1}",
    )
    for name in ("rewards", "root_values", "policies"):
        require(bool(np.isfinite(getattr(game, name)).all()), f"{name} holds NaN or infinity")
    sums = game.policies.sum(axis=1)
    require(
        bool((game.policies >= 0).all() and (np.abs(sums - 1.0) < 1e-3).all()),
        "policies are not distributions: negative, or not summing to 1",
    )
    require(not game.terminated or game.root_values[-1] == 0, "the root value of a terminal state is not 0")
