"""Where libraries keep what they compiled: numba beside its source or in the user's cache folder, others only there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from muzero_ray.errors import MuZeroRayError

CACHE_VARIABLE = "XDG_CACHE_HOME"
"""By which numba, W&B, matplotlib and others find the user's cache folder."""


@contextlib.contextmanager
def make_cache_writable() -> Iterator[None]:
    """In this context the user's cache folder can be written to, by this process and those it starts.

    Where it cannot be (a container under any user id has no home), a private temporary folder stands in; it is removed
    at the end. Must be entered before numba is imported. Raises MuZeroRayError if there is no temporary folder either.
    """
    if is_writable(user_cache()):
        yield
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="muzero-cache-", ignore_cleanup_errors=True)
    except OSError as error:
        raise MuZeroRayError(
            f"neither the cache folder {user_cache()} nor a temporary folder can be written to ({error}). Set TMPDIR "
            f"or {CACHE_VARIABLE} to a folder that can"
        ) from error
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = folder.name
    try:
        with folder:
            yield
    finally:
        if before is None:
            del os.environ[CACHE_VARIABLE]
        else:
            os.environ[CACHE_VARIABLE] = before


def user_cache() -> Path:
    """By the XDG base directory specification. Below `~` itself where the user has no home."""
    return Path(os.environ.get(CACHE_VARIABLE) or os.path.expanduser("~/.cache"))


def is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, which may still have to be made itself."""
    try:
        existing = next(place for place in (folder, *folder.parents) if place.exists())
    except OSError:
        return False
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
