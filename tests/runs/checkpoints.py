"""Small checkpoints to save, damage and forge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from muzero_ray.runs.checkpoint import list_checkpoints, save_checkpoint
from muzero_ray.runs.manifest import MANIFEST

EXTRA = {"replay_index.json": b'{"chunks": []}', "selfplay.npz": bytes(range(256))}
FILES = ["model.safetensors", "optimizer.safetensors", "state.json", *EXTRA, MANIFEST]


def save(root: Path, step: int, **options: Any) -> Path:
    rng = np.random.default_rng(step)
    return save_checkpoint(
        root,
        step,
        model={"w": rng.normal(size=(3, 4)).astype(np.float32)},
        optimizer={"w.m": rng.normal(size=(3, 4)).astype(np.float32)},
        state={"step": step, "lr": 0.1},
        **{"extra_files": EXTRA, **options},
    )


def steps(root: Path) -> list[str]:
    return [path.name for path in list_checkpoints(root)]
