"""Checkpoints survive kills and show every damage; hostile files are refused."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muzero_ray.acting.generator_state import restore_rng, rng_state
from muzero_ray.errors import CheckpointError
from muzero_ray.runs import checkpoint as module
from muzero_ray.runs.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from muzero_ray.runs.manifest import MANIFEST
from tests.runs.checkpoints import EXTRA, FILES, save, steps

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
    path = save(tmp_path / "checkpoints", 5)
    assert sorted(p.name for p in path.iterdir()) == sorted(FILES)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["5"]
    listed = json.loads((path / MANIFEST).read_text())["files"]
    for name, entry in listed.items():
        content = (path / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


@pytest.mark.parametrize("below", ["", "checkpoints", "checkpoints/20"])
def test_run_folder_root_or_one_checkpoint_can_be_named(tmp_path: Path, below: str) -> None:
    for step in (10, 20):
        save(tmp_path / "checkpoints", step)
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
        save(tmp_path, step, best=score)
    assert steps(tmp_path) == ["6", "5", "4", "1"]
    save(tmp_path, 7, best=9.0)  # of equals the newest
    assert steps(tmp_path) == ["7", "6", "5"]
    assert load_checkpoint(tmp_path / "5").score is None


def test_a_score_measured_later_is_entered_and_kept_for(tmp_path: Path) -> None:
    for step in range(3):
        save(tmp_path, step)
    module.label_checkpoint(tmp_path, 1, 9.0)
    module.label_checkpoint(tmp_path, 7, 99.0)  # not there
    module.label_checkpoint(tmp_path, 2, float("nan"))
    assert [load_checkpoint(tmp_path / str(step)).score for step in range(3)] == [None, 9.0, None]
    for step in range(3, 7):
        save(tmp_path, step)
    assert steps(tmp_path) == ["6", "5", "4", "1"]
    (tmp_path / "5" / MANIFEST).write_bytes(b"damaged")
    module.label_checkpoint(tmp_path, 5, 1.0)  # a warning, no error: the run goes on
    assert (tmp_path / "5" / MANIFEST).read_bytes() == b"damaged"


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (99, 900, 1000):
        save(tmp_path, step)
    assert steps(tmp_path) == ["1000", "900", "99"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 5, best=1.0)
    save(tmp_path, 5, best=2.0)
    assert load_checkpoint(tmp_path).score == 2.0
    assert [p.name for p in tmp_path.iterdir()] == ["5"]


def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path, 4)
    (save(tmp_path, 5)).rename(tmp_path / "5.replaced")
    assert load_checkpoint(tmp_path).step == 5
    save(tmp_path, 5)
    assert steps(tmp_path) == ["5", "4"]


def test_going_on_from_an_older_step_sets_later_ones_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step)
    save(tmp_path, 15)
    assert load_checkpoint(tmp_path).step == 15
    assert steps(tmp_path) == ["15", "10"]
    assert load_checkpoint(tmp_path / "30.abandoned").step == 30
    assert "20.abandoned" in caplog.text


def test_leftovers_of_a_killed_save_are_invisible_and_go(tmp_path: Path) -> None:
    (tmp_path / ".tmp-9-abc").mkdir()
    (tmp_path / ".tmp-9-abc" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_checkpoint(tmp_path)
    save(tmp_path, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["3"]


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
    save(tmp_path, 1)
    writes = []

    def full(path: Path, content: bytes) -> None:
        writes.append(path.name)
        path.write_bytes(content[: len(content) // 2])
        if len(writes) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_synced", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
    assert load_checkpoint(tmp_path).step == 1


KILLED = """
import sys
from pathlib import Path
import numpy as np
from muzero_ray.runs.checkpoint import save_checkpoint
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
