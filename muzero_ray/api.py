"""`muzero_ray.train` and `muzero_ray.evaluate`: those commands, for a program that goes on after them."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from muzero_ray.caches import make_cache_writable
from muzero_ray.cli.train_call import Source, config_of, train_call
from muzero_ray.config.schema import Config
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.private_folder import private_temporary_files
from muzero_ray.runs.run import Run, WhichCheckpoint
from muzero_ray.stop_signals import interrupts_only

SET_BY_A_RUN = ("RAY_", "WANDB_", "TORCHINDUCTOR_", "SDL_VIDEODRIVER", "PYTHONBREAKPOINT")
"""What the names of the variables begin with that a run sets, or Ray, W&B and torch in it."""

_one_run = threading.Lock()


def load_config(source: str | Path) -> Config:
    """The settings of a preset, or of a YAML file. ConfigError for whatever cannot be used.

    config = mz.load_config("cartpole").override({"learner.lr": 3e-3})
    run = mz.train(config)
    """
    return config_of(source)


def train(
    source: Source,
    settings: Mapping[str, Any] | None = None,
    *,
    serial: bool = False,
    resume: bool = False,
    callbacks: Sequence[object] = (),
) -> Run:
    """Train a run to its end, as `launch.py train` does, and return it.

    source: the name of a preset, a Config, or a YAML file. settings: to change in it, by their dotted names. serial:
    in this process, without Ray, which is else started for the run alone. resume: go on with the run of that name, if
    there is one, or with the run whose own config.yaml `source` is. callbacks: objects with some of the methods
    on_game(history, stats), on_metrics(row), on_evaluation(score) and on_checkpoint(path); one that returns STOP ends
    the run, one that fails is left out.

    One run at a time in a process. It may be in a thread of its own; if it is serial, it then shares the global random
    generators with the threads beside it, and leaves them where it ends.
    Ctrl-C, or a notebook's stop button, writes a checkpoint and returns the run as far as it went; pressed again, it
    raises KeyboardInterrupt at once. Raises MuZeroRayError, as ConfigError for settings that cannot be used.

        run = mz.train("cartpole", {"learner.lr": 3e-3, "run.minutes": 1, "run.name": "first"}, serial=True)
        run.metrics()["eval/return_mean"]
    """
    given = {**(settings or {}), **({"run.serial": True} if serial else {})}
    command = train_call(source, given, resume=resume)
    folder = command.new_folder()
    with _alone(), interrupts_only() as listen, _host_kept(), make_cache_writable(), private_temporary_files():
        from muzero_ray.launch import train_once

        train_once(command, folder, callbacks, listen)
    return Run(folder)


def evaluate(
    run: Run | str | Path,
    *,
    episodes: int | None = None,
    seed: int = 0,
    checkpoint: WhichCheckpoint | None = None,
    opponent: str | None = None,
    simulations: int | None = None,
    c_scale: float | None = None,
) -> Evaluation:
    """The score of a run's weights in noise-free games, as `launch.py evaluate` measures it.

    run: or its folder, or that of one of its checkpoints. episodes: None is `evaluation.final_episodes` of the run.
    checkpoint: `last` (None), `best` or a learner step; a score of the best one says so in its protocol, since its
    score was the reason to choose it. The others replace settings of the run's evaluations. Raises MuZeroRayError.

        score = mz.evaluate("runs/cartpole", episodes=100)
        score.mean, score.returns, score.learner_step, score.protocol.digest
    """
    asked = {
        "run": run.folder if isinstance(run, Run) else Path(run),
        "episodes": episodes,
        "seed": seed,
        "checkpoint": checkpoint,
        "opponent": opponent,
        "simulations": simulations,
        "c_scale": c_scale,
    }
    with make_cache_writable(), _threads_kept():
        from muzero_ray.cli.commands import EvaluateCommand
        from muzero_ray.cli.finished_runs import evaluate as measure
        from muzero_ray.config.validation import validate

        return measure(validate(EvaluateCommand, asked, {}))[1]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """ConfigError if a run is going on in this process already: both would use its temporary folder and its signals."""
    if not _one_run.acquire(blocking=False):
        raise ConfigError(
            "train: a run is going on in this process already, in another thread or around this callback. Wait for its "
            "end, or train in a process of its own"
        )
    try:
        yield
    finally:
        _one_run.release()


@contextlib.contextmanager
def _host_kept() -> Iterator[None]:
    """Give the program around back what a run sets for the whole process. What others set meanwhile is left alone."""
    variables, frozen = _variables(), gc.get_freeze_count()
    try:
        with _threads_kept():
            yield
    finally:
        for name in _variables().keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        if not frozen:
            gc.unfreeze()


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(SET_BY_A_RUN)}


@contextlib.contextmanager
def _threads_kept() -> Iterator[None]:
    """Torch computes with as many threads at the end of the block as at its beginning."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
