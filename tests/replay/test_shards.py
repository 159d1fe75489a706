"""Several shards against one replay of all games, and against the formula."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.replay.shards import Part, merge, part_of, plan, split
from muzero_ray.types import Array, Batch, GameHistory, ItemKeys
from tests.replay.games import assert_item, make_buffer, make_game

STEPS = 5
GAMES = (2, 6, 4)
"""How many games each shard has."""


class Sharded:
    """Shards of unlike sizes and masses: shard 1 holds most games, shard 2 the largest errors. `flat` holds all."""

    def __init__(self, alpha: float, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.flat = make_buffer(alpha=alpha)
        self.shards = [make_buffer(alpha=alpha, seed=10 + shard) for shard in range(len(GAMES))]
        self.games: list[list[GameHistory]] = []
        self.powered: list[Array] = []
        """`[games, STEPS]` of each shard: p^alpha."""
        for shard, count in enumerate(GAMES):
            games = [make_game(rng, STEPS, seq=seq, actor=shard) for seq in range(count)]
            for game in games:
                assert self.flat.add(game)
                assert self.shards[shard].add(game)
            self.games.append(games)
            raw = rng.uniform(0.2, 2.0, (count, STEPS)) * (1 + 4 * (shard == 2))
            self.powered.append(raw**alpha)
            self.shards[shard].update_priorities(all_keys(count), raw.ravel().astype(np.float32))
        raw = np.concatenate([powered.ravel() for powered in self.powered]) ** (1 / alpha)
        self.flat.update_priorities(all_keys(sum(GAMES)), raw.astype(np.float32))

    @property
    def masses(self) -> list[float]:
        return [shard.mass for shard in self.shards]

    def sample(self, size: int, beta: float, masses: list[float]) -> Batch:
        return sample(self.shards, size, beta, masses, self.rng)


def sample(shards: list[ReplayBuffer], size: int, beta: float, masses: list[float], rng: np.random.Generator) -> Batch:
    """As the learner does."""
    parts = plan(masses, size, rng)
    return merge(parts, [shards[part.shard].draw(part.size, beta) for part in parts], beta, len(shards)).batch


def all_keys(games: int) -> ItemKeys:
    return ItemKeys(np.repeat(np.arange(games), STEPS), np.tile(np.arange(STEPS, dtype=np.int32), games))


def flat_index(keys: ItemKeys) -> Array:
    """The place of each row's item in a replay of all games, shard after shard."""
    shard, number = keys.game % len(GAMES), keys.game // len(GAMES)
    return (np.cumsum((0, *GAMES))[shard] + number) * STEPS + keys.position


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_draws_are_those_of_one_replay_of_all_games(alpha: float) -> None:
    sharded, draws = Sharded(alpha), 20_000
    powered = np.concatenate([powered.ravel() for powered in sharded.powered])
    assert sharded.flat.mass == pytest.approx(powered.sum(), rel=1e-5)
    assert sharded.masses == pytest.approx([powered.sum() for powered in sharded.powered], rel=1e-5)
    flat, split_up = np.zeros(len(powered)), np.zeros(len(powered))
    for _ in range(draws // 100):
        keys = sharded.flat.sample(100, 1.0).keys
        flat += np.bincount(keys.game * STEPS + keys.position, minlength=len(powered))
        split_up += np.bincount(flat_index(sharded.sample(100, 1.0, sharded.masses).keys), minlength=len(powered))
    expected = draws * powered / powered.sum()
    for counts in (flat, split_up):
        # Independent draws would give a chi-square of 59 degrees of freedom (99.9 %: 99); stratified ones less.
        assert ((counts - expected) ** 2 / expected).sum() < 99


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("stale", [False, True])
def test_importance_weights_are_those_of_the_probabilities_used(beta: float, stale: bool) -> None:
    sharded = Sharded(0.7)
    masses = [3.0, 1.0, 40.0] if stale else sharded.masses
    batch = sharded.sample(64, beta, masses)
    shares = np.array(masses) / sum(masses)
    used = np.concatenate([q * p.ravel() / p.sum() for q, p in zip(shares, sharded.powered, strict=True)])
    if not stale:
        powered = np.concatenate([powered.ravel() for powered in sharded.powered])
        np.testing.assert_allclose(used, powered / powered.sum(), rtol=1e-5)
    weights = (sharded.flat.size * used[flat_index(batch.keys)]) ** -beta
    np.testing.assert_allclose(batch.weights, weights / weights.max(), rtol=1e-5)
    assert batch.weights.dtype == np.float32
    assert batch.weights.max() == 1.0
    assert len(set((batch.keys.game % 3).tolist())) == 3


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_parts_of_a_batch_have_the_weights_of_the_whole(beta: float) -> None:
    """As learners that train together draw: each its part, then they agree on the rarest item."""
    sharded = Sharded(0.7)
    draws = []
    for size in (16, 4, 4):
        parts = plan(sharded.masses, size, sharded.rng)
        draws.append(merge(parts, [sharded.shards[p.shard].draw(p.size, beta) for p in parts], beta, len(GAMES)))
    min_probability = min(draw.min_probability for draw in draws)
    batches = [part_of(draw, min_probability, beta) for draw in draws]
    powered = np.concatenate([powered.ravel() for powered in sharded.powered])
    drawn = np.concatenate([flat_index(batch.keys) for batch in batches])
    weights = (sharded.flat.size * powered[drawn] / powered.sum()) ** -beta
    ours = np.concatenate([batch.weights for batch in batches])
    np.testing.assert_allclose(ours, weights / weights.max(), rtol=1e-5)
    assert ours.dtype == np.float32


def test_every_row_is_the_item_its_key_names() -> None:
    sharded = Sharded(1.0)
    batch = sharded.sample(32, 0.5, sharded.masses)
    for b, (number, position) in enumerate(zip(batch.keys.game.tolist(), batch.keys.position.tolist(), strict=True)):
        assert_item(batch, b, sharded.games[number % 3][number // 3], position)


def test_one_shard_is_the_replay_itself_to_the_bit() -> None:
    one, other = make_buffer(seed=5), make_buffer(seed=5)
    for buffer in (one, other):
        rng = np.random.default_rng(0)
        for seq in range(3):
            buffer.add(make_game(rng, 20, seq=seq))
    expected, batch = one.sample(33, 0.6), sample([other], 33, 0.6, [other.mass], np.random.default_rng(1))
    for field in fields(Batch):
        a, b = getattr(expected, field.name), getattr(batch, field.name)
        for x, y in ((a.game, b.game), (a.position, b.position)) if field.name == "keys" else ((a, b),):
            assert np.asarray(x).dtype == np.asarray(y).dtype
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), field.name


def test_priorities_go_back_to_the_shard_they_came_from() -> None:
    sharded = Sharded(1.0)
    keys = ItemKeys(np.array([3 * 1 + 0, 3 * 5 + 1, 3 * 0 + 0]), np.array([2, 4, 0], np.int32))
    expected = [buffer.state()[0]["priorities"].copy() for buffer in sharded.shards]
    expected[0][[1 * STEPS + 2, 0]] = 7.0, 9.0
    expected[1][5 * STEPS + 4] = 8.0
    for buffer, theirs in zip(sharded.shards, split(keys, np.array([7, 8, 9], np.float32), 3), strict=True):
        buffer.update_priorities(*theirs)
    for buffer, priorities in zip(sharded.shards, expected, strict=True):
        np.testing.assert_array_equal(buffer.state()[0]["priorities"], priorities)


def test_a_plan_follows_the_masses_as_closely_as_whole_numbers_can() -> None:
    rng = np.random.default_rng(0)
    masses = [5.0, 0.0, 30.0, 0.1, 0.0]
    for _ in range(200):
        parts = plan(masses, 64, rng)
        assert sum(part.size for part in parts) == 64
        assert {0, 2} <= {part.shard for part in parts} <= {0, 2, 3}  # nothing can be drawn from an empty one
        for part in parts:
            assert part.share == pytest.approx(masses[part.shard] / 35.1)
            assert abs(part.size - 64 * part.share) < 2
    assert plan([0.3], 8, rng) == [Part(0, 1.0, 8)]
    with pytest.raises(ValueError, match="empty"):
        plan([0.0, 0.0], 8, rng)
