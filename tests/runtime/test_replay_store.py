"""Chunks of games: found again by their hash, every damage shown, hostile ones refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from muzero_ray.errors import CheckpointError
from muzero_ray.runtime.replay_store import ChunkRef, ReplayStore


def test_chunks_come_back_and_are_content_addressed(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "replay")
    games = [b"first", b"", bytes(1000)]
    ref = store.append(games)
    empty = store.append([], label="actor3")
    assert store.read(ref) == games
    assert store.read(empty) == []
    assert empty.name.startswith("actor3-")
    assert (ref.count, ref.bytes) == (3, (tmp_path / "replay" / ref.name).stat().st_size)
    assert store.append(games) == ref
    assert len(list((tmp_path / "replay").iterdir())) == 2
    assert ChunkRef.parse(json.loads(json.dumps(dataclasses.asdict(ref)))) == ref


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_chunk_is_refused_and_healed_by_writing_it_again(tmp_path: Path, damage: str) -> None:
    store = ReplayStore(tmp_path)
    ref = store.append([b"game one", b"game two"])
    path = tmp_path / ref.name
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-1])
    with pytest.raises(CheckpointError, match=ref.name):
        store.read(ref)
    store.append([b"game one", b"game two"])
    assert store.read(ref) == [b"game one", b"game two"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"MZCHUNK1",
        b"WRONG..." + struct.pack("<Q", 1) + struct.pack("<Q", 0),
        b"MZCHUNK1" + struct.pack("<QQ", 1, 2**63) + b"x",  # a game longer than the file
        b"MZCHUNK1" + struct.pack("<QQ", 1, 1) + b"xy",  # bytes left over
        b"MZCHUNK1" + struct.pack("<Q", 1),  # no game where one is promised
        b"MZCHUNK1" + struct.pack("<Q", 2**60),
    ],
)
def test_hostile_chunk_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.games").write_bytes(content)
    ref = ChunkRef("a.games", hashlib.sha256(content).hexdigest(), len(content), 1)
    with pytest.raises(CheckpointError, match=r"a\.games"):
        ReplayStore(tmp_path).read(ref)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../a.games"},
        {"name": 5},
        {"sha256": "0"},
        {"bytes": -1},
        {"bytes": "10"},
        {"count": 11},
        {"count": True},
        {"more": 1},
    ],
)
def test_hostile_chunk_reference_is_refused(change: dict[str, Any]) -> None:
    value = {"name": "a.games", "sha256": "0" * 64, "bytes": 10, "count": 1}
    assert dataclasses.asdict(ChunkRef.parse(value)) == value
    with pytest.raises(CheckpointError, match="replay index"):
        ChunkRef.parse({**value, **change})


def test_prune_keeps_named_chunks_and_foreign_files(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path)
    keep, drop = store.append([b"keep"]), store.append([b"drop"])
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".tmp-killed").write_bytes(b"half")
    assert store.prune({keep.name}) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([keep.name, "notes.txt"])
    with pytest.raises(CheckpointError, match=drop.name):
        store.read(drop)
    assert ReplayStore(tmp_path / "absent").prune([]) == 0
