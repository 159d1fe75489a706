"""Reading the checkpoints of a run that goes on: what is replaced or dropped meanwhile is looked for again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from muzero_ray.errors import CheckpointError
from muzero_ray.runs import checkpoint as module
from muzero_ray.runs.checkpoint import load_checkpoint
from tests.runs.checkpoints import save, steps

WRITER = """
import sys
from pathlib import Path
from tests.runs.checkpoints import save
root = Path(sys.argv[1])
for step in range(100_000):
    save(root, step // 2)  # each one is replaced once
    if step == 3:
        print("begun", flush=True)
"""


def meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, *events: Callable[[], Any]) -> None:
    """One event each time that `name` of the module is called, before it is done."""
    real, left = getattr(module, name), list(events)

    def interrupted(*arguments: Any) -> Any:
        if left:
            left.pop(0)()
        return real(*arguments)

    monkeypatch.setattr(module, name, interrupted)


def test_all_checkpoints_that_were_there_are_dropped_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "checkpoints"
    save(root, 10)
    saved = iter(range(20, 60, 10))
    go_on = lambda: save(root, next(saved), keep=1)  # noqa: E731
    meanwhile(monkeypatch, "read_verified", go_on, go_on, go_on)
    assert load_checkpoint(tmp_path).step == 40
    assert steps(root) == ["40"]


@pytest.mark.parametrize("below", ["", "checkpoints/10"])
def test_the_checkpoint_is_replaced_by_another_of_its_step(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest that was read is that of the one, the files are those of the other."""
    root = tmp_path / "checkpoints"
    save(root, 10, extra_files={"part": b"one"})
    meanwhile(monkeypatch, "read_verified", lambda: save(root, 10, extra_files={"part": b"other"}))
    assert load_checkpoint(tmp_path / below).files == {"part": b"other"}


def test_the_checkpoint_is_set_aside_right_after_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its successor has not got its name yet, and the one before it is not the newest."""
    root = tmp_path / "checkpoints"
    for step in (10, 20):
        save(root, step)
    set_aside = iter([lambda: (root / "20").rename(root / "20.replaced")])

    def then_set_aside(real: Callable[[Path], Iterable[Any]]) -> Callable[[Path], list[Any]]:
        def listing(path: Path) -> list[Any]:
            entries = list(real(path))
            next(set_aside, lambda: None)()
            return entries

        return listing

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, then_set_aside(getattr(os, name)))
    assert load_checkpoint(tmp_path).step == 20


def test_what_is_damaged_and_stays_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "checkpoints"
    for step in (10, 20):
        (save(root, step) / "state.json").write_text("{}")
    calls: list[Path] = []
    real = module._read_checkpoint
    monkeypatch.setattr(module, "_read_checkpoint", lambda path, **given: (calls.append(path), real(path, **given))[1])
    with pytest.raises(CheckpointError, match="no good checkpoint"):
        load_checkpoint(tmp_path)
    assert [path.name for path in calls] == ["20", "10"]
    assert len(caplog.records) == 2


def test_one_that_vanishes_for_good_is_named(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 10)
    with pytest.raises(CheckpointError, match="99"):
        load_checkpoint(tmp_path / "checkpoints" / "99")


def test_every_load_beside_a_writer_succeeds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "checkpoints"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        last = 0
        for _ in range(400):
            step = load_checkpoint(tmp_path).step
            assert step >= last
            last = step
        assert last >= 1
    finally:
        writer.kill()
        writer.wait()
    assert not caplog.records
