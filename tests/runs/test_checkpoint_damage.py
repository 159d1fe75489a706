"""Every damage to a checkpoint is found, and hostile files are refused."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from muzero_ray.errors import CheckpointError
from muzero_ray.runs.checkpoint import load_checkpoint, save_checkpoint
from muzero_ray.runs.manifest import MANIFEST, manifest_bytes, read_checkpoint_file
from tests.runs.checkpoints import EXTRA, FILES, save


def _forge(folder: Path, contents: dict[str, bytes], entries: dict[str, Any] | None = None, **fields: Any) -> None:
    """A checkpoint whose hashes are right, as someone who means harm would make it."""
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    listed = {n: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for n, c in contents.items()}
    manifest = {"format": 1, "step": 1, "score": None, "files": {**listed, **(entries or {})}, **fields}
    (folder / MANIFEST).write_bytes(manifest_bytes(manifest))


def _good_files() -> dict[str, bytes]:
    tensors = safetensors.numpy.save({"w": np.ones(2, np.float32)})
    return {"model.safetensors": tensors, "optimizer.safetensors": tensors, "state.json": b"{}"}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "delete"])
def test_any_damage_is_found_and_the_one_before_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    save(tmp_path / "checkpoints", 10)
    newest = save(tmp_path / "checkpoints", 20)
    content = bytearray((newest / name).read_bytes())
    if damage == "flip":
        for bit in random.Random(name).sample(range(8 * len(content)), 12):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            (newest / name).write_bytes(flipped)
            with pytest.raises(CheckpointError, match=name):
                load_checkpoint(newest)
    elif damage == "truncate":
        (newest / name).write_bytes(content[:-1])
    elif damage == "extend":
        (newest / name).write_bytes(content + b"\n")
    else:
        (newest / name).unlink()
    assert load_checkpoint(tmp_path).step == 10
    assert f"20/{name}" in caplog.text
    with pytest.raises(CheckpointError, match=name):  # named explicitly: no other is taken instead
        load_checkpoint(newest)


def test_every_bit_of_the_manifest_counts(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, model={}, optimizer={}, state={}, best=1.5)
    content = (path / MANIFEST).read_bytes()
    for index in range(len(content)):
        flipped = bytearray(content)
        flipped[index] ^= 1 << index % 7
        (path / MANIFEST).write_bytes(flipped)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_no_good_checkpoint_is_an_error_never_a_fresh_start(tmp_path: Path) -> None:
    for step in (1, 2):
        (save(tmp_path, step) / "state.json").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"no good checkpoint.*2/state\.json.*1/state\.json"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_checkpoint(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="MANIFEST"):
        load_checkpoint(tmp_path / "99")


def test_one_file_is_read_verified(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert read_checkpoint_file(path, "replay_index.json") == EXTRA["replay_index.json"]
    with pytest.raises(CheckpointError, match="no file"):
        read_checkpoint_file(path, "../1/state.json")
    (path / "replay_index.json").write_bytes(b'{"chunks": {}}')
    with pytest.raises(CheckpointError, match="SHA-256"):
        read_checkpoint_file(path, "replay_index.json")


# Hostile input: all hashes are right.


@pytest.mark.parametrize(
    ("entries", "fields", "reason"),
    [
        ({"../../secret": {"sha256": "0" * 64, "bytes": 6}}, {}, "plain file name"),
        ({"/etc/passwd": {"sha256": "0" * 64, "bytes": 6}}, {}, "plain file name"),
        ({".hidden": {"sha256": "0" * 64, "bytes": 6}}, {}, "plain file name"),
        ({"x": {"sha256": "0" * 64, "bytes": -1}}, {}, "size or SHA-256"),
        ({"x": {"sha256": "0" * 64, "bytes": True}}, {}, "size or SHA-256"),
        ({"x": {"sha256": "0" * 64, "bytes": 1e9}}, {}, "size or SHA-256"),
        ({"x": {"sha256": "zz", "bytes": 1}}, {}, "size or SHA-256"),
        ({"x": {"sha256": None, "bytes": 1}}, {}, "size or SHA-256"),
        ({"x": [1, 2]}, {}, "entry of"),
        ({"state.json": None}, {}, "entry of"),
        ({}, {"files": []}, "does not list"),
        ({}, {"files": {}}, "does not list"),
        ({}, {"step": "1"}, "not numbers"),
        ({}, {"step": -1}, "not numbers"),
        ({}, {"score": "best"}, "not numbers"),
        ({}, {"format": 2}, "format"),
        ({}, {"extra": 1}, "format"),
    ],
)
def test_hostile_manifest_is_refused(
    tmp_path: Path, entries: dict[str, Any], fields: dict[str, Any], reason: str
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    _forge(tmp_path / "checkpoints" / "1", _good_files(), entries, **fields)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(tmp_path)


def _tensors(header: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        _tensors(b"{}", length=2**63),
        _tensors(b" " * (9 << 20)),
        _tensors(b"[" * 10_000),
        _tensors({"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"0000"),
        _tensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"0000"),
        _tensors({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"0000"),
        _tensors({"w": {"dtype": "object", "shape": [1], "data_offsets": [0, 4]}}, b"0000"),
        _tensors({"w": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}, b"0000"),
        _tensors({"w": 5}),
    ],
)
def test_hostile_tensors_are_refused(tmp_path: Path, content: bytes) -> None:
    _forge(tmp_path / "1", {**_good_files(), "model.safetensors": content})
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"5", b"\xff\xfe", b"[" * 100_000, b'{"a": ' * 100_000, b'{"a": ' + b"9" * 10_000 + b"}"]
)
@pytest.mark.parametrize("name", ["state.json", MANIFEST])
def test_hostile_json_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    _forge(tmp_path / "1", {**_good_files(), **({name: content} if name != MANIFEST else {})})
    if name == MANIFEST:
        (tmp_path / "1" / MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(tmp_path)


def test_links_pipes_and_giant_manifests_are_not_read(tmp_path: Path) -> None:
    def link(path: Path) -> None:
        (tmp_path / "secret").write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(tmp_path / "secret")

    def pipe(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def giant(path: Path) -> None:
        os.truncate(path, 1 << 40)  # sparse

    spoils: list[tuple[str, Callable[[Path], None]]] = [
        ("state.json", link),
        ("state.json", pipe),
        ("state.json", giant),
        (MANIFEST, giant),
        (MANIFEST, pipe),
        (MANIFEST, link),
    ]
    for index, (name, spoil) in enumerate(spoils):
        folder = tmp_path / str(index)
        _forge(folder, _good_files())
        spoil(folder / name)
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(folder)
