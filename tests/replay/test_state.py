"""A restored replay goes on exactly as the one that was saved."""

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from muzero_ray.config.schema import Config
from muzero_ray.errors import CheckpointError
from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.replay.build import make_replay
from muzero_ray.types import Batch, GameHistory, ItemKeys, WeightsVersion
from tests.replay.games import make_buffer, make_game, stored

SETTINGS: dict[str, Any] = {
    "capacity": 60,
    "frame_stack": 2,
    "with_next_observations": True,
    "alpha": 0.7,
    "shorten_steps": 3,  # so that targets depend on both of a game's versions
}


def used_buffer() -> tuple[ReplayBuffer, list[GameHistory]]:
    """Wrapped round, with changed priorities and reanalyzed targets."""
    rng = np.random.default_rng(8)
    buffer = make_buffer(**SETTINGS)
    games = []
    for seq in range(9):
        frame = {"frame": (1, 36, 36), "dtype": np.uint8}
        games.append(make_game(rng, 13, seq=seq, players=2, end="truncated", **frame))
        buffer.add(games[-1])
    batch = buffer.sample(20, 0.5)
    buffer.update_priorities(batch.keys, rng.random(20).astype(np.float32))
    for stale, step in zip(buffer.stale_games(2), (0, 7), strict=True):
        policies = rng.dirichlet(np.ones(3), 14).astype(np.float32)
        # Step 0 is the version it was played with: the targets differ all the same.
        buffer.replace_targets(stale.game, policies, rng.normal(size=14).astype(np.float32), WeightsVersion(0, step))
    return buffer, games


def assert_same_state(one: ReplayBuffer, other: ReplayBuffer) -> None:
    (arrays, meta), (other_arrays, other_meta) = one.state(), other.state()
    assert meta == other_meta
    assert sorted(arrays) == sorted(other_arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, other_arrays[name])
    assert stored(one) == stored(other)


def assert_same(one: Batch, other: Batch) -> None:
    for field in fields(Batch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, ItemKeys):
            a, b = np.stack([a.game, a.position]), np.stack([b.game, b.position])
        np.testing.assert_array_equal(a, b)


def test_the_restored_replay_goes_on_identically() -> None:
    buffer, games = used_buffer()
    arrays, meta = buffer.state()
    meta = json.loads(json.dumps(meta))
    arrays = {name: array.copy() for name, array in arrays.items()}
    other = make_buffer(**SETTINGS, seed=99)
    other.add(make_game(np.random.default_rng(0), 5, frame=(4,), seq=50))  # forgotten on loading
    by_id = {game.id: game for game in games}
    other.load_state(arrays, meta, [by_id[game_id] for game_id in buffer.game_ids()])

    assert_same_state(buffer, other)
    assert (other.size, other.games, other.bytes) == (buffer.size, buffer.games, buffer.bytes)
    assert other.priority_max == buffer.priority_max
    rng = np.random.default_rng(1)
    for seq in range(8, 14):  # 8 was there before
        one, two = buffer.sample(16, 0.5), other.sample(16, 0.5)
        assert_same(one, two)
        priorities = rng.random(16).astype(np.float32)
        game = make_game(rng, int(rng.integers(2, 30)), seq=seq, frame=(1, 36, 36), dtype=np.uint8)
        for each in (buffer, other):
            each.update_priorities(one.keys, priorities)
            assert each.add(game) == (seq > 8)
            assert not each.add(games[0])  # left long ago, still known
        assert buffer.target_age(50) == other.target_age(50)
        assert [s.game for s in buffer.stale_games(9)] == [s.game for s in other.stale_games(9)]
    assert_same_state(buffer, other)


def test_an_empty_replay_can_be_saved() -> None:
    arrays, meta = make_buffer(seed=3).state()
    other = make_buffer(seed=4)
    other.load_state(arrays, json.loads(json.dumps(meta)), [])
    assert other.size == 0
    game = make_game(np.random.default_rng(0), 20)
    buffer = make_buffer(seed=3)
    for each in (buffer, other):
        each.add(game)
    assert_same(buffer.sample(8, 1.0), other.sample(8, 1.0))


def test_parts_that_do_not_fit_are_refused() -> None:
    buffer, games = used_buffer()
    arrays, meta = buffer.state()
    with pytest.raises(CheckpointError, match="9 games found are not the 4"):
        make_buffer(**SETTINGS).load_state(arrays, meta, games)
    with pytest.raises(CheckpointError, match="same config"):
        make_buffer(**SETTINGS, td_steps=9).load_state(arrays, meta, games[-4:])
    arrays["priorities"] = arrays["priorities"][:-1]
    with pytest.raises(CheckpointError, match="51 priorities"):
        make_buffer(**SETTINGS).load_state(arrays, meta, games[-4:])


def test_the_builder_takes_its_settings_from_the_config() -> None:
    cfg = Config.model_validate(
        {
            "env": {"frame_stack": 2},
            "replay": {"capacity": 40, "min_size": 20, "priority_alpha": 0.0},
            "learner": {"unroll_steps": 2, "td_steps": 6, "batch_size": 8, "consistency_weight": 1.0},
        }
    )
    buffer = make_replay(cfg, num_players=1, rng=np.random.default_rng(0))
    for seq in range(3):
        buffer.add(make_game(np.random.default_rng(seq), 20, seq=seq))
    batch = buffer.sample(8, 1.0)
    assert buffer.size == 40
    assert batch.next_observations is not None
    assert batch.next_observations.shape == (8, 2, 4)
    assert batch.target_policy.shape == (8, 3, 3)
    np.testing.assert_array_equal(batch.weights, 1.0)
    assert buffer.replace_targets(
        2, np.eye(3, dtype=np.float32)[[0] * 20], np.ones(20, np.float32), WeightsVersion(0, 1)
    )
