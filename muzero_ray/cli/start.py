"""How `train` and `resume` begin: with a new run, or with one that is there, held by this process alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from muzero_ray.cli.commands import ResumeCommand, TrainCommand
from muzero_ray.config.schema import Config
from muzero_ray.control.limits import describe_finished, describe_limits, lift_spent_limits
from muzero_ray.control.probe import probe
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import as_checkpoint_error
from muzero_ray.printed import launch_line
from muzero_ray.runs.callbacks import all_callbacks
from muzero_ray.runs.checkpoint import Checkpoint, list_checkpoints
from muzero_ray.runs.folder import hold_run, kept_if_used, make_run_folder, run_folder, set_aside
from muzero_ray.runs.layout import RunLayout
from muzero_ray.runs.lock import PATIENCE_SECONDS, RunLock
from muzero_ray.runs.lost_games import check_games, load_resumed
from muzero_ray.runs.output import RunOutput
from muzero_ray.runs.run_config import ConvertedConfig, convert_run_config
from muzero_ray.standard_streams import print_result
from muzero_ray.user_paths import check_new_folder


class RunStart(NamedTuple):
    """What is to be trained. checkpoint: what it goes on from; None for a new run."""

    config: Config
    task: TaskSpec
    output: RunOutput
    checkpoint: Checkpoint | None


@contextlib.contextmanager
def started_run(command: TrainCommand, folder: Path, callbacks: Sequence[object] = ()) -> Iterator[RunStart | None]:
    """Begin a run in `folder`; with `--resume`, go on with the run there, or print that it has ended and give None.

    callbacks: besides those that the settings name.
    """
    check_new_folder(folder)
    if command.resume and folder.exists():
        with hold_run(folder, PATIENCE_SECONDS) as lock:
            if list_checkpoints(RunLayout(folder).checkpoints_folder):
                made_with = convert_run_config(folder)
                yield _go_on(command.resumed(folder, made_with.config), made_with, folder, lock, callbacks)
            else:
                task, told = _check(command.config, callbacks)
                set_aside(folder)
                yield _new(command.config, task, folder, lock, told)
        return
    task, told = _check(command.config, callbacks)
    with make_run_folder(folder) as lock, kept_if_used(folder):
        yield _new(command.config, task, folder, lock, told)


@contextlib.contextmanager
def resumed_run(command: ResumeCommand) -> Iterator[RunStart | None]:
    """A run that is there, from its newest good checkpoint. Prints that it is finished, and gives None, if so."""
    folder = run_folder(command.run)
    with hold_run(folder) as lock:
        yield _go_on(command, convert_run_config(folder), folder, lock, ())


def _check(config: Config, callbacks: Sequence[object]) -> tuple[TaskSpec, list[object]]:
    """The task, and who is told of the run: what cannot be built must leave no run behind, and change none.

    callbacks: besides those that the settings name.
    """
    told = all_callbacks(config.run.callbacks, callbacks)
    return probe(config, in_subprocess=not config.run.serial), told


def _new(config: Config, task: TaskSpec, folder: Path, lock: RunLock, callbacks: Sequence[object]) -> RunStart:
    return RunStart(config, task, RunOutput.create(config, folder, lock, callbacks), None)


def _go_on(
    command: ResumeCommand, made_with: ConvertedConfig, folder: Path, lock: RunLock, callbacks: Sequence[object]
) -> RunStart | None:
    """With the run in `folder`, which this process holds."""
    checkpoint = load_resumed(command.run)
    with as_checkpoint_error("the checkpoint's state.json"):
        config = lift_spent_limits(command.extended(made_with.config), checkpoint.state["book"], command.limits)
    if (finished := describe_finished(folder, config, checkpoint)) is not None:
        print_result(finished)
        return None
    without = launch_line("resume", command.run, *command.options(), "--without-lost-games")
    checkpoint = check_games(
        checkpoint,
        RunLayout(folder).replay_folder,
        config,
        go_on=command.without_lost_games,
        remedy=f"Restore them from a backup, or go on without them: {without}",
    )
    task, told = _check(config, callbacks)
    output = RunOutput.reopen(config, folder, checkpoint, lock, told)
    if made_with.changes:
        output.message(f"config.yaml was converted from an older version: {', '.join(made_with.changes)}")
    output.message(f"resuming at learner step {checkpoint.step}; the run ends at {describe_limits(config)}")
    return RunStart(config, task, output, checkpoint)
