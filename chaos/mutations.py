"""Checkpoints as a failing disk, or somebody who means harm, would leave them. Seeded; each works on a run's folder.

*Damage* changes files and nothing else, so their hashes are wrong. *Forgery* makes the hashes right again.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from muzero_ray.runs.checkpoint import list_checkpoints
from muzero_ray.runs.manifest import MANIFEST

Mutation = Callable[[random.Random, Path], str]
"""Changes the run in the folder; says what it did."""

JUNK: tuple[Any, ...] = (None, True, -1, 0, 2**70, 1.5, float("nan"), "", "x", "../../secret", [], [[[]]], {}, {"a": 1})


class Bomb:
    """Runs a command if it is ever unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("true",)


PICKLE = pickle.dumps(Bomb())


def sign(folder: Path, **fields: Any) -> None:
    """Write the manifest of the files that are in a checkpoint's folder. fields: over what it would say."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST and path.is_file())
    entries = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in files
    }
    manifest = {"format": 1, "step": int(folder.name), "score": None, "files": entries, **fields, "sha256": ""}
    body = json.dumps(manifest, sort_keys=True, indent=1)
    manifest["sha256"] = hashlib.sha256(body.encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest, sort_keys=True, indent=1))


def _file(rng: random.Random, run: Path) -> Path:
    """One of the newest checkpoint, or a replay chunk."""
    newest = list_checkpoints(run / "checkpoints")[0]
    return rng.choice(sorted([*newest.iterdir(), *(run / "replay").glob("*.games")]))


# Damage.


def flip(rng: random.Random, run: Path) -> str:
    path = _file(rng, run)
    content = bytearray(path.read_bytes())
    bits = [rng.randrange(8 * len(content)) for _ in range(rng.choice((1, 1, 2, 20)))]
    for bit in set(bits):
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return f"{len(set(bits))} bits of {path.name} flipped"


def truncate(rng: random.Random, run: Path) -> str:
    path = _file(rng, run)
    size = rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"{path.name} cut to {size} bytes"


def extend(rng: random.Random, run: Path) -> str:
    path = _file(rng, run)
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.choice((1, 100))))
    return f"{path.name} made longer"


def blank(rng: random.Random, run: Path) -> str:
    path = _file(rng, run)
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    end = min(start + 512, len(content))
    same = not any(content[start:end])
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    return f"bytes {start} to {end} of {path.name} zeroed" + (" (they were)" if same else "")


def delete(rng: random.Random, run: Path) -> str:
    path = _file(rng, run)
    path.unlink()
    return f"{path.name} deleted"


def swap(rng: random.Random, run: Path) -> str:
    one, other = _file(rng, run), _file(rng, run)
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    return f"{one.name} and {other.name} swapped"


def link(rng: random.Random, run: Path) -> str:
    path = _file(rng, run)
    target = rng.choice((Path("/etc/passwd"), Path("/dev/zero"), path.with_name("nowhere"), run))
    path.unlink()
    path.symlink_to(target)
    return f"{path.name} linked to {target}"


def odd(rng: random.Random, run: Path) -> str:
    path = _file(rng, run)
    path.unlink()
    kind = rng.choice(("folder", "pipe", "1 TB of nothing", "pickle"))
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(PICKLE)
        if kind != "pickle":
            os.truncate(path, 1 << 40)
    return f"a {kind} in place of {path.name}"


# Forgery.


def edit_json(value: Any, rng: random.Random) -> tuple[Any, str]:
    """`value` with one thing in it changed, anywhere, and where that was."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        if rng.random() < 0.15:
            return {name: other for name, other in value.items() if name != key}, f"without {key}"
        changed, where = edit_json(value[key], rng)
        return {**value, key: changed}, f"{key}.{where}"
    if isinstance(value, list) and value and rng.random() < 0.85:
        index = rng.randrange(len(value))
        if rng.random() < 0.15:
            return [*value[:index], *value[index + 1 :]], f"without item {index}"
        changed, where = edit_json(value[index], rng)
        return [*value[:index], changed, *value[index + 1 :]], f"{index}.{where}"
    junk = rng.choice(JUNK)
    return junk, f"={junk!r}"


def forge_json(rng: random.Random, run: Path) -> str:
    newest = list_checkpoints(run / "checkpoints")[0]
    path = rng.choice(sorted(newest.glob("*.json")))
    changed, where = edit_json(json.loads(path.read_text()), rng)
    path.write_text(json.dumps(changed))
    if path.name != MANIFEST:
        sign(newest)
        return f"{path.name}: {where}, signed"
    if isinstance(changed, dict):
        sign(newest, **{name: value for name, value in changed.items() if name != "sha256"})
    return f"{path.name}: {where}, signed"


def forge_bytes(rng: random.Random, run: Path) -> str:
    newest = list_checkpoints(run / "checkpoints")[0]
    path = rng.choice(sorted(path for path in newest.iterdir() if path.name != MANIFEST))
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 3, 30))):
        content[rng.randrange(min(len(content), rng.choice((16, 2_000, 10**9))))] = rng.randrange(256)
    path.write_bytes(content)
    sign(newest)
    return f"bytes of {path.name} changed, signed"


def forge_tensors(rng: random.Random, run: Path) -> str:
    newest = list_checkpoints(run / "checkpoints")[0]
    path = rng.choice(sorted(newest.glob("*.safetensors")))
    tensors = safetensors.numpy.load_file(path)
    name = rng.choice(sorted(tensors))
    array = tensors.pop(name)
    what = rng.choice(("missing", "renamed", "of another shape", "of another type", "huge numbers"))
    if what == "renamed":
        tensors[rng.choice(("x", "model.x.y", "optimizer", name + "2"))] = array
    elif what == "of another shape":
        tensors[name] = np.zeros((*array.shape, 2), array.dtype)
    elif what == "of another type":
        tensors[name] = array.astype(rng.choice((np.float64, np.int64, np.uint8, np.bool_)))
    elif what == "huge numbers":
        tensors[name] = np.full_like(array, np.iinfo(np.int64).max if array.dtype.kind == "i" else 3e38)
    path.write_bytes(safetensors.numpy.save(tensors))
    sign(newest)
    return f"{path.name}: {name} {what}, signed"


def forge_chunk(rng: random.Random, run: Path) -> str:
    """A replay chunk whose games were changed, and every hash above them."""
    newest = list_checkpoints(run / "checkpoints")[0]
    index = json.loads((newest / "replay_index.json").read_text())
    entry = rng.choice(index["chunks"])
    path = run / "replay" / entry["name"]
    content = path.read_bytes()
    length = struct.unpack_from("<Q", content, 8)[0]
    game, rest = bytearray(content[48 : 48 + length]), content[48 + length :]
    for _ in range(rng.choice((1, 5, 50))):
        game[rng.randrange(min(len(game), rng.choice((400, 10**9))))] = rng.randrange(256)
    record = struct.pack("<Q32s", len(game), hashlib.sha256(game).digest()) + game
    path.write_bytes(content[:8] + record + rest)
    entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (newest / "replay_index.json").write_text(json.dumps(index))
    sign(newest)
    return f"a game in {path.name} changed, signed"


def forge_names(rng: random.Random, run: Path) -> str:
    """Names that lead out of the folder, in the manifest or in the replay index."""
    newest = list_checkpoints(run / "checkpoints")[0]
    name = rng.choice(("../../secret", "/etc/passwd", "..", ".hidden", "a/b", "a\0b", "", "x" * 300))
    if rng.random() < 0.5:
        manifest = json.loads((newest / MANIFEST).read_text())
        sign(newest, files={**manifest["files"], name: {"sha256": "0" * 64, "bytes": rng.choice((0, 6, 2**62))}})
        return f"{MANIFEST} names {name[:20]!r}"
    index = json.loads((newest / "replay_index.json").read_text())
    rng.choice(index["chunks"])["name"] = name
    (newest / "replay_index.json").write_text(json.dumps(index))
    sign(newest)
    return f"replay_index.json names {name[:20]!r}"


DAMAGE: tuple[Mutation, ...] = (flip, truncate, extend, blank, delete, swap, link, odd)
FORGERY: tuple[Mutation, ...] = (forge_json, forge_json, forge_bytes, forge_tensors, forge_chunk, forge_names)
