"""Twelve checkpoints that somebody made who means harm. All hashes are right wherever there is one."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy

from chaos.mutations import PICKLE, Mutation, sign
from muzero_ray.runs.checkpoint import list_checkpoints
from muzero_ray.runs.manifest import MANIFEST


def _newest(run: Path) -> Path:
    return list_checkpoints(run / "checkpoints")[0]


def content(name: str, what: str, make: Callable[[], bytes]) -> Mutation:
    """Another content of one file, signed."""

    def mutate(_: random.Random, run: Path) -> str:
        (_newest(run) / name).write_bytes(make())
        sign(_newest(run))
        return f"{name}: {what}"

    return mutate


def _torch_file() -> bytes:
    """What `torch.save` writes: a zip with a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", PICKLE)
    return buffer.getvalue()


def _header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def _giant_tensor() -> bytes:
    return _header(json.dumps({"w": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 4]}}).encode())


def _pickled_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def way_out(_: random.Random, run: Path) -> str:
    (run.parent / "secret").write_text("secret")
    sign(_newest(run), files={"../../../secret": {"sha256": "0" * 64, "bytes": 6}})
    return "the manifest names a file outside"


def linked_folder(_: random.Random, run: Path) -> str:
    newest = _newest(run)
    shutil.move(newest, run.parent / "elsewhere")
    newest.symlink_to(run.parent / "elsewhere")
    return "the checkpoint is a link to a folder elsewhere"


def piped_manifest(_: random.Random, run: Path) -> str:
    (_newest(run) / MANIFEST).unlink()
    os.mkfifo(_newest(run) / MANIFEST)
    return "the manifest is a pipe that nobody writes to"


def bomb(_: random.Random, run: Path) -> str:
    """The index of another replay: its only array claims all memory."""
    arrays = safetensors.numpy.load_file(_newest(run) / "replay_arrays.safetensors")
    arrays["index"] = np.full((200_000, 7), 2**62, np.int64)
    (_newest(run) / "replay_arrays.safetensors").write_bytes(safetensors.numpy.save(arrays))
    sign(_newest(run))
    return "replay_arrays.safetensors: an index of games that are not there"


HANDMADE: tuple[Mutation, ...] = (
    content("model.safetensors", "a pickle", lambda: PICKLE),
    content("model.safetensors", "a file of torch.save", _torch_file),
    content("model.safetensors", "a header longer than any disk", lambda: _header(b"{}", 2**63)),
    content("model.safetensors", "a tensor larger than any memory", _giant_tensor),
    content("optimizer.safetensors", "a numpy file with a pickle", _pickled_array),
    content("state.json", "a pickle", lambda: PICKLE),
    content("state.json", "brackets without end", lambda: b"[" * 1_000_000),
    content("in_flight.json", "a pickle", lambda: PICKLE),
    way_out,
    linked_folder,
    piped_manifest,
    bomb,
)
