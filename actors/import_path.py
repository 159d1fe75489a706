"""Where workers import from: exactly where the driver does, whatever directory it was started in."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import site
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.job_config import JobConfig

CODE = ("muzero_ray",)
"""Packages that workers need, the shells of Ray among them; a cluster gets them from here, so that its nodes need the
requirements only."""


def folder_of(package: str) -> Path:
    """Where this process imports `package` from."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).resolve().parent


def driver_path() -> list[str]:
    """`sys.path` of this process, in its order, absolute."""
    found = []
    for entry in sys.path:
        with contextlib.suppress(FileNotFoundError):  # "" is the current directory, which may be deleted
            found.append(os.path.abspath(entry))
    return found


def added_path() -> list[str]:
    """What `driver_path` has beyond Python's own folders, which other nodes of a cluster have in their own place."""
    library = Path(sysconfig.get_path("stdlib"))
    own = {Path(folder) for folder in site.getsitepackages()} | {library}
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    return [
        entry
        for entry in driver_path()
        if Path(entry).name != archive and not own & {Path(entry), *Path(entry).parents}
    ]


def job_config(search_path: list[str]) -> JobConfig:
    """What `ray.init` is given, so that workers look for modules in `search_path` first, and in its order.

    Otherwise Ray puts the driver's current directory before everything else: a folder there that is called as one of
    our packages would be run in its place.
    """
    from ray.job_config import JobConfig

    class WithoutCurrentDirectory(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            """Ray asks this before it adds the script's folder and the current directory."""
            return True

    # Workers put each entry in front of those before it.
    return WithoutCurrentDirectory(_py_driver_sys_path=search_path[::-1])
