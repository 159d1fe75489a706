"""`muzero_ray.train` and `muzero_ray.evaluate`: those commands, for a program that goes on after them."""

from __future__ import annotations

import contextlib
import gc
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from muzero_ray.caches import make_cache_writable
from muzero_ray.cli.train_call import Source, config_of, train_call
from muzero_ray.config.schema import Config
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.private_folder import private_temporary_files
from muzero_ray.runs.run import Run, WhichCheckpoint
from muzero_ray.stop_signals import interrupts_only


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

    Ctrl-C, or a notebook's stop button, writes a checkpoint and returns the run as far as it went; pressed again, it
    raises KeyboardInterrupt at once. Raises MuZeroRayError, as ConfigError for settings that cannot be used.

        run = mz.train("cartpole", {"learner.lr": 3e-3, "run.minutes": 1, "run.name": "first"}, serial=True)
        run.metrics()["eval/return_mean"]
    """
    given = {**(settings or {}), **({"run.serial": True} if serial else {})}
    command = train_call(source, given, resume=resume)
    folder = command.new_folder()
    with interrupts_only() as listen, _host_kept(), make_cache_writable(), private_temporary_files():
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
    from muzero_ray.cli.commands import EvaluateCommand
    from muzero_ray.cli.finished_runs import evaluate as measure
    from muzero_ray.config.validation import validate

    asked = {
        "run": run.folder if isinstance(run, Run) else Path(run),
        "episodes": episodes,
        "seed": seed,
        "checkpoint": checkpoint,
        "opponent": opponent,
        "simulations": simulations,
        "c_scale": c_scale,
    }
    with _host_kept():
        return measure(validate(EvaluateCommand, asked, {}))[1]


@contextlib.contextmanager
def _host_kept() -> Iterator[None]:
    """Give the program around back what a run sets for its whole process: random states, threads, variables."""
    import torch

    environment, threads = dict(os.environ), torch.get_num_threads()
    chance, numpys, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        random.setstate(chance)
        np.random.set_state(numpys)  # noqa: NPY002
        torch.set_rng_state(torchs)
        torch.set_num_threads(threads)
        gc.unfreeze()
