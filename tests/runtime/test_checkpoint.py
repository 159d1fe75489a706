"""Checkpoints survive kills and show every damage; hostile files are refused."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from muzero_ray.errors import CheckpointError
from muzero_ray.runtime import checkpoint as module
from muzero_ray.runtime.checkpoint import (
    MANIFEST,
    list_checkpoints,
    load_checkpoint,
    read_checkpoint_file,
    restore_rng,
    rng_state,
    save_checkpoint,
)

EXTRA = {"replay_index.json": b'{"chunks": []}', "selfplay.npz": bytes(range(256))}
FILES = ["model.safetensors", "optimizer.safetensors", "state.json", *EXTRA, MANIFEST]


def _save(root: Path, step: int, **options: Any) -> Path:
    rng = np.random.default_rng(step)
    return save_checkpoint(
        root,
        step,
        model={"w": rng.normal(size=(3, 4)).astype(np.float32)},
        optimizer={"w.m": rng.normal(size=(3, 4)).astype(np.float32)},
        state={"step": step, "lr": 0.1},
        extra_files=EXTRA,
        **options,
    )


def _steps(root: Path) -> list[str]:
    return [path.name for path in list_checkpoints(root)]


def _forge(folder: Path, contents: dict[str, bytes], entries: dict[str, Any] | None = None, **fields: Any) -> None:
    """A checkpoint whose hashes are right, as someone who means harm would make it."""
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    listed = {n: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for n, c in contents.items()}
    manifest = {"format": 1, "step": 1, "score": None, "files": {**listed, **(entries or {})}, **fields}
    (folder / MANIFEST).write_bytes(module._manifest_bytes(manifest))


def _good_files() -> dict[str, bytes]:
    tensors = safetensors.numpy.save({"w": np.ones(2, np.float32)})
    return {"model.safetensors": tensors, "optimizer.safetensors": tensors, "state.json": b"{}"}


# Round trip.


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = {
        "float": rng.normal(size=(3, 4)).astype(np.float32),
        "transposed": rng.normal(size=(3, 4)).astype(np.float32).T,
        "scalar": np.float32(2.5).reshape(()),
        "empty": np.zeros((0, 3), np.float32),
        "long": np.array([-(2**62)]),
        "bytes": np.arange(5, dtype=np.uint8),
    }
    state = {"big": 2**127 + 1, "float": 0.1 + 0.2, "none": None, "nested": {"list": [1, 2.5, "x"]}}
    path = save_checkpoint(tmp_path, 7, model=model, optimizer={}, state=state, extra_files=EXTRA, best=3.5)
    loaded = load_checkpoint(tmp_path)
    assert (loaded.path, loaded.step, loaded.score) == (path, 7, 3.5)
    assert loaded.state == state
    assert loaded.files == EXTRA
    assert loaded.optimizer == {}
    assert loaded.model.keys() == model.keys()
    for name, array in model.items():
        assert loaded.model[name].dtype == array.dtype
        assert loaded.model[name].shape == array.shape
        np.testing.assert_array_equal(loaded.model[name], array)


def test_folder_holds_the_published_files_and_nothing_else(tmp_path: Path) -> None:
    path = _save(tmp_path / "checkpoints", 5)
    assert sorted(p.name for p in path.iterdir()) == sorted(FILES)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["5"]
    listed = json.loads((path / MANIFEST).read_text())["files"]
    for name, entry in listed.items():
        content = (path / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


@pytest.mark.parametrize("below", ["", "checkpoints", "checkpoints/20"])
def test_run_folder_root_or_one_checkpoint_can_be_named(tmp_path: Path, below: str) -> None:
    for step in (10, 20):
        _save(tmp_path / "checkpoints", step)
    assert load_checkpoint(tmp_path / below).step == 20
    assert load_checkpoint(tmp_path / "checkpoints" / "10").step == 10


def test_random_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rng.normal(size=11)
    rng.integers(0, 10, dtype=np.int32)  # leaves half a word in its buffer
    save_checkpoint(tmp_path, 0, model={}, optimizer={}, state={"rng": rng_state(rng)})
    again = restore_rng(load_checkpoint(tmp_path).state["rng"])
    np.testing.assert_array_equal(again.integers(0, 10, 9, dtype=np.int32), rng.integers(0, 10, 9, dtype=np.int32))
    np.testing.assert_array_equal(again.normal(size=5), rng.normal(size=5))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"bit_generator": "MT19937"},
        {"bit_generator": "PCG64", "state": 5, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": {"state": "x", "inc": 1}, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": {"state": 2**200, "inc": 1}, "has_uint32": 0, "uinteger": 0},
    ],
)
def test_forged_generator_state_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="random generator"):
        restore_rng(state)


# What is kept.


def test_newest_three_and_the_best_are_kept(tmp_path: Path) -> None:
    scores = [1.0, 9.0, None, 3.0, 2.0, float("nan"), 4.0]
    for step, score in enumerate(scores):
        _save(tmp_path, step, best=score)
    assert _steps(tmp_path) == ["6", "5", "4", "1"]
    _save(tmp_path, 7, best=9.0)  # of equals the newest
    assert _steps(tmp_path) == ["7", "6", "5"]
    assert load_checkpoint(tmp_path / "5").score is None


def test_a_score_measured_later_is_entered_and_kept_for(tmp_path: Path) -> None:
    for step in range(3):
        _save(tmp_path, step)
    module.label_checkpoint(tmp_path, 1, 9.0)
    module.label_checkpoint(tmp_path, 7, 99.0)  # not there
    module.label_checkpoint(tmp_path, 2, float("nan"))
    assert [load_checkpoint(tmp_path / str(step)).score for step in range(3)] == [None, 9.0, None]
    for step in range(3, 7):
        _save(tmp_path, step)
    assert _steps(tmp_path) == ["6", "5", "4", "1"]
    (tmp_path / "5" / MANIFEST).write_bytes(b"damaged")
    module.label_checkpoint(tmp_path, 5, 1.0)  # a warning, no error: the run goes on
    assert (tmp_path / "5" / MANIFEST).read_bytes() == b"damaged"


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (99, 900, 1000):
        _save(tmp_path, step)
    assert _steps(tmp_path) == ["1000", "900", "99"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    _save(tmp_path, 5, best=1.0)
    _save(tmp_path, 5, best=2.0)
    assert load_checkpoint(tmp_path).score == 2.0
    assert [p.name for p in tmp_path.iterdir()] == ["5"]


def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path: Path) -> None:
    _save(tmp_path, 4)
    (_save(tmp_path, 5)).rename(tmp_path / "5.replaced")
    assert load_checkpoint(tmp_path).step == 5
    _save(tmp_path, 5)
    assert _steps(tmp_path) == ["5", "4"]


def test_going_on_from_an_older_step_sets_later_ones_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (10, 20, 30):
        _save(tmp_path, step)
    _save(tmp_path, 15)
    assert load_checkpoint(tmp_path).step == 15
    assert _steps(tmp_path) == ["15", "10"]
    assert load_checkpoint(tmp_path / "30.abandoned").step == 30
    assert "20.abandoned" in caplog.text


def test_leftovers_of_a_killed_save_are_invisible_and_go(tmp_path: Path) -> None:
    (tmp_path / ".tmp-9-abc").mkdir()
    (tmp_path / ".tmp-9-abc" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_checkpoint(tmp_path)
    _save(tmp_path, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["3"]


# Damage.


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "delete"])
def test_any_damage_is_found_and_the_one_before_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    _save(tmp_path / "checkpoints", 10)
    newest = _save(tmp_path / "checkpoints", 20)
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
        (_save(tmp_path, step) / "state.json").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"no good checkpoint.*2/state\.json.*1/state\.json"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_checkpoint(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="MANIFEST"):
        load_checkpoint(tmp_path / "99")


def test_one_file_is_read_verified(tmp_path: Path) -> None:
    path = _save(tmp_path, 1)
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


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "state.json", MANIFEST, "model.safetensors"])
def test_bad_extra_names_are_refused_on_saving(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="extra file name"):
        save_checkpoint(tmp_path, 1, model={}, optimizer={}, state={}, extra_files={name: b""})
    assert list(tmp_path.iterdir()) == []


def test_state_that_json_can_not_hold_is_refused_on_saving(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, 1, model={}, optimizer={}, state={"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_older_checkpoint_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1)
    writes = []

    def full(path: Path, content: bytes) -> None:
        writes.append(path.name)
        path.write_bytes(content[: len(content) // 2])
        if len(writes) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_synced", full)
    with pytest.raises(CheckpointError, match="No space left"):
        _save(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
    assert load_checkpoint(tmp_path).step == 1


KILLED = """
import sys
from pathlib import Path
import numpy as np
from muzero_ray.runtime.checkpoint import save_checkpoint
root, step = Path(sys.argv[1]), int(sys.argv[2])
while True:
    step += 1
    model = {f"w{i}": np.full(60_000, step, np.float32) for i in range(8)}
    save_checkpoint(root, step, model=model, optimizer=model, state={"step": step}, extra_files={"x": b"x" * 100_000},
                    best=float(-step))
    if step % 3 == 0:  # replacing is the other path with two renames
        save_checkpoint(root, step, model=model, optimizer=model, state={"step": step})
    print(step, flush=True)
"""


def test_kill_9_during_saves_never_leaves_a_damaged_visible_checkpoint(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    chance = random.Random(0)
    reached = 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(root), str(reached)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged = int(process.stdout.readline())  # at least one save, then anywhere in the next ones
        time.sleep(chance.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
        process.wait()
        process.stdout.close()
        folders = list_checkpoints(root)
        assert folders
        for folder in folders:
            loaded = load_checkpoint(folder)
            assert loaded.state == {"step": loaded.step}
            assert all((array == loaded.step).all() for array in loaded.model.values())
        newest = load_checkpoint(tmp_path).step
        assert newest >= acknowledged > reached  # what was acknowledged stays
        reached = newest
