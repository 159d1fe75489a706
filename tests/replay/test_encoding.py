import json
import struct
from dataclasses import fields

import hypothesis.strategies as st
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings

from muzero_ray.errors import CheckpointError
from muzero_ray.replay.encoding import decode_game, encode_game
from muzero_ray.types import GameHistory
from tests.replay.games import cut, make_game


def assert_same(one: GameHistory, other: GameHistory) -> None:
    for field in fields(GameHistory):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.tobytes() == b.tobytes()
        else:
            assert (a, type(a)) == (b, type(b))


ARRAYS = ("actions", "rewards", "to_play", "legal", "policies", "root_values")
"""The arrays of a game beside the observations."""


def rewrite(data: bytes, change, payload: bytes | None = None) -> bytes:
    """`data` with its JSON header changed, and perhaps another payload."""
    length = struct.unpack_from("<I", data, 4)[0]
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(change(header)).encode()
    body = data[8 + length :] if payload is None else zstandard.compress(payload)
    return data[:4] + struct.pack("<I", len(text)) + text + body


@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize(("frame", "dtype"), [((2,), np.float32), ((3, 8, 8), np.uint8)])
def test_round_trip_is_exact(end: str, frame: tuple[int, ...], dtype: type) -> None:
    game = make_game(np.random.default_rng(0), 40, end=end, players=2, frame=frame, dtype=dtype, seq=5, actor=3)
    for one in [game, *cut(game, 9)]:
        data = encode_game(one)
        decoded = decode_game(data)
        assert_same(one, decoded)
        assert decoded.rewards.flags.owndata
        assert encode_game(decoded) == data


def test_every_single_damage_is_noticed() -> None:
    data = encode_game(make_game(np.random.default_rng(0), 6))
    for length in range(0, len(data), 7):
        with pytest.raises(CheckpointError):
            decode_game(data[:length])
    with pytest.raises(CheckpointError):
        decode_game(data + b"x")
    header_end = 8 + struct.unpack_from("<I", data, 4)[0]
    for at in [*range(8), *range(header_end, len(data), 5)]:
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(CheckpointError):
            decode_game(bytes(damaged))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.booleans(), st.data())
def test_hostile_bytes_only_ever_raise_checkpoint_errors(noise: bytes, patch: bool, draw: st.DataObject) -> None:
    data = encode_game(make_game(np.random.default_rng(0), 3))
    if patch:
        at = draw.draw(st.integers(0, len(data)))
        noise = data[:at] + noise + data[at + len(noise) :]
    try:
        game = decode_game(noise)
    except CheckpointError:
        return
    assert len(game) == 3  # the header's free fields may change, never the shape of things


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["id", "context", "owned", "terminated", "truncated", "version", "arrays", "shape", "row"]), JUNK
)
def test_hostile_headers_only_ever_raise_checkpoint_errors(key: str, junk: object) -> None:
    data = encode_game(make_game(np.random.default_rng(0), 3))

    def change(header):
        if key == "shape":
            header["arrays"][0][2] = junk
        elif key == "row":
            header["arrays"][4] = junk
        else:
            header[key] = junk
        return header

    try:
        game = decode_game(rewrite(data, change))
    except CheckpointError:
        return
    assert key in ("id", "version", "context", "owned", "terminated", "truncated", "shape", "row")
    assert len(game) == 3


def test_a_bomb_is_refused_before_it_goes_off(monkeypatch: pytest.MonkeyPatch) -> None:
    game = make_game(np.random.default_rng(0), 3)
    data = encode_game(game)
    bomb = rewrite(data, lambda header: header, bytes(256 << 20))

    def huge(header):
        header["arrays"][0][2] = [1 << 40, 2]
        return header

    # A zstd frame header that keeps this promise of 8 TiB, and nothing behind it.
    promise = (8 << 40) + sum(getattr(game, name).nbytes for name in ARRAYS)
    promised = rewrite(data, huge)
    promised = promised[: promised.index(b"}") + 1] + b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", promise)

    class Unused:
        def __init__(self) -> None:
            raise AssertionError("decompressed before the sizes were checked")

    monkeypatch.setattr(zstandard, "ZstdDecompressor", Unused)
    with pytest.raises(CheckpointError, match="content of 268435456"):
        decode_game(bomb)
    with pytest.raises(CheckpointError, match=rf"content of {promise} \(limit"):
        decode_game(promised)


def test_well_formed_files_of_impossible_games_are_refused() -> None:
    data = encode_game(make_game(np.random.default_rng(0), 3))
    for field, value in [("owned", 99), ("context", 1), ("truncated", True)]:
        with pytest.raises(CheckpointError, match=field):
            decode_game(rewrite(data, lambda header, field=field, value=value: header | {field: value}))


def test_a_header_of_nothing_but_brackets() -> None:
    text = b"[" * 4000
    with pytest.raises(CheckpointError):
        decode_game(b"MZG1" + struct.pack("<I", len(text)) + text)


def test_only_valid_games_are_encoded() -> None:
    game = make_game(np.random.default_rng(0), 3)
    game.rewards[1] = np.inf
    with pytest.raises(ValueError, match="NaN or infinity"):
        encode_game(game)
