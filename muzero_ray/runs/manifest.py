"""The manifest of a checkpoint's folder: the size and SHA-256 of each file in it, its step and its score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muzero_ray.errors import CheckpointError
from muzero_ray.runs.files import check_entry, parse_object, read_regular, read_verified

FORMAT = 1
MANIFEST = "MANIFEST.json"
OPTIMIZER_FILE = "optimizer.safetensors"
WEIGHTS_FILES = ("model.safetensors", "state.json")
CORE_FILES = ("model.safetensors", OPTIMIZER_FILE, "state.json")
_MAX_MANIFEST_BYTES = 1 << 20


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Canonical JSON with a hash over itself, so that a flipped bit in a step or score is found too."""
    body = json.dumps({**manifest, "sha256": ""}, sort_keys=True, indent=1)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({**manifest, "sha256": digest}, sort_keys=True, indent=1).encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the checkpoint folder `path`, as `manifest_bytes` wrote it. CheckpointError for anything else."""
    file = path / MANIFEST
    content = read_regular(file, _MAX_MANIFEST_BYTES)
    manifest = parse_object(content, file)
    if set(manifest) != {"format", "step", "score", "files", "sha256"} or manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{file} is not a manifest of format {FORMAT}: another version of the program wrote the checkpoint"
        )
    if content != manifest_bytes({key: value for key, value in manifest.items() if key != "sha256"}):
        raise CheckpointError(f"{file} does not match its own SHA-256: it is damaged")
    step, score, files = manifest["step"], manifest["score"], manifest["files"]
    if type(step) is not int or step < 0 or not (score is None or type(score) is float):
        raise CheckpointError(f"{file}: step={str(step)[:50]!r}, score={str(score)[:50]!r} are not numbers")
    if not isinstance(files, dict) or not set(CORE_FILES) <= set(files):
        raise CheckpointError(f"{file} does not list {', '.join(CORE_FILES)}")
    for name, entry in files.items():
        if not isinstance(entry, dict) or set(entry) != {"sha256", "bytes"}:
            raise CheckpointError(f"{file}: entry of {name[:200]!r} is not sha256 and bytes")
        check_entry(name, entry["sha256"], entry["bytes"], str(file))
    return manifest


def has_checkpoint_file(path: Path, name: str) -> bool:
    """Whether the checkpoint folder `path` lists a file of that name. Raises CheckpointError."""
    return name in read_manifest(path)["files"]


def read_checkpoint_file(path: Path, name: str) -> bytes:
    """One verified file of the checkpoint folder `path`, without the others. Raises CheckpointError."""
    entries = read_manifest(path)["files"]
    if name not in entries:
        raise CheckpointError(f"{path} has no file {name!r}; it lists {', '.join(entries)}")
    return read_verified(path / name, entries[name]["bytes"], entries[name]["sha256"])
