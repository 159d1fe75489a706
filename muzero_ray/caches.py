"""Where libraries keep what they compiled: numba beside its source or in the user's cache folder, others only there."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from muzero_ray.private_folder import PrivateFolder

CACHE_VARIABLE = "XDG_CACHE_HOME"
"""By which numba, W&B, matplotlib and others find the user's cache folder."""


@contextlib.contextmanager
def make_cache_writable() -> Iterator[None]:
    """In this context the user's cache folder can be written to, by this process and those it starts.

    Where it cannot be (a container under any user id has no home), a private temporary folder stands in. For a user who
    has no home at all it is the home, too. Must be entered before numba is imported. Raises ConfigError if there is no
    temporary folder either.
    """
    if is_writable(user_cache()):
        yield
        return
    names = [CACHE_VARIABLE] if has_home() else [CACHE_VARIABLE, "HOME"]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(_stand_in().path)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@functools.cache
def _stand_in() -> PrivateFolder:
    """Removed with this process, not before: numba goes on writing where it could write when it was imported."""
    return PrivateFolder()


def has_home() -> bool:
    """Whether the environment or the list of users says where it is."""
    return os.path.expanduser("~") != "~"


def user_cache() -> Path:
    """By the XDG base directory specification. Not absolute where the user has no home."""
    return Path(os.environ.get(CACHE_VARIABLE) or os.path.expanduser("~/.cache"))


def is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, which may still have to be made itself. Tried: permissions do not tell."""
    if not folder.is_absolute():
        return False
    try:
        tempfile.TemporaryFile(dir=next(place for place in (folder, *folder.parents) if place.exists())).close()
    except OSError:
        return False
    return True
