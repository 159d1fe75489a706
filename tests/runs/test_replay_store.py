"""Chunks of games: readable after any death, found again by their hash, every damage shown, hostile ones refused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import resource
import struct
from pathlib import Path
from typing import Any

import pytest

from muzero_ray.errors import CheckpointError
from muzero_ray.runs.replay_store import ChunkRef, ReplayStore, unpack_records, write_records


def pack_records(records: list[bytes]) -> bytes:
    file = io.BytesIO()
    write_records(file, records)
    return file.getvalue()


def written(store: ReplayStore, games: list[bytes]) -> ChunkRef:
    for game in games:
        store.append(game)
    ref = store.seal()
    assert ref is not None
    return ref


def test_sealed_chunks_come_back(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "replay")
    assert store.seal() is None
    games = [b"first", b"", bytes(1000)]
    ref = written(store, games)
    other = written(store, [b"more"])
    assert store.read(ref) == games
    assert store.read(other) == [b"more"]
    assert (ref.count, ref.bytes) == (3, (tmp_path / "replay" / ref.name).stat().st_size)
    assert (ref.name[:10], other.name[:10], store.next_number()) == ("0000000000", "0000000001", 2)
    assert ChunkRef.parse(json.loads(json.dumps(dataclasses.asdict(ref)))) == ref


def test_a_game_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path)
    for count in range(1, 4):
        store.append(b"game %d" % count)
        ((_, games, lost),) = ReplayStore(tmp_path).salvage(0)
        assert games == [b"game %d" % n for n in range(1, count + 1)]
        assert lost == 0
    store.undo()
    store.append(b"instead")
    ref = store.seal()
    assert ref is not None
    assert store.read(ref) == [b"game 1", b"game 2", b"instead"]


def test_a_chunk_cut_anywhere_keeps_its_whole_games(tmp_path: Path) -> None:
    games = [b"one", b"", b"three"]
    content = pack_records(games)
    ends = [len(pack_records(games[:n])) for n in range(4)]
    for size in range(len(content) + 1):
        path = tmp_path / "0000000007-0123456789ab.games"
        path.write_bytes(content[:size])
        whole = sum(size >= end for end in ends[1:])
        kept = max((end for end in ends if end <= size), default=0)
        ((ref, found, lost),) = ReplayStore(tmp_path).salvage(7)
        assert (found, lost) == (games[:whole], size - kept)
        assert path.stat().st_size == ref.bytes == kept
        if kept:
            assert ReplayStore(tmp_path).read(ref) == found
        assert list(ReplayStore(tmp_path).salvage(8)) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_chunk_is_refused(tmp_path: Path, damage: str) -> None:
    store = ReplayStore(tmp_path)
    ref = written(store, [b"game one", b"game two"])
    path = tmp_path / ref.name
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-1])
    with pytest.raises(CheckpointError, match=ref.name):
        store.read(ref)
    if damage != "delete":  # never listed anywhere, it still gives what is whole
        ((_, games, lost),) = store.salvage(0)
        assert games == [b"game one"]
        assert lost > 0


@pytest.mark.parametrize("left", [0, 20])
def test_a_full_disk_leaves_no_trace_and_writing_goes_on_later(tmp_path: Path, left: int) -> None:
    store = ReplayStore(tmp_path)
    store.append(b"before")
    (path,) = tmp_path.iterdir()
    size, limits = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # The kernel takes what is left, and refuses the rest.
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + left, limits[1]))
        with pytest.raises(CheckpointError, match=r"was not written to .* Free space there"):
            store.append(b"lost")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.stat().st_size == size
    ref = written(store, [b"after"])
    assert store.read(ref) == [b"before", b"after"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"MZCHUNK2",
        b"WRONG..." + pack_records([b"x"])[8:],
        b"MZCHUNK2" + struct.pack("<Q", 2**63) + bytes(32) + b"x",  # a game longer than the file
        pack_records([b"x"]) + b"y",  # bytes left over
        pack_records([b"x", b"y"]),  # more than promised
        pack_records([b"x"])[:-1] + b"y",  # another game than its hash says
    ],
)
def test_hostile_chunk_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.games").write_bytes(content)
    ref = ChunkRef("a.games", hashlib.sha256(content).hexdigest(), len(content), 1)
    with pytest.raises(CheckpointError, match=r"a\.games"):
        ReplayStore(tmp_path).read(ref)
    assert len(unpack_records(content)[0]) <= 2


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


def test_prune_keeps_named_and_newer_chunks_and_foreign_files(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path)
    keep, drop, newer = (written(store, [game]) for game in (b"keep", b"drop", b"newer"))
    (tmp_path / "notes.txt").write_text("mine")
    assert store.prune({keep.name}, below=2) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([keep.name, newer.name, "notes.txt"])
    with pytest.raises(CheckpointError, match=drop.name):
        store.read(drop)
    assert ReplayStore(tmp_path / "absent").prune([], below=9) == 0
