"""Priorities and importance weights."""

import numpy as np
import pytest

from muzero_ray.replay.buffer import PRIORITY_FLOOR
from muzero_ray.types import ItemKeys
from tests.replay.games import cut, make_buffer, make_game, slow_value


def all_keys(games: int, steps: int) -> ItemKeys:
    return ItemKeys(np.repeat(np.arange(games), steps), np.tile(np.arange(steps, dtype=np.int32), games))


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_importance_weights_match_the_definition(alpha: float, beta: float) -> None:
    rng = np.random.default_rng(1)
    buffer = make_buffer(alpha=alpha)
    for seq in range(3):
        buffer.add(make_game(rng, 10, seq=seq))
    raw = rng.uniform(0.5, 3.0, (3, 10))
    buffer.update_priorities(all_keys(3, 10), raw.ravel().astype(np.float32))
    batch = buffer.sample(16, beta)
    probabilities = raw**alpha / (raw**alpha).sum()
    drawn = [probabilities[g, p] for g, p in zip(batch.keys.game, batch.keys.position, strict=True)]
    weights = np.array([(30 * probability) ** -beta for probability in drawn])
    np.testing.assert_allclose(batch.weights, weights / weights.max(), rtol=1e-5)
    assert batch.weights.max() == 1.0


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_draws_follow_priority_to_the_alpha(alpha: float) -> None:
    rng = np.random.default_rng(2)
    buffer = make_buffer(alpha=alpha)
    for seq in range(4):
        buffer.add(make_game(rng, 5, seq=seq))
    raw = rng.uniform(0.2, 4.0, 20)
    buffer.update_priorities(all_keys(4, 5), raw.astype(np.float32))
    counts = np.zeros(20)
    for _ in range(50):
        keys = buffer.sample(400, 1.0).keys
        counts += np.bincount(keys.game * 5 + keys.position, minlength=20)
    expected = 20_000 * raw**alpha / (raw**alpha).sum()
    # Independent draws would give a chi-square of 19 degrees of freedom (99.9 %: 44); stratified ones less.
    assert ((counts - expected) ** 2 / expected).sum() < 44


def test_every_batch_is_stratified() -> None:
    rng = np.random.default_rng(0)
    buffer = make_buffer(alpha=0.0)
    buffer.add(make_game(rng, 64))
    for _ in range(20):
        assert sorted(buffer.sample(64, 1.0).keys.position.tolist()) == list(range(64))


def test_new_games_enter_with_their_own_error_and_never_with_zero() -> None:
    rng = np.random.default_rng(0)
    game = make_game(rng, 12, players=2)
    game.root_values[3] = slow_value(game, 3)  # no error here
    buffer = make_buffer()
    buffer.add(game)
    errors = [abs(float(game.root_values[s]) - slow_value(game, s)) for s in range(12)]
    expected = np.maximum(errors, PRIORITY_FLOOR)
    np.testing.assert_allclose(buffer.state()[0]["priorities"], expected, rtol=1e-4)
    assert buffer.priority_max == pytest.approx(max(errors), rel=1e-5)
    buffer.update_priorities(all_keys(1, 12), np.zeros(12, np.float32))
    np.testing.assert_array_equal(buffer.state()[0]["priorities"], PRIORITY_FLOOR)


def test_overlap_is_never_drawn() -> None:
    rng = np.random.default_rng(0)
    buffer = make_buffer(alpha=0.0)
    first = cut(make_game(rng, 30), 10)[0]
    buffer.add(first)
    assert (len(first), buffer.size) == (17, 10)
    assert set(buffer.sample(200, 1.0).keys.position.tolist()) == set(range(10))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1])
def test_bad_priorities_are_refused(bad: float) -> None:
    buffer = make_buffer()
    buffer.add(make_game(np.random.default_rng(0), 4))
    before = buffer.state()[0]["priorities"]
    with pytest.raises(ValueError, match="finite and not negative"):
        buffer.update_priorities(all_keys(1, 4), np.array([1, 1, bad, 1], np.float32))
    with pytest.raises(ValueError, match="outside"):
        buffer.update_priorities(ItemKeys(np.array([0]), np.array([4], np.int32)), np.ones(1, np.float32))
    np.testing.assert_array_equal(buffer.state()[0]["priorities"], before)


def test_an_empty_replay_can_not_be_sampled() -> None:
    with pytest.raises(ValueError, match="empty"):
        make_buffer().sample(4, 1.0)
