"""Games held out: which ones, that no batch to train on meets them, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.types import GameHistory
from tests.replay.games import make_buffer, make_game, slow_value, stored

EVERY = 4


def a_game(seq: int, steps: int | None = None) -> GameHistory:
    return make_game(np.random.default_rng(seq), steps or 3 + seq, seq=seq)


def filled(games: int = 12, *, holdout: float = 1 / EVERY, capacity: int = 1000) -> ReplayBuffer:
    buffer = make_buffer(holdout=holdout, capacity=capacity)
    for seq in range(games):
        buffer.add(a_game(seq))
    return buffer


def test_every_nth_game_is_held_out_and_no_other() -> None:
    buffer = filled()
    trained = set(np.concatenate([buffer.sample(200, 0.5).keys.game for _ in range(10)]).tolist())
    batch = buffer.draw_held_out(400)
    assert batch is not None
    assert set(batch.keys.game.tolist()) == {3, 7, 11}
    assert trained == set(range(12)) - {3, 7, 11}
    assert (buffer.games, buffer.size) == (12, sum(range(3, 15)))


def test_positions_are_drawn_uniformly_with_their_targets() -> None:
    buffer = filled()
    batch = buffer.draw_held_out(20_000)
    assert batch is not None
    places, counts = np.unique(np.stack([batch.keys.game, batch.keys.position]), axis=1, return_counts=True)
    owned = {3: 6, 7: 10, 11: 14}
    assert {(game, position) for game, position in places.T.tolist()} == {
        (game, position) for game, size in owned.items() for position in range(size)
    }
    expected = 20_000 / 30
    assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()
    for row in range(50):
        game, position = int(batch.keys.game[row]), int(batch.keys.position[row])
        whole = a_game(game)
        assert batch.target_value[row, 0] == pytest.approx(slow_value(whole, position), abs=1e-5)
        assert batch.actions[row, 0] == whole.actions[position]
    assert (batch.weights == 1.0).all()


def test_looking_changes_no_later_draw() -> None:
    one, other = filled(), filled()
    for _ in range(3):
        first, again = one.draw_held_out(16), one.draw_held_out(16)
        assert first is not None
        assert again is not None
        np.testing.assert_array_equal(first.keys.position, again.keys.position)
        np.testing.assert_array_equal(one.sample(16, 0.5).keys.position, other.sample(16, 0.5).keys.position)


def test_none_are_held_out_at_share_0_or_before_the_first() -> None:
    assert filled(holdout=0.0).draw_held_out(4) is None
    assert filled(games=3).draw_held_out(4) is None
    assert make_buffer(holdout=0.5).draw_held_out(4) is None


def test_the_only_game_is_trained_on_in_any_case() -> None:
    """Game 3 would be held out, and replay has room for nothing beside it."""
    buffer = make_buffer(holdout=1 / EVERY, capacity=10)
    for seq in range(4):
        buffer.add(a_game(seq, 10))
    assert set(buffer.sample(20, 0.5).keys.game.tolist()) == {3}
    assert buffer.draw_held_out(4) is None


def test_a_restored_buffer_holds_out_the_same_games() -> None:
    """Also if the share is another by then: what was seen in training stays so."""
    games = {seq: a_game(seq) for seq in range(12)}
    buffer = filled(capacity=60)  # the oldest have left
    arrays, meta = buffer.state()
    for holdout in (1 / EVERY, 0.5):
        again = make_buffer(holdout=holdout, capacity=60)
        again.load_state(arrays, meta, [games[id_.seq] for id_ in buffer.game_ids()])
        assert stored(again) == stored(buffer)
        first, second = buffer.draw_held_out(100), again.draw_held_out(100)
        assert first is not None
        assert second is not None
        assert set(first.keys.game.tolist()) == {11, 7}
        np.testing.assert_array_equal(first.keys.position, second.keys.position)
