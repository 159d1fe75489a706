"""Packages of users that add kinds of networks, searches and environments: found by name, or as they are installed."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

from muzero_ray.user_modules import imported

GROUP = "muzero_ray.plugins"
"""The group of entry points that installed packages name their module in."""


def import_plugins(names: Iterable[str]) -> None:
    """Imports the packages that `run.plugins` names. Raises ConfigError for one that cannot be imported."""
    for name in names:
        imported(
            functools.partial(importlib.import_module, name),
            f"run.plugins={name}",
            "Where the run starts, and on each node, it must be installed, on PYTHONPATH, or beside launch.py",
        )


@functools.cache
def import_installed() -> None:
    """Imports what installed packages name in the group `muzero_ray.plugins`, once. Raises ConfigError as above."""
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist is not None else entry.value
        imported(entry.load, f"the installed plugin {entry.name} ({entry.value})", f"Repair or uninstall {package}")


def named_plugins(data: Mapping[str, Any]) -> tuple[str, ...]:
    """What `run.plugins` of a file names; nothing where it is malformed, which is found when the file is checked."""
    run = data.get("run")
    names = run.get("plugins") if isinstance(run, Mapping) else None
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, tuple) else ()
