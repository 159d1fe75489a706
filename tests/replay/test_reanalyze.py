import numpy as np
import pytest

from muzero_ray.types import WeightsVersion
from tests.replay.games import assert_item, cut, make_buffer, make_game, slow_stack, slow_value


@pytest.mark.parametrize(("end", "searched"), [("terminated", 12), ("truncated", 13)])
@pytest.mark.parametrize(("frame", "dtype"), [((2,), np.float32), ((2, 30, 30), np.uint8)])
def test_new_targets_are_those_of_a_game_played_with_them(end, searched, frame, dtype) -> None:
    rng = np.random.default_rng(0)
    game = make_game(rng, 12, end=end, players=2, frame=frame, dtype=dtype)
    buffer = make_buffer(frame_stack=3, alpha=0.0)
    buffer.add(game)
    (stale,) = buffer.stale_games(5)
    assert stale.game == 0
    expected = np.stack([slow_stack(game, s, 3) for s in range(searched)])
    np.testing.assert_array_equal(stale.observations, expected)
    np.testing.assert_array_equal(stale.legal, game.legal[:searched])
    np.testing.assert_array_equal(stale.to_play, game.to_play[:searched])
    assert stale.legal.any(axis=1).all()  # nothing without a legal move is searched

    policies = rng.dirichlet(np.ones(3), searched).astype(np.float32)
    values = rng.normal(size=searched).astype(np.float32)
    assert buffer.replace_targets(stale.game, policies, values, WeightsVersion(0, 7))
    game.policies[:] = policies[:12]
    game.root_values[:searched] = values
    batch = buffer.sample(36, 1.0)
    for b, position in enumerate(batch.keys.position):
        assert_item(batch, b, game, position, stack=3)


@pytest.mark.parametrize(("searched_at", "n"), [(5, 4), (7, 4), (8, 3), (14, 1), (90, 1), (2, 4)])
def test_targets_of_old_games_count_fewer_rewards(searched_at: int, n: int) -> None:
    rng = np.random.default_rng(1)
    game = make_game(rng, 12, players=2, step=5)
    buffer = make_buffer(alpha=0.0, td_steps=4, shorten_steps=3)
    buffer.add(game)
    game.root_values[:12] = rng.normal(size=12).astype(np.float32)
    buffer.replace_targets(0, game.policies, game.root_values[:12], WeightsVersion(0, searched_at))
    batch = buffer.sample(12, 1.0)
    expected = [slow_value(game, position, n=n) for position in batch.keys.position]
    np.testing.assert_allclose(batch.target_value[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_cut_segments_have_no_search_at_their_last_state() -> None:
    buffer = make_buffer()
    first = cut(make_game(np.random.default_rng(0), 30), 10)[0]
    buffer.add(first)
    assert len(buffer.stale_games(1)[0].observations) == len(first) == 17


def test_oldest_targets_come_first_and_their_age_is_known() -> None:
    rng = np.random.default_rng(0)
    buffer = make_buffer()
    for seq, step in enumerate([30, 10, 20, 10]):
        buffer.add(make_game(rng, 10 * (seq + 1), seq=seq, step=step))
    assert [stale.game for stale in buffer.stale_games(3)] == [1, 3, 2]
    assert [stale.version.step for stale in buffer.stale_games(9)] == [10, 10, 20, 30]
    assert buffer.target_age(100) == pytest.approx((10 * 70 + 20 * 90 + 30 * 80 + 40 * 90) / 100)
    new = np.full((20, 3), 1 / 3, np.float32), np.zeros(20, np.float32), WeightsVersion(0, 90)
    assert buffer.replace_targets(1, *new)
    assert [stale.game for stale in buffer.stale_games(4)] == [3, 2, 0, 1]
    assert buffer.target_age(100) == pytest.approx((10 * 70 + 20 * 10 + 30 * 80 + 40 * 90) / 100)


def test_evicted_games_and_wrong_shapes() -> None:
    rng = np.random.default_rng(0)
    buffer = make_buffer(capacity=15)
    buffer.add(make_game(rng, 10, seq=0))
    stale = buffer.stale_games(1)[0]
    buffer.add(make_game(rng, 10, seq=1))
    policies, values = np.full((10, 3), 1 / 3, np.float32), np.ones(10, np.float32)
    assert not buffer.replace_targets(stale.game, policies, values, WeightsVersion(0, 1))
    with pytest.raises(ValueError, match="10 searchable positions"):
        buffer.replace_targets(1, policies, np.ones(11, np.float32), WeightsVersion(0, 1))
    with pytest.raises(ValueError, match="NaN"):
        buffer.replace_targets(1, policies, values * np.nan, WeightsVersion(0, 1))
    assert buffer.stale_games(1)[0].version.step == 0
