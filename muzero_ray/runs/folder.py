"""The folder of a run: where it is, who may write there, and what a person is told about it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from muzero_ray.errors import ConfigError, MuZeroRayError
from muzero_ray.printed import launch_line
from muzero_ray.runs.checkpoint import list_checkpoints
from muzero_ray.runs.layout import RunLayout
from muzero_ray.runs.lock import LOCK_NAME, RunLock, live_lock
from muzero_ray.runs.run_config import copy_hint
from muzero_ray.standard_streams import print_message
from muzero_ray.user_paths import making_folder


def run_folder(path: Path) -> Path:
    """That of the run which `path`, or the checkpoint `path`, belongs to."""
    folder = path
    while not RunLayout(folder).config_file.is_file():
        if folder.parent == folder or len(folder.parts) + 2 < len(path.parts):
            hint = copy_hint(path.parent.parent) or "See `runs/`"
            raise ConfigError(f"{path} is not a run or checkpoint folder: config.yaml is missing. {hint}")
        folder = folder.parent
    return folder


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """MuZeroRayError if the disk refuses. Gives `path`."""
    try:
        yield path
    except OSError as error:
        raise MuZeroRayError(
            f"{path} was not written: {error.strerror or error}. Free space or fix permissions there; then "
            f"{resume_hint(path if path.is_dir() else path.parent)}"
        ) from error


def hold_run(folder: Path, patience: float = 0.0, say: Callable[[str], None] = print_message) -> RunLock:
    """`RunLock.acquire`, with MuZeroRayError if the disk refuses."""
    with writing(folder):
        return RunLock.acquire(folder, patience, say)


def make_run_folder(folder: Path) -> RunLock:
    """Make the folder of a new run, and hold it by this process. ConfigError if it is there already."""
    try:
        with making_folder(folder):
            folder.mkdir(parents=True)
    except FileExistsError:
        live = writer(folder)
        others = f": {live}. Choose another --run.name" if live else ". Choose another --run.name"
        command = launch_line("resume", folder)
        go_on = f", or go on with: {command}" if not live and has_checkpoint(folder) else ""
        raise ConfigError(f"run folder {folder} exists already{others}{go_on}") from None
    return hold_run(folder)


@contextlib.contextmanager
def kept_if_used(folder: Path) -> Iterator[None]:
    """Around a new run: free its name if it fails before there is anything to keep: a row, a game or a checkpoint."""
    try:
        yield
    except BaseException:
        layout = RunLayout(folder)
        found = [*layout.checkpoints_folder.glob("*"), *layout.replay_folder.rglob("*")]
        found += [layout.metrics_file] if layout.metrics_file.exists() else []
        if not any(path.is_dir() or path.stat().st_size for path in found):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def set_aside(folder: Path) -> None:
    """Empty the folder of a run that ended before its first checkpoint, which this process holds.

    There is nothing to go on from; what there is gets a folder of its own. The lock stays. ConfigError if the folder
    is not that of a run.
    """
    names = (folder.with_name(f"{folder.name}.abandoned-{number}") for number in itertools.count(1))
    found = [path for path in folder.iterdir() if not LOCK_NAME.fullmatch(path.name)]
    if not found:
        return
    if not RunLayout(folder).config_file.is_file():
        raise ConfigError(
            f"--resume: {folder} is not a run's folder: config.yaml is missing. Choose another --run.name"
        )
    aside = next(name for name in names if not os.path.lexists(name))
    aside.mkdir()
    for path in found:
        shutil.move(path, aside / path.name)  # the folder may be a mounted disk, or a link to one


def resume_hint(folder: Path) -> str:
    """What a person can do about a run that has stopped in `folder`. The command is at the end, to be pasted."""
    if has_checkpoint(folder):
        return f"go on with: {launch_line('resume', folder)}"
    return "there is no checkpoint yet: start it again under another --run.name"


def writer(folder: Path) -> str:
    """Who writes to the run in `folder` now, in words; "" if nobody does, or if that cannot be seen."""
    with contextlib.suppress(OSError):  # not this user's folder, or none at all
        if (other := live_lock(folder)) is not None:
            return f"a process writes to it ({other})"
    return ""


def has_checkpoint(folder: Path) -> bool:
    """Whether there is something to go on from. True if the disk does not say: that is why somebody asks."""
    try:
        return bool(list_checkpoints(RunLayout(folder).checkpoints_folder))
    except OSError:
        return True
