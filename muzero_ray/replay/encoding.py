"""Games as bytes for disk: magic, JSON header, one zstd frame of raw arrays. No pickle; damaged input is refused."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import zstandard

from muzero_ray.errors import CheckpointError
from muzero_ray.replay.game_validation import validate_game
from muzero_ray.types import Array, GameHistory, GameId, WeightsVersion

_MAGIC = b"MZG1"
_PREFIX = struct.Struct("<4sI")  # magic, length of the JSON header
_MAX_HEADER = 4096
_MAX_GAME_BYTES = 1 << 30
_MAX_DIMENSIONS = 5
_DTYPES = {
    "observations": ("|u1", "<f4"),
    "actions": ("<i4",),
    "rewards": ("<f4",),
    "to_play": ("|i1",),
    "legal": ("|b1",),
    "policies": ("<f4",),
    "root_values": ("<f4",),
}


def encode_game(game: GameHistory) -> bytes:
    """`game` as bytes, arrays bit for bit. Raises ValueError if it is not a valid game."""
    validate_game(game)
    arrays = [np.ascontiguousarray(getattr(game, name)) for name in _DTYPES]
    arrays = [array.astype(array.dtype.newbyteorder("<"), copy=False) for array in arrays]
    header = {
        "id": list(game.id),
        "context": game.context,
        "owned": game.owned,
        "terminated": game.terminated,
        "truncated": game.truncated,
        "version": list(game.version),
        "arrays": [[name, array.dtype.str, list(array.shape)] for name, array in zip(_DTYPES, arrays, strict=True)],
    }
    text = json.dumps(header).encode()
    payload = b"".join(array.tobytes() for array in arrays)
    body = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(payload)
    return _PREFIX.pack(_MAGIC, len(text)) + text + body


def decode_game(data: bytes) -> GameHistory:
    """The game that `encode_game` made `data` of; its observations are read-only. Sizes are checked before anything is
    allocated.

    Raises CheckpointError if `data` is anything else.
    """
    try:
        return _decode(data)
    # Everything that hostile bytes can set off in the JSON, zstd and array layers; programming errors pass.
    except (ValueError, LookupError, TypeError, RecursionError, struct.error, zstandard.ZstdError) as error:
        raise CheckpointError(f"not a stored game ({len(data)} bytes): {error}. The file is damaged") from error


def _decode(data: bytes) -> GameHistory:
    magic, header_length = _PREFIX.unpack_from(data)
    if magic != _MAGIC or header_length > _MAX_HEADER:
        raise ValueError(f"starts with {magic!r}, header of {header_length} bytes")
    body_start = _PREFIX.size + header_length
    header = json.loads(data[_PREFIX.size : body_start])
    names = [entry[0] for entry in header["arrays"]]
    if names != list(_DTYPES):
        raise ValueError(f"arrays {names}")
    layout = [_layout(*entry) for entry in header["arrays"]]
    sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in layout]
    body = data[body_start:]
    # The zstd header, not `max_output_size`, decides what is allocated: look at it first.
    declared = zstandard.frame_content_size(body)
    if declared != sum(sizes) or declared > _MAX_GAME_BYTES:
        raise ValueError(f"arrays of {sum(sizes)} bytes, content of {declared} (limit {_MAX_GAME_BYTES})")
    payload = zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False)
    arrays: dict[str, Array] = {}
    offset = 0
    for name, (dtype, shape), size in zip(names, layout, sizes, strict=True):
        array = np.frombuffer(payload, dtype, math.prod(shape), offset).reshape(shape)
        # Observations are nearly all of the payload; what else there is must not keep it in memory.
        arrays[name] = array if name == "observations" else array.copy()
        offset += size
    # Any byte but 0 and 1 as bool is undefined behaviour in numpy.
    if arrays["legal"].view(np.uint8).max(initial=0) > 1:
        raise ValueError("legal holds bytes other than 0 and 1")
    game = GameHistory(
        id=GameId(*_integers(header["id"], 3)),
        context=_integers([header["context"]], 1)[0],
        owned=_integers([header["owned"]], 1)[0],
        terminated=_flag(header["terminated"]),
        truncated=_flag(header["truncated"]),
        version=WeightsVersion(*_integers(header["version"], 2)),
        **arrays,
    )
    validate_game(game)
    return game


def _layout(name: str, dtype: str, shape: list[int]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    if dtype not in _DTYPES[name] or len(shape) > _MAX_DIMENSIONS or min(_integers(shape, len(shape)), default=0) < 0:
        raise ValueError(f"{name} is {dtype}{shape}")
    return np.dtype(dtype), tuple(shape)


def _integers(values: list[int], count: int) -> list[int]:
    if len(values) != count or any(type(value) is not int or abs(value) >= 1 << 62 for value in values):
        raise ValueError(f"{values} should be {count} integers")
    return values


def _flag(value: bool) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r} should be true or false")
    return value
