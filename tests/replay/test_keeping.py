"""What is kept: identity, eviction, limits, copies, memory."""

import gc
import tracemalloc
from dataclasses import fields, replace

import numpy as np
import pytest

from muzero_ray.errors import ConfigError
from muzero_ray.replay.frames import FrameCodec
from muzero_ray.replay.seen_ids import SeenIds
from muzero_ray.types import GameHistory, GameId, ItemKeys
from tests.replay.games import assert_item, cut, make_buffer, make_game


def test_the_same_id_twice_is_a_no_op_even_after_eviction() -> None:
    rng = np.random.default_rng(0)
    buffer = make_buffer(capacity=20)
    games = [make_game(rng, 10, seq=seq) for seq in range(3)]
    assert buffer.add(games[0])
    assert not buffer.add(games[0])
    assert not buffer.add(make_game(rng, 4, seq=0))
    assert (buffer.size, buffer.games) == (10, 1)
    assert buffer.knows(games[0].id)
    assert not buffer.knows(games[1].id)
    assert buffer.add(games[1])
    assert buffer.add(games[2])  # the first leaves
    assert not buffer.add(games[0])
    assert (buffer.size, buffer.games) == (20, 2)
    assert buffer.knows(games[0].id)
    assert buffer.game_ids() == [games[1].id, games[2].id]
    assert buffer.add(replace(games[0], id=GameId(0, 1, 0)))  # another incarnation of the actor


def test_seen_ids_equal_a_set_and_stay_small() -> None:
    rng = np.random.default_rng(0)
    seen, reference = SeenIds(), set()
    # Nearly in order, as pushes in flight overtake each other.
    for seq in np.argsort(np.arange(3000) + rng.uniform(0, 5, 3000)).tolist():
        game_id = GameId(seq % 3, 0, seq // 3)
        assert (game_id in seen) == (game_id in reference)
        seen.add(game_id)
        reference.add(game_id)
        assert game_id in seen
    assert all(GameId(actor, 0, seq) in seen for actor in range(3) for seq in range(1000))
    assert sorted(seen.state()) == [[actor, 0, 1000] for actor in range(3)]
    # A gap that never closes does not let it grow for ever.
    for seq in range(2000, 6000):
        seen.add(GameId(0, 0, seq))
    assert max(len(row) for row in seen.state()) < 1100
    assert GameId(0, 0, 2000) in seen
    assert GameId(0, 0, 5999) in seen
    assert GameId(0, 0, 6000) not in seen


def test_whole_oldest_games_leave_and_the_rest_stays_right() -> None:
    rng = np.random.default_rng(4)
    buffer = make_buffer(capacity=50, alpha=0.0)
    games: list[GameHistory] = []
    for seq in range(60):
        games.append(make_game(rng, int(rng.integers(1, 25)), seq=seq))
        buffer.add(games[seq])
        kept = len(buffer.game_ids())
        assert buffer.game_ids() == [game.id for game in games[-kept:]]
        assert buffer.size == sum(len(game) for game in games[-kept:]) <= 50
        # No more than needed left: with one game more it would not have fitted.
        assert kept == len(games) or buffer.size + len(games[-kept - 1]) > 50
        batch = buffer.sample(50, 1.0)
        for b, (number, position) in enumerate(zip(batch.keys.game, batch.keys.position, strict=True)):
            assert number >= len(games) - kept
            assert_item(batch, b, games[number], position)


def test_stale_keys_change_nothing() -> None:
    rng = np.random.default_rng(0)
    buffer = make_buffer(capacity=20)
    for seq in range(3):
        buffer.add(make_game(rng, 10, seq=seq))
    before = buffer.state()[0]["priorities"].copy()
    # Game 0 has left; its leaves now belong to game 2.
    buffer.update_priorities(ItemKeys(np.zeros(10, np.int64), np.arange(10, dtype=np.int32)), np.full(10, 99.0))
    np.testing.assert_array_equal(buffer.state()[0]["priorities"], before)
    buffer.update_priorities(ItemKeys(np.array([0, 2]), np.array([3, 3], np.int32)), np.array([99.0, 7.0]))
    before[13] = 7.0
    np.testing.assert_array_equal(buffer.state()[0]["priorities"], before)


@pytest.mark.parametrize(("frame", "dtype"), [((2,), np.float32), ((1, 40, 40), np.uint8)])
def test_nothing_incoming_is_kept(frame: tuple[int, ...], dtype: type) -> None:
    game = make_game(np.random.default_rng(0), 30, frame=frame, dtype=dtype)
    frozen, memories = {}, []
    for field in fields(game):
        value = getattr(game, field.name)
        if isinstance(value, np.ndarray):
            # As Ray hands them over: read-only views of memory that belongs to someone else.
            memories.append(bytearray(value.tobytes()))
            frozen[field.name] = np.frombuffer(memoryview(memories[-1]).toreadonly(), value.dtype).reshape(value.shape)
            assert not frozen[field.name].flags.owndata
    buffer = make_buffer(frame_stack=2, with_next_observations=True)
    buffer.add(replace(game, **frozen))
    frozen.clear()
    gc.collect()
    for memory in memories:
        memory.clear()  # BufferError while any view of it is alive
    batch = buffer.sample(30, 1.0)
    for b, position in enumerate(batch.keys.position):
        assert_item(batch, b, game, position, stack=2)
    # Batches are free to be written to, and do not reach into replay.
    batch.frames[:] = 0
    batch.target_policy[:] = 0
    again = buffer.sample(30, 1.0)
    for b, position in enumerate(again.keys.position):
        assert_item(again, b, game, position, stack=2)


def test_bytes_stay_below_the_bound_and_match_the_memory_taken() -> None:
    rng = np.random.default_rng(0)
    bound = 400_000
    buffer = make_buffer(capacity=100_000, capacity_bytes=bound)
    game = make_game(rng, 60, frame=(6,))
    buffer.add(game)
    one = buffer.bytes
    tracemalloc.start()
    for seq in range(1, 50):
        buffer.add(replace(game, id=GameId(0, 0, seq)))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # The index (40 bytes a transition) was allocated with the buffer.
    assert 0.9 * taken < buffer.bytes - one - 49 * 60 * 40 < 1.2 * taken
    for seq in range(50, 200):
        buffer.add(replace(game, id=GameId(0, 0, seq)))
        assert buffer.bytes <= bound
    assert buffer.games == bound // one


def test_repetitive_frames_are_stored_small_and_exactly() -> None:
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 4, (1, 1, 96, 96), np.uint8) * 60, 100, axis=0)
    frames[np.arange(100), 0, np.arange(100) % 96, 40] = 255
    codec = FrameCodec((1, 96, 96), np.uint8)
    packed = codec.pack(frames)
    assert packed.nbytes < frames.nbytes / 15
    np.testing.assert_array_equal(codec.unpack(packed), frames)
    for start, stop in [(0, 1), (13, 15), (7, 60), (99, 100)]:
        out = np.full((stop - start, 1, 96, 96), 7, np.uint8)
        codec.read(packed, start, stop, out)
        np.testing.assert_array_equal(out, frames[start:stop])


def test_large_float_planes_are_compressed_exactly_too() -> None:
    rng = np.random.default_rng(0)
    planes = (rng.random((30, 17, 9, 9)) < 0.1).astype(np.float32)
    codec = FrameCodec((17, 9, 9), np.float32)
    packed = codec.pack(planes)
    assert packed.nbytes < planes.nbytes / 10
    np.testing.assert_array_equal(codec.unpack(packed), planes)


def test_games_that_could_never_fit_are_config_errors() -> None:
    rng = np.random.default_rng(0)
    game = make_game(rng, 30)
    with pytest.raises(ConfigError, match=r"replay\.capacity=20 .* 30 transitions"):
        make_buffer(capacity=20).add(game)
    with pytest.raises(ConfigError, match=r"replay\.capacity_bytes=1000 "):
        make_buffer(capacity_bytes=1000).add(game)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.full(20, 3, np.int32)}, "actions outside"),
        ({"actions": np.full(20, -1, np.int32)}, "actions outside"),
        ({"actions": np.zeros(20, np.int64)}, "actions is int64"),
        ({"rewards": np.full(20, np.nan, np.float32)}, "rewards holds NaN"),
        ({"rewards": np.zeros(19, np.float32)}, "rewards is float32"),
        ({"root_values": np.ones(21, np.float32)}, "terminal state"),
        ({"policies": np.ones((20, 3), np.float32)}, "distributions"),
        ({"to_play": np.full(21, 2, np.int8)}, "to_play outside"),
        ({"observations": np.zeros((20, 2), np.float32)}, "20 frames"),
        ({"observations": np.zeros((21, 2))}, "float64"),
        ({"owned": 21}, "owned=21"),
        ({"owned": 0}, "owned=0"),
        ({"context": 1}, "context 1"),
        ({"truncated": True}, "both"),
    ],
)
def test_broken_games_are_refused_and_leave_no_trace(change: dict[str, object], message: str) -> None:
    game = make_game(np.random.default_rng(0), 20)
    buffer = make_buffer()
    with pytest.raises(ValueError, match=message):
        buffer.add(replace(game, **change))
    assert (buffer.size, buffer.games, buffer.bytes) == (0, 0, 0)
    assert buffer.add(game)  # its id was not used up


def test_segments_cut_too_short_and_other_kinds_of_game_are_refused() -> None:
    rng = np.random.default_rng(0)
    game = make_game(rng, 40)
    buffer = make_buffer()
    with pytest.raises(ValueError, match="cut 6 steps after"):
        buffer.add(cut(game, 10, overlap=6)[0])
    buffer.add(game)
    with pytest.raises(ValueError, match="replay holds"):
        buffer.add(make_game(rng, 5, seq=1, frame=(3,)))
    with pytest.raises(ValueError, match="replay holds"):
        buffer.add(make_game(rng, 5, seq=1, actions=4))
    with pytest.raises(ValueError, match=r"to_play outside 0\.\.0"):
        make_buffer(num_players=1).add(make_game(rng, 5, players=2))
