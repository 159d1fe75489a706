"""How the observations of a gymnasium box become what the networks read: layout and scale are decided here alone.

Vectors become float32. Images get their channels first and stay uint8, which the networks read as fractions of 255, or
become float32. Numbers of an integer space are scaled by its bounds, so that a 1 of `Box(0, 1, uint8)` is as much as a
255 of `Box(0, 255, uint8)`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from gymnasium.spaces import Box

from muzero_ray.envs.environment import BrokenContract
from muzero_ray.types import Array

WIDEST_VECTOR, WIDEST_IMAGE = 255, 65_535
"""Nothing is scaled by bounds that are further apart. They may say what the type can hold rather than what is seen; and
the networks that read vectors take logarithms, which keep small numbers apart and large ones small."""


class Scale(NamedTuple):
    """`(x - origin) / span` is what the networks read; arrays of the observation's shape, or numbers."""

    origin: Array
    span: Array

    @property
    def text(self) -> str:
        """For people."""
        origins, spans = np.unique(self.origin), np.unique(self.span)
        if len(origins) > 1 or len(spans) > 1:
            return "scaled by its bounds"
        parts = [f"less {origins[0]:g}"] if origins[0] else []
        parts += [f"scaled by {spans[0]:g}"] if spans[0] != 1 else []
        return ", ".join(parts) or "not scaled"


def scale_of(space: Box, scaling: Literal["bounds", "bytes"]) -> Scale:
    """How the numbers of `space` are scaled; images as a whole, vectors number by number.

    0 stays 0 if the bounds include it. Bounds do not count if they are infinite, or too far apart.
    """
    if space.dtype is None or space.dtype.kind not in "ui":
        return Scale(np.zeros(()), np.ones(()))
    if scaling == "bytes":
        return Scale(np.zeros(()), np.asarray(255.0 if space.dtype == np.uint8 else 1.0))
    low, high, widest = space.low.astype(np.float64), space.high.astype(np.float64), WIDEST_VECTOR
    if len(space.shape) > 1:
        low, high, widest = low.min(), high.max(), WIDEST_IMAGE
    origin = np.where(low > 0, low, np.where(high < 0, high, 0.0))
    span = np.maximum(high - origin, origin - low)
    known = np.asarray((span > 0) & (span <= widest))
    if space.dtype.itemsize > 1:  # of a byte, the limits that gymnasium puts in the place of infinities will do
        bounded = space.bounded_below & space.bounded_above
        known &= bounded if len(space.shape) == 1 else bounded.all()
    return Scale(np.where(known, origin, 0.0), np.where(known, span, 1.0))


class ObservationReader:
    """Reads the observations of one space. shape, dtype: of what it returns. note: what it sees, for people."""

    def __init__(
        self,
        space: Box,
        *,
        channels: Literal["auto", "first", "last"] = "auto",
        scaling: Literal["bounds", "bytes"] = "bounds",
    ) -> None:
        """channels: which axis of three they are; `auto`: the first if it is the shortest, else the last."""
        self._space, self._low, self._high = space, space.low.min(), space.high.max()
        axes = space.shape
        shortest_first = len(axes) == 3 and axes[0] < min(axes[1:])
        self._channels_first = len(axes) == 3 and (channels == "first" or (channels == "auto" and shortest_first))
        self._scale = scale_of(space, scaling)
        self._bytes = space.dtype in (np.uint8, np.bool_) and len(axes) > 1
        self._table = self._byte_table() if self._bytes and space.dtype == np.uint8 and scaling == "bounds" else None
        self._origin = self._scale.origin if np.any(self._scale.origin) else None
        span = np.float32(self._scale.span)
        self._span = span if np.any(span != 1) and not self._bytes else None
        probe = self._layout(np.zeros(axes, np.uint8 if self._bytes else np.float32))
        self.shape: tuple[int, ...] = probe.shape
        self.dtype = str(probe.dtype)
        unclear = len(axes) == 3 and channels == "auto" and not shortest_first and axes[2] >= min(axes[:2])
        self.note = self._describe(unclear=unclear)

    def read(self, raw: Array) -> Array:
        """`raw`, of the space's shape and dtype, as the networks get it: a fresh array, as environments may write their
        next observation over this one. BrokenContract if a table is needed and a number is out of bounds."""
        if raw.ndim == 1:
            return self._scaled(raw)
        planes = self._layout(raw)
        if raw.dtype == np.bool_:
            return planes.astype(np.uint8, order="C") * np.uint8(255)
        if not self._bytes:
            return np.ascontiguousarray(self._scaled(planes))
        if self._table is None:
            return planes.astype(np.uint8, order="C")
        if raw.min() < self._low or raw.max() > self._high:
            wanted = f"numbers from {self._low} to {self._high} as its space says (or set env.scaling=bytes)"
            raise BrokenContract("wrong observation", expected=wanted, got=f"{raw.min()} to {raw.max()}")
        return np.take(self._table, planes)

    def _layout(self, raw: Array) -> Array:
        """Channels first; a view."""
        return raw if raw.ndim == 1 or self._channels_first else np.moveaxis(np.atleast_3d(raw), -1, 0)

    def _scaled(self, raw: Array) -> Array:
        """float32."""
        numbers = (raw if self._origin is None else raw - self._origin).astype(np.float32)
        return numbers if self._span is None else numbers / self._span

    def _byte_table(self) -> Array | None:
        """For each byte, the byte that stands for the same share of 255; None if that is the byte itself."""
        origin, span = float(self._scale.origin), float(self._scale.span)
        if (origin, span) == (0.0, 255.0):
            return None
        shares: Array = np.clip((np.arange(256) - origin) / span, 0.0, 1.0)  # `read` looks up none that is cut
        table: Array = np.rint(shares * 255).astype(np.uint8)
        return table

    def _describe(self, *, unclear: bool) -> str:
        space = self._space
        if space.dtype == np.bool_:
            return "bool"
        note = f"{space.dtype} {self._low:g}..{self._high:g}, {self._scale.text}"
        if unclear:
            note += f" (the shape {space.shape} does not tell which axis is the channels: if it is the first, set "
            note += "--env.channels first)"
        return note
