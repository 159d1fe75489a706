"""Random games, and targets computed the slow way: loops that read like the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np

from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.replay.stored_game import StoredGame
from muzero_ray.replay.targets import Horizon
from muzero_ray.types import Array, Batch, GameHistory, GameId, WeightsVersion

UNROLL, TD_STEPS, DISCOUNT, ACTIONS = 3, 4, 0.9, 3


def make_game(
    rng: np.random.Generator,
    steps: int,
    *,
    seq: int = 0,
    actor: int = 0,
    end: str = "terminated",
    players: int = 1,
    first_player: int = 0,
    frame: tuple[int, ...] = (2,),
    dtype: Any = np.float32,
    actions: int = ACTIONS,
    step: int = 0,
) -> GameHistory:
    """A whole game. Every frame holds other numbers than all the rest, none of them 0."""
    size = (steps + 1, *frame)
    observations = rng.integers(1, 256, size) if dtype == np.uint8 else rng.uniform(1.0, 2.0, size)
    root_values = rng.normal(size=steps + 1).astype(np.float32)
    if end == "terminated":
        root_values[-1] = 0.0
    legal = rng.random((steps + 1, actions)) < 0.7
    legal[:, 0] = True
    legal[-1] = end != "terminated"
    turns = np.arange(steps + 1) + first_player
    return GameHistory(
        id=GameId(actor, 0, seq),
        observations=observations.astype(dtype),
        context=0,
        actions=rng.integers(0, actions, steps).astype(np.int32),
        rewards=rng.normal(size=steps).astype(np.float32),
        to_play=(turns % players).astype(np.int8),
        legal=legal,
        policies=rng.dirichlet(np.ones(actions), steps).astype(np.float32),
        root_values=root_values,
        owned=steps,
        terminated=end == "terminated",
        truncated=end == "truncated",
        version=WeightsVersion(0, step),
    )


def cut(game: GameHistory, length: int, *, overlap: int = UNROLL + TD_STEPS, context: int = 3) -> list[GameHistory]:
    """The segments of a whole game, each owning `length` positions; `seq` counts from 0."""
    segments = []
    for seq, start in enumerate(range(0, len(game), length)):
        owned = min(length, len(game) - start)
        stop = min(start + owned + overlap, len(game))
        last = stop == len(game)
        before = min(context, start)
        root_values = game.root_values[start : stop + 1].copy()
        if not last:
            root_values[-1] = 0.0
        segments.append(
            GameHistory(
                id=GameId(game.id.actor, game.id.incarnation, seq),
                observations=game.observations[start - before : stop + 1],
                context=before,
                actions=game.actions[start:stop],
                rewards=game.rewards[start:stop],
                to_play=game.to_play[start : stop + 1],
                legal=game.legal[start : stop + 1],
                policies=game.policies[start:stop],
                root_values=root_values,
                owned=owned,
                terminated=last and game.terminated,
                truncated=last and game.truncated,
                version=game.version,
            )
        )
    return segments


def make_buffer(**settings: Any) -> ReplayBuffer:
    """A small buffer; `settings` replace the defaults below, `seed` seeds its generator."""
    defaults: dict[str, Any] = {
        "capacity": 1000,
        "capacity_bytes": 10_000_000,
        "alpha": 1.0,
        "frame_stack": 1,
        "unroll_steps": UNROLL,
        "horizon": Horizon(
            settings.pop("td_steps", TD_STEPS), settings.pop("discount", DISCOUNT), settings.pop("shorten_steps", None)
        ),
        "num_players": 2,
        "with_next_observations": False,
        "holdout": 0.0,
        "rng": np.random.default_rng(settings.pop("seed", 0)),
    }
    return ReplayBuffer(**(defaults | settings))


def stored(buffer: ReplayBuffer) -> list[StoredGame]:
    """The kept games, oldest first; equal if frames, rows, places and all else are."""
    return list(buffer._store.games.values())


def slow_value(game: GameHistory, s: int, *, n: int = TD_STEPS, discount: float = DISCOUNT) -> float:
    """Value target at position s of a whole game, for the player to move at s."""
    total = 0.0
    for i in range(n):
        if s + i >= len(game):
            break
        sign = 1.0 if game.to_play[s + i] == game.to_play[s] else -1.0
        total += discount**i * sign * float(game.rewards[s + i])
    if s + n < len(game):
        sign = 1.0 if game.to_play[s + n] == game.to_play[s] else -1.0
        total += discount**n * sign * float(game.root_values[s + n])
    elif game.truncated and s <= len(game):
        steps_left = len(game) - s
        sign = 1.0 if game.to_play[len(game)] == game.to_play[s] else -1.0
        total += discount**steps_left * sign * float(game.root_values[len(game)])
    return total


def slow_stack(game: GameHistory, s: int, stack: int) -> Array:
    """Frames s - stack + 1 .. s of a whole game, zeros outside it."""
    zero = np.zeros_like(game.observations[0])
    frames = [game.observations[t] if 0 <= t <= len(game) else zero for t in range(s - stack + 1, s + 1)]
    return np.concatenate(frames)


def assert_item(batch: Batch, b: int, game: GameHistory, s: int, *, stack: int = 1) -> None:
    """Item b of `batch` is position s of the whole game `game`, with all its targets."""
    np.testing.assert_array_equal(batch.observations[b], slow_stack(game, s, stack))
    for k in range(UNROLL + 1):
        t = s + k
        known = t <= len(game) or game.terminated
        assert batch.value_mask[b, k] == known
        assert batch.policy_mask[b, k] == (t < len(game))
        if known:
            value = slow_value(game, t) if t < len(game) or game.truncated else 0.0
            reward = game.rewards[t - 1] if k > 0 and t <= len(game) else 0.0
            np.testing.assert_allclose(batch.target_value[b, k], value, rtol=1e-5, atol=1e-6)
            assert batch.target_reward[b, k] == np.float32(reward)
        if t < len(game):
            np.testing.assert_array_equal(batch.target_policy[b, k], game.policies[t])
        if k < UNROLL:
            if t < len(game):
                assert batch.actions[b, k] == game.actions[t]
            assert 0 <= batch.actions[b, k] < game.policies.shape[1]
            assert batch.observation_mask[b, k] == (t + 1 <= len(game))
            if batch.next_observations is not None and t + 1 <= len(game):
                np.testing.assert_array_equal(batch.next_observations[b, k], slow_stack(game, t + 1, stack))
