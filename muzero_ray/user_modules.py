"""Modules that a person names: why one cannot be imported, as an error that a person understands."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

from muzero_ray.errors import ConfigError, in_one_line

T = TypeVar("T")

INSTALL = "Install the package, or put its folder on PYTHONPATH"


def imported(load: Callable[[], T], what: str, remedy: str = INSTALL) -> T:
    """What `load` imports. ConfigError that begins with `what` if it cannot be imported.

    A missing module gets another message than a module that raises. remedy: for a missing module.
    """
    try:
        return load()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # whatever a module of somebody else raises
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            raise ConfigError(f"{what}: module {error.name!r} cannot be imported. {remedy}") from error
        raise ConfigError(
            f"{what}: importing it failed ({raised(error)}). Correct that, or name another module"
        ) from error


def raised(error: BaseException) -> str:
    """The error and where it was raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {in_one_line(error)}{where}"
