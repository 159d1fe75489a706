"""Random changes to the images of a batch that should not change what they are worth (Yarats et al., 2004.13649).

All frames of an item, those that follow it included, are changed alike: what moves between them stays what it was.
Boards may be mirrored, as in AlphaGo Zero, where an action is a column: Connect Four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from muzero_ray.types import Array, Batch

Augmentation = Literal["shift", "intensity", "mirror"]

INTENSITY = 0.05
"""Standard deviation of the factor, which is cut at two of them."""

SHIFT_PARTS = 24
"""Images are shifted by up to this part of their width: 4 pixels of 96."""


def augment(batch: Batch, kinds: Sequence[Augmentation], rng: np.random.Generator) -> Batch:
    """`batch` with its frames `[B, N, C, H, W]` changed: uint8 becomes float32 in [0, 1] if their intensity is.

    Of mirrored items the actions and the policies `[..., W]` are changed, too.
    """
    if "mirror" in kinds:
        batch = _mirrored(batch, rng)
    frames = batch.frames
    if "shift" in kinds:
        frames = _shifted(frames, rng)
    if "intensity" in kinds:
        noise = np.clip(rng.normal(size=(len(frames), 1, 1, 1, 1)), -2.0, 2.0)
        largest = 255.0 if frames.dtype == np.uint8 else 1.0
        frames = frames * ((1.0 + INTENSITY * noise) / largest).astype(np.float32)
    return replace(batch, frames=frames)


def _mirrored(batch: Batch, rng: np.random.Generator) -> Batch:
    """About half of the items with left and right changed; action `a` is column `a`."""
    frames, policies = batch.frames, batch.target_policy
    chosen = rng.integers(2, size=len(frames)).astype(np.bool_)
    return replace(
        batch,
        frames=np.where(chosen[:, None, None, None, None], frames[..., ::-1], frames),
        actions=np.where(chosen[:, None], policies.shape[-1] - 1 - batch.actions, batch.actions),
        target_policy=np.where(chosen[:, None, None], policies[..., ::-1], policies),
    )


def _shifted(frames: Array, rng: np.random.Generator) -> Array:
    """Each item moved by a random number of pixels either way; the edge is repeated where nothing comes in."""
    height, width = frames.shape[-2:]
    most = max(width // SHIFT_PARTS, 1)
    shifted = np.empty_like(frames)
    for item, (down, right) in enumerate(rng.integers(-most, most + 1, size=(len(frames), 2))):
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        shifted[item] = frames[item][..., rows[:, None], columns]
    return shifted
