"""Batches item by item against slow loops over the whole game: targets, masks, stacks, segment borders."""

import numpy as np
import pytest

from tests.replay.games import assert_item, cut, make_buffer, make_game


@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize(("players", "first_player"), [(1, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize(("frame", "dtype"), [((2,), np.float32), ((1, 40, 40), np.uint8), ((3, 24, 24), np.uint8)])
@pytest.mark.parametrize("frame_stack", [1, 4])
def test_whole_games(end, players, first_player, frame, dtype, frame_stack) -> None:
    rng = np.random.default_rng(3)
    buffer = make_buffer(alpha=0.0, frame_stack=frame_stack, with_next_observations=True, num_players=players)
    games = [
        make_game(rng, steps, seq=i, end=end, players=players, first_player=first_player, frame=frame, dtype=dtype)
        for i, steps in enumerate([1, 2, 9, 37])
    ]
    for game in games:
        assert buffer.add(game)
    batch = buffer.sample(200, 1.0)
    seen = set()
    for b, (number, position) in enumerate(zip(batch.keys.game, batch.keys.position, strict=True)):
        assert_item(batch, b, games[number], position, stack=frame_stack)
        seen.add((number, position))
    assert len(seen) == 49  # uniform and stratified: 200 draws meet every position


@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize("length", [1, 5, 8, 13, 60])
@pytest.mark.parametrize(("frame", "dtype"), [((2,), np.float32), ((1, 40, 40), np.uint8)])
@pytest.mark.parametrize("players", [1, 2])
def test_a_cut_game_gives_the_same_items_as_the_whole(end, length, frame, dtype, players) -> None:
    rng = np.random.default_rng(length)
    game = make_game(rng, 60, end=end, players=players, first_player=players - 1, frame=frame, dtype=dtype)
    buffer = make_buffer(alpha=0.0, frame_stack=4, with_next_observations=True)
    for segment in cut(game, length):
        assert buffer.add(segment)
    assert buffer.size == 60
    batch = buffer.sample(240, 1.0)
    whole = batch.keys.game * length + batch.keys.position
    for b, position in enumerate(whole):
        assert_item(batch, b, game, int(position), stack=4)
    assert set(whole.tolist()) == set(range(60))


def test_initial_priorities_of_a_cut_game_are_those_of_the_whole() -> None:
    game = make_game(np.random.default_rng(0), 50)
    whole, parts = make_buffer(), make_buffer()
    whole.add(game)
    for segment in cut(game, 7):
        parts.add(segment)
    np.testing.assert_array_equal(whole.state()[0]["priorities"], parts.state()[0]["priorities"])


def test_filler_actions_cover_the_legal_range() -> None:
    buffer = make_buffer()
    buffer.add(make_game(np.random.default_rng(0), 1, actions=5))
    filler = buffer.sample(400, 1.0).actions[:, 1:]
    assert set(filler.ravel().tolist()) == set(range(5))
    assert filler.dtype == np.int32
