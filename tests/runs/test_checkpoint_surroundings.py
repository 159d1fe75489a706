"""What lies beside the good files of a checkpoint, and what its manifest claims, costs neither memory nor the run."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from muzero_ray.errors import CheckpointError
from muzero_ray.runs.checkpoint import load_checkpoint, save_checkpoint
from muzero_ray.runs.files import read_verified
from muzero_ray.runs.manifest import MANIFEST
from muzero_ray.runs.replay_archive import INDEX_FILE


@pytest.fixture
def memory() -> Iterator[Callable[[], int]]:
    """The most memory that Python has held so far."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("size", [64 << 20, 1 << 40])
def test_a_file_is_not_kept_in_memory_before_its_hash_is_known(
    size: int, memory: Callable[[], int], tmp_path: Path
) -> None:
    (tmp_path / "f").touch()
    os.truncate(tmp_path / "f", size)
    with pytest.raises(CheckpointError, match=r"does not match its SHA-256|more than the"):
        read_verified(tmp_path / "f", size, "0" * 64)
    assert memory() < 8 << 20


def test_weights_can_be_used_whatever_became_of_replay(tmp_path: Path) -> None:
    """Replay's own files in the newest checkpoint are damaged, too."""
    for step in (1, 2):
        model = {"w": np.full(2, step, np.float32)}
        save_checkpoint(tmp_path, step, model=model, optimizer={}, state={}, extra_files={INDEX_FILE: b"{}"})
    (tmp_path / "2" / INDEX_FILE).unlink()
    assert load_checkpoint(tmp_path).step == 1
    assert load_checkpoint(tmp_path, read="learner").step == 2
    assert load_checkpoint(tmp_path / "2", read="learner").model["w"].tolist() == [2.0, 2.0]
    os.truncate(tmp_path / "2" / MANIFEST, 5)
    assert load_checkpoint(tmp_path, read="learner").step == 1


@pytest.mark.parametrize("name", [".tmp-x", "3", "3.replaced", "3.abandoned", "2.replaced", "x", "4"])
@pytest.mark.parametrize("kind", ["file", "dangling link", "link", "pipe", "folder"])
def test_foreign_entries_do_not_stop_a_checkpoint(name: str, kind: str, tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    save_checkpoint(root, 2, model={}, optimizer={}, state={})
    path = root / name
    make: dict[str, Callable[[], object]] = {
        "file": path.touch,
        "dangling link": lambda: path.symlink_to("nowhere"),
        "link": lambda: path.symlink_to(elsewhere),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    make[kind]()
    save_checkpoint(root, 3, model={}, optimizer={}, state={"a": 1})
    assert load_checkpoint(root).state == {"a": 1}
    save_checkpoint(root, 3, model={}, optimizer={}, state={"a": 2})
    assert load_checkpoint(root).state == {"a": 2}
    assert os.listdir(elsewhere) == ["kept"]
