"""The user's cache folder, where numba and others keep what they compiled, and another one if it is not writable."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from muzero_ray.private_folder import PrivateFolder

CACHE_VARIABLE = "XDG_CACHE_HOME"
"""The environment variable by which numba, W&B, matplotlib and others find the user's cache folder."""


@contextlib.contextmanager
def make_cache_writable() -> Iterator[None]:
    """In this context the user's cache folder can be written to, by this process and those it starts.

    If it is not writable (as in a container under an arbitrary user id), a private temporary folder stands in for it,
    and for the home of a user who has none. Must be entered before numba is imported. Raises ConfigError if there is no
    temporary folder either.
    """
    if is_writable(user_cache()):
        yield
        return
    names = [CACHE_VARIABLE] if has_home() else [CACHE_VARIABLE, "HOME"]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(_temporary_cache().path)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@functools.cache
def _temporary_cache() -> PrivateFolder:
    """One for the whole process: numba goes on writing into the folder that it found when it was imported."""
    return PrivateFolder()


def has_home() -> bool:
    """Whether the user has a home folder, by HOME or the list of users."""
    return os.path.expanduser("~") != "~"


def user_cache() -> Path:
    """The folder that the XDG base directory specification says. Not absolute if the user has no home."""
    return Path(os.environ.get(CACHE_VARIABLE) or os.path.expanduser("~/.cache"))


def is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, which may not exist yet. Makes one to see, as permissions do not tell."""
    if not folder.is_absolute():
        return False
    try:
        tempfile.TemporaryFile(dir=next(path for path in (folder, *folder.parents) if path.exists())).close()
    except OSError:
        return False
    return True
