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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from muzero_ray.errors import CheckpointError
from muzero_ray.runs.files import PLAIN_NAME, parse_object, read_verified, remove, sync_folder, write_synced
from muzero_ray.runs.manifest import CORE_FILES, FORMAT, MANIFEST, manifest_bytes, read_manifest
from muzero_ray.types import Array
from muzero_ray.user_paths import reading

logger = logging.getLogger(__name__)

_MAX_STATE_BYTES = 64 << 20
# A header holds about 100 bytes per tensor; the limit keeps a forged one from costing memory before it is refused.
_MAX_HEADER_BYTES = 8 << 20
# How often a reader starts over, at most.
_LOOKS = 10
# `<step>.replaced` exists only between the two renames that replace a checkpoint by another of the same step;
# `<step>.abandoned` holds what a run that was resumed from an older step had reached before.
_FOLDER = re.compile(r"(0|[1-9][0-9]{0,17})(\.replaced|\.abandoned)?")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory. score: evaluation return it was saved with. files: the extra files."""

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
        "model.safetensors": _dump_tensors(model),
        "optimizer.safetensors": _dump_tensors(optimizer),
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


def load_checkpoint(path: Path, *, core_only: bool = False) -> Checkpoint:
    """The newest good checkpoint of a run folder or its `checkpoints` folder, or exactly the one folder given.

    Sizes and hashes are verified. In a run, a damaged checkpoint is reported as a warning and the one before it is
    tried; what a run that goes on replaced or dropped meanwhile is looked for again. Raises CheckpointError if none is
    good; a single folder named explicitly is never replaced by another.
    core_only: without the extra files, such as those of replay, which may then be damaged or missing.
    """
    for _ in range(_LOOKS - 1):
        with contextlib.suppress(_Replaced):
            return _load(Path(path), core_only)
    return _load(Path(path), core_only)


def _load(path: Path, core_only: bool) -> Checkpoint:
    root = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    candidates = list_checkpoints(root)
    if root == path and (os.path.lexists(path / MANIFEST) or (not candidates and _FOLDER.fullmatch(path.name))):
        return _read_unchanged(path, core_only)
    if not candidates:
        raise _Replaced(f"{path} holds no checkpoint. Give a run's folder, or one folder below its checkpoints/")
    failures = []
    for candidate in candidates:
        try:
            return _read_unchanged(candidate, core_only)
        except _Replaced:
            raise
        except CheckpointError as error:
            logger.warning("checkpoint skipped, trying the one before it: %s", error)
            failures.append(str(error))
    raise CheckpointError(f"no good checkpoint in {root}: {'; '.join(failures)}. Restore one from a backup")


class _Replaced(CheckpointError):
    """What was read is not there any more, or another has its name: the run that writes it goes on."""


def _read_unchanged(folder: Path, core_only: bool) -> Checkpoint:
    before = _identity(folder)
    try:
        return _read_checkpoint(folder, core_only=core_only)
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
        entries = list(root.iterdir()) if root.is_dir() else []
    for entry in entries:
        match = _FOLDER.fullmatch(entry.name)
        if match and match[2] != ".abandoned" and entry.is_dir() and not entry.is_symlink():
            found.append((_step_of(entry), match[2] is None, entry))
    return [entry for _, _, entry in sorted(found, reverse=True)]


def _dump_tensors(tensors: Mapping[str, Array]) -> bytes:
    # order="C", because safetensors writes the memory of a transposed view as it lies.
    return safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in tensors.items()})


def load_tensors(content: bytes, path: Path) -> dict[str, Array]:
    """Of a safetensors file. CheckpointError naming `path`, where the content came from, if it is anything else."""
    header = int.from_bytes(content[:8], "little")
    if len(content) < 8 or header > min(_MAX_HEADER_BYTES, len(content) - 8):
        raise CheckpointError(f"{path}: header of {header} bytes is beyond the file or {_MAX_HEADER_BYTES}")
    try:
        return dict(safetensors.numpy.load(content))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not a valid safetensors file: {error}") from error


def _read_checkpoint(path: Path, *, core_only: bool = False) -> Checkpoint:
    manifest = read_manifest(path)
    if manifest["files"]["state.json"]["bytes"] > _MAX_STATE_BYTES:
        raise CheckpointError(f"{path}/state.json is larger than {_MAX_STATE_BYTES} bytes")
    contents = {
        name: read_verified(path / name, entry["bytes"], entry["sha256"])
        for name, entry in manifest["files"].items()
        if name in CORE_FILES or not core_only
    }
    state = parse_object(contents["state.json"], path / "state.json")
    return Checkpoint(
        path=path,
        step=manifest["step"],
        score=manifest["score"],
        model=load_tensors(contents["model.safetensors"], path / "model.safetensors"),
        optimizer=load_tensors(contents["optimizer.safetensors"], path / "optimizer.safetensors"),
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
    scores: dict[Path, float] = {}
    for folder in folders:
        try:
            score = read_manifest(folder)["score"]
        except CheckpointError as error:
            logger.warning("checkpoint without a good manifest: %s", error)
            continue
        if score is not None:
            scores[folder] = score
    best = max(scores, key=lambda folder: scores[folder], default=None)
    for folder in folders[keep:]:
        if folder != best:
            _discard(folder)


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
