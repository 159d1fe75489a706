"""Checkpoints on disk: complete and verified, or not there at all. No pickle.

    <root>/<step>/  model.safetensors  optimizer.safetensors  state.json  [extra files]  MANIFEST.json

A checkpoint is written into a hidden folder, each file fsynced, the manifest (sizes and SHA-256) last; one rename
makes it visible. Whatever the moment of a crash, every visible checkpoint is whole; what a disk damages later is
found by its hash. Loading reads nothing it has not verified, and treats the folder as possibly hostile.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from muzero_ray.errors import CheckpointError
from muzero_ray.runs.files import PLAIN_NAME, parse_object, read_verified, remove, sync_folder, write_synced
from muzero_ray.runs.layout import RunLayout
from muzero_ray.runs.manifest import (
    CORE_FILES,
    FORMAT,
    MANIFEST,
    OPTIMIZER_FILE,
    WEIGHTS_FILES,
    manifest_bytes,
    read_manifest,
)
from muzero_ray.runs.tensors import dump_tensors, load_tensors
from muzero_ray.types import Array
from muzero_ray.user_paths import reading

logger = logging.getLogger(__name__)

Content = Literal["all", "learner", "weights"]
"""What is read of a checkpoint. `learner`: without the extra files, such as those of replay. `weights`: without the
optimizer, too, which acting does not need. What is not read may be damaged or missing."""

_MAX_STATE_BYTES = 64 << 20
# How often a reader starts over, at most.
_LOOKS = 10
# `<step>.replaced` exists only between the two renames that replace a checkpoint by another of the same step;
# `<step>.abandoned` holds what a run that was resumed from an older step had reached before.
_FOLDER = re.compile(r"(0|[1-9][0-9]{0,17})(\.replaced|\.abandoned)?")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory. score: evaluation return it was saved with. files: the extra files.

    Of what was not asked for (see `Content`), optimizer and files are empty.
    """

    path: Path
    step: int
    score: float | None
    model: dict[str, Array]
    optimizer: dict[str, Array]
    state: dict[str, Any]
    files: dict[str, bytes]


def save_checkpoint(
    root: Path,
    step: int,
    *,
    model: Mapping[str, Array],
    optimizer: Mapping[str, Array],
    state: Mapping[str, Any],
    extra_files: Mapping[str, bytes] | None = None,
    keep: int = 3,
    best: float | None = None,
) -> Path:
    """Write `root/<step>` atomically and durably, then drop all but the newest `keep` and the best. Returns its path.

    root: the run's `checkpoints` folder, made if missing. state: JSON types only; floats and large ints are exact.
    best: this checkpoint's evaluation return (higher is better), or None. A checkpoint of the same step is replaced.
    Those of later steps (the run was resumed from an older one) are renamed `<step>.abandoned` and never deleted.
    Raises CheckpointError if the disk refuses, ValueError for a bad name, step or state. One writer per root.
    """
    files = {
        "model.safetensors": dump_tensors(model),
        OPTIMIZER_FILE: dump_tensors(optimizer),
        "state.json": json.dumps(state, allow_nan=False).encode(),
    }
    for name, content in (extra_files or {}).items():
        if not PLAIN_NAME.fullmatch(name) or name in files or name == MANIFEST:
            raise ValueError(f"extra file name {name!r} is taken or not plain (letters, digits, '.', '_', '-')")
        files[name] = content
    if not 0 <= step < 10**18 or keep < 1:
        raise ValueError(f"checkpoint step={step}, keep={keep}: step must be in [0, 10**18) and keep at least 1")
    score = float(best) if best is not None and math.isfinite(best) else None
    entries = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    files[MANIFEST] = manifest_bytes({"format": FORMAT, "step": step, "score": score, "files": entries})
    temporary = root / f".tmp-{step}-{secrets.token_hex(6)}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        sync_folder(root.parent)
        _remove_leftovers(root)
        temporary.mkdir()
        for name, content in files.items():  # the manifest is last
            write_synced(temporary / name, content)
        sync_folder(temporary)
        _publish(root, temporary, step)
        _prune(root, keep)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"saving the checkpoint of step {step} in {root} failed: {error}. Older checkpoints are intact; "
            "free space or fix permissions there"
        ) from error
    return root / str(step)


def label_checkpoint(root: Path, step: int, score: float) -> None:
    """Enter the score of the weights of `root/<step>`, measured after it was written; nothing if it is not there."""
    path = root / str(step)
    if not path.is_dir() or not math.isfinite(score):
        return
    try:
        manifest = read_manifest(path)
        del manifest["sha256"]
        temporary = path / f".tmp-{secrets.token_hex(6)}"
        write_synced(temporary, manifest_bytes({**manifest, "score": float(score)}))
        temporary.replace(path / MANIFEST)
        sync_folder(path)
    except (CheckpointError, OSError) as error:
        logger.warning("the score of checkpoint %s was not recorded: %s", path, error)


def abandon_later(root: Path, step: int) -> None:
    """Rename checkpoints of later steps `<step>.abandoned`: the run goes on from `step`, they are never loaded."""
    for other in list_checkpoints(root):
        if _step_of(other) > step:
            aside = root / f"{_step_of(other)}.abandoned"
            _discard(aside)
            other.rename(aside)
            logger.warning("%s is later than step %d, from which this run went on: renamed %s", other, step, aside.name)


def load_checkpoint(path: Path, *, read: Content = "all") -> Checkpoint:
    """The newest good checkpoint of a run folder or its `checkpoints` folder, or exactly the one folder given.

    Sizes and hashes are verified. In a run, a damaged checkpoint is reported as a warning and the one before it is
    tried; what a run that goes on replaced or dropped meanwhile is looked for again. Raises CheckpointError if none is
    good; a single folder named explicitly is never replaced by another.
    """
    for _ in range(_LOOKS - 1):
        with contextlib.suppress(_Replaced):
            return _load(Path(path), read)
    return _load(Path(path), read)


def _load(path: Path, read: Content) -> Checkpoint:
    inner = RunLayout(path).checkpoints_folder
    root = inner if inner.is_dir() else path
    candidates = list_checkpoints(root)
    if root == path and (os.path.lexists(path / MANIFEST) or (not candidates and _FOLDER.fullmatch(path.name))):
        return _read_unchanged(path, read)
    if not candidates:
        raise _Replaced(f"{path} holds no checkpoint. Give a run's folder, or one folder below its checkpoints/")
    failures = []
    for candidate in candidates:
        try:
            return _read_unchanged(candidate, read)
        except _Replaced:
            raise
        except CheckpointError as error:
            logger.warning("checkpoint skipped, trying the one before it: %s", error)
            failures.append(str(error))
    raise CheckpointError(f"no good checkpoint in {root}: {'; '.join(failures)}. Restore one from a backup")


class _Replaced(CheckpointError):
    """What was read is not there any more, or another has its name: the run that writes it goes on."""


def _read_unchanged(folder: Path, read: Content) -> Checkpoint:
    before = _identity(folder)
    try:
        return _read_checkpoint(folder, read=read)
    except CheckpointError as error:
        if before is None or _identity(folder) != before:
            raise _Replaced(str(error)) from error
        raise


def _identity(folder: Path) -> tuple[int, int] | None:
    """Differs once another folder has that name; None if there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def list_checkpoints(root: Path) -> list[Path]:
    """Visible checkpoint folders below `root`, newest step first; not verified."""
    found = []
    with reading(root):
        # What an entry is comes with the listing: asked later, one that is just being replaced would be nothing.
        entries = list(os.scandir(root)) if root.is_dir() else []
    for entry in entries:
        match = _FOLDER.fullmatch(entry.name)
        if match and match[2] != ".abandoned" and entry.is_dir(follow_symlinks=False):
            folder = root / entry.name
            found.append((_step_of(folder), match[2] is None, folder))
    return [folder for _, _, folder in sorted(found, reverse=True)]


def _read_checkpoint(path: Path, *, read: Content) -> Checkpoint:
    manifest = read_manifest(path)
    if manifest["files"]["state.json"]["bytes"] > _MAX_STATE_BYTES:
        raise CheckpointError(f"{path}/state.json is larger than {_MAX_STATE_BYTES} bytes")
    contents = {
        name: read_verified(path / name, entry["bytes"], entry["sha256"])
        for name, entry in manifest["files"].items()
        if name in (WEIGHTS_FILES if read == "weights" else CORE_FILES) or read == "all"
    }
    state = parse_object(contents["state.json"], path / "state.json")
    return Checkpoint(
        path=path,
        step=manifest["step"],
        score=manifest["score"],
        model=load_tensors(contents["model.safetensors"], path / "model.safetensors"),
        optimizer=load_tensors(contents[OPTIMIZER_FILE], path / OPTIMIZER_FILE) if OPTIMIZER_FILE in contents else {},
        state=state,
        files={name: content for name, content in contents.items() if name not in CORE_FILES},
    )


def _step_of(folder: Path) -> int:
    return int(folder.name.partition(".")[0])


def _publish(root: Path, temporary: Path, step: int) -> None:
    """Make `temporary` visible as `root/<step>`; a kill between any two lines leaves a loadable checkpoint."""
    abandon_later(root, step)
    final = root / str(step)
    if os.path.lexists(final):
        final.rename(root / f"{step}.replaced")
    temporary.rename(final)
    sync_folder(root)
    _discard(root / f"{step}.replaced")


def _prune(root: Path, keep: int) -> None:
    """Drop all but the newest `keep` and the one of the highest score (of equals the newest)."""
    folders = list_checkpoints(root)
    best = best_checkpoint(folders)
    for folder in folders[keep:]:
        if folder != best:
            _discard(folder)


def best_checkpoint(folders: Sequence[Path]) -> Path | None:
    """That of the highest score among `folders`, newest first (of equals the newest); None if none has a score."""
    scores: dict[Path, float] = {}
    for folder in folders:
        try:
            score = read_manifest(folder)["score"]
        except CheckpointError as error:
            logger.warning("checkpoint without a good manifest: %s", error)
            continue
        if score is not None:
            scores[folder] = score
    return max(scores, key=lambda folder: scores[folder], default=None)


def _discard(folder: Path) -> None:
    """Delete a folder, invisible first: a half deleted checkpoint must not be seen. Or whatever has its name."""
    if os.path.lexists(folder):
        hidden = folder.with_name(f".tmp-gone-{secrets.token_hex(6)}")
        folder.rename(hidden)
        remove(hidden)


def _remove_leftovers(root: Path) -> None:
    """Delete what a killed save left: hidden folders, and replaced checkpoints whose successor is there."""
    for entry in root.iterdir():
        replaced = entry.name.endswith(".replaced") and (root / entry.name.removesuffix(".replaced")).exists()
        if entry.name.startswith(".tmp-") or replaced:
            remove(entry)
