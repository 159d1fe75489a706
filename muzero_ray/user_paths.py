"""Paths that a person names: what the file system says about them, as an error that a person understands."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from muzero_ray.errors import ConfigError, MuZeroRayError


def check_current_directory() -> None:
    """ConfigError if it was deleted: libraries ask for its name while they are imported."""
    try:
        os.getcwd()
    except OSError as error:
        raise ConfigError(
            f"the current directory is gone ({error.strerror}). Change to one that exists, then try again"
        ) from None


def check_run_name(name: str, setting: str) -> None:
    """ConfigError unless a folder of that name lies below the folder of all runs, and a terminal can show it."""
    parts = Path(name).parts
    if not parts or ".." in parts or name.startswith("/") or not name.isprintable():
        raise ConfigError(
            f"{setting}: must name a folder below --runs-dir, in printable characters (got {name!r}). "
            "Choose one such as first-try"
        )


def check_new_folder(folder: Path) -> None:
    """ConfigError if `folder` cannot be made. It is not made, and may exist."""
    with making_folder(folder):
        existing = next(place for place in (folder, *folder.parents) if _is_there(place))
        if not existing.is_dir():
            raise OSError(errno.ENOTDIR, f"{existing} is not a folder")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, f"{existing} is not writable for you")


def _is_there(place: Path) -> bool:
    try:
        place.lstat()
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def making_folder(folder: Path) -> Iterator[None]:
    """ConfigError if the file system refuses the folder of a run; FileExistsError if it is there already."""
    try:
        yield
    except FileExistsError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise ConfigError(
            f"the run's folder {str(folder)!r} cannot be made ({_reason(error)}). Choose another --runs-dir or "
            "--run.name"
        ) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """ConfigError if the file system does not let this path be looked at."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{str(path)!r} cannot be read ({_reason(error)}). Check the path and its permissions"
        ) from error


@contextlib.contextmanager
def writing_result(path: Path, option: str) -> Iterator[None]:
    """MuZeroRayError if `path` cannot be written. option: with which another is named."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise MuZeroRayError(
            f"{str(path)!r} cannot be written ({_reason(error)}). Name another file with {option}"
        ) from error


def _reason(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error)
