"""muzero_ray's command line: `python launch.py train breakout`. See `python launch.py --help`.

`build_program` draws the whole distributed topology; reading it is reading the system.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from muzero_ray.cli import (
    Command,
    EvaluateCommand,
    PlayCommand,
    PresetsCommand,
    ResumeCommand,
    TrainCommand,
    parse_args,
    presets_table,
)
from muzero_ray.errors import MuZeroRayError

if TYPE_CHECKING:
    from actors.supervisor import Program
    from muzero_ray.config import Config
    from muzero_ray.runtime.build import TaskShape
    from muzero_ray.runtime.checkpoint import Checkpoint
    from muzero_ray.runtime.run_book import RunBook
    from muzero_ray.runtime.run_output import RunOutput

INTERRUPTED = 130

OBJECT_STORE_BYTES = 1 << 30
"""Shared memory of a private Ray on this machine: weights, batches and segments on their way, no more."""


class Runner(Protocol):
    """What trains: `SerialRunner` or `Supervisor`."""

    def run(self) -> bool: ...

    def final_evaluation(self) -> None: ...

    def request_stop(self) -> None: ...


def build_program(config: Config, shape: TaskShape, book: RunBook, output: RunOutput) -> Program:
    """Every process of a run, and who holds whose handle.

    Replay and parameter server hold none; self-play, learner and reanalyze hold {replay, params}; the evaluator
    {params}. Replay and learner come first, since Ray's memory guard kills the newest workers first. Workers are
    replaced by the supervisor and not by Ray, so that each replacement has an incarnation of its own.
    """
    import ray

    from actors.evaluator import EvaluatorWorker
    from actors.parameter_server import ParameterServer
    from actors.replay import ReplayWorker
    from actors.self_play import SelfPlayWorker
    from actors.supervisor import Kind, Program, Slot
    from learner.learner import LearnerWorker
    from learner.reanalyze_worker import ReanalyzeWorker

    cpus = config.actors
    replay = ray.remote(ReplayWorker).options(num_cpus=0.1, max_restarts=0).remote(config, shape, output.replay_folder)
    params = ray.remote(ParameterServer).options(num_cpus=0, max_restarts=-1, max_task_retries=3).remote()

    def spawn(kind: Kind, index: int, restarts: int = 0) -> ray.actor.ActorHandle:
        incarnation = book.incarnation(restarts)
        if kind == "self_play":
            worker = ray.remote(SelfPlayWorker).options(num_cpus=cpus.num_cpus, scheduling_strategy="SPREAD")
            return worker.remote(config, shape, index, incarnation, replay, params)
        if kind == "learner":
            worker = ray.remote(LearnerWorker).options(num_cpus=cpus.learner_cpus, num_gpus=cpus.learner_gpus)
            return worker.remote(config, shape, incarnation, replay, params)
        if kind == "reanalyze":
            return ray.remote(ReanalyzeWorker).options(num_cpus=cpus.num_cpus).remote(config, shape, replay, params)
        return ray.remote(EvaluatorWorker).options(num_cpus=0.1).remote(config, shape, params)

    places: list[tuple[Kind, int]] = [("learner", 0)]
    places += [("self_play", index) for index in range(cpus.count)]
    places += [("reanalyze", 0)] if config.reanalyze.share > 0 else []
    places += [("evaluator", 0)]
    return Program(replay, params, [Slot(kind, index, spawn(kind, index)) for kind, index in places], spawn)


@contextlib.contextmanager
def ray_runner(config: Config, shape: TaskShape, output: RunOutput, checkpoint: Checkpoint | None) -> Iterator[Runner]:
    """The distributed program on a cluster, or on a private Ray that ends with it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    from actors.supervisor import Supervisor
    from muzero_ray.runtime.run_book import RunBook
    from muzero_ray.runtime.run_output import learner_state

    book = RunBook(config)
    if checkpoint is not None:
        book.load_state(checkpoint.state["book"])
    output.message("starting Ray")
    local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    ray.init(
        address=config.run.address or "local",
        namespace=f"muzero-{output.folder.name}",
        log_to_driver=False,
        **({} if config.run.address else local),
    )
    try:
        program = build_program(config, shape, book, output)
        supervisor = Supervisor(program, book, config, output)
        supervisor.start(learner_state(checkpoint) if checkpoint else None, checkpoint.files if checkpoint else None)
        yield supervisor
    finally:
        ray.shutdown()


@contextlib.contextmanager
def serial_runner(
    config: Config, shape: TaskShape, output: RunOutput, checkpoint: Checkpoint | None
) -> Iterator[Runner]:
    """The same parts in this process."""
    from muzero_ray.runtime.serial import SerialRunner

    yield SerialRunner(config, shape, output, checkpoint)


def run(config: Config, shape: TaskShape, output: RunOutput, checkpoint: Checkpoint | None) -> int:
    """Train to the end of the budget, evaluate, and return the exit code. Ctrl-C once: checkpoint and leave."""
    make_runner = serial_runner if config.run.serial else ray_runner
    with output, make_runner(config, shape, output, checkpoint) as runner:

        def stop(signum: int, frame: object) -> None:
            del signum, frame
            output.message("stopping: writing a checkpoint (once more: leave at once)")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            runner.request_stop()

        # After ray.init, which installs handlers of its own.
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        if runner.run():
            runner.final_evaluation()
            return 0
        output.message(f"stopped; go on with: {output.resume_command}")
        return INTERRUPTED


def train(command: TrainCommand) -> int:
    """A new run."""
    from muzero_ray.runtime.build import probe
    from muzero_ray.runtime.run_output import RunOutput

    config = command.config
    shape = probe(config)  # what can not be built must leave no run behind
    name = config.run.name or f"{command.label}-s{config.run.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    return run(config, shape, RunOutput.create(config, Path(config.run.runs_dir) / name), None)


def resume(command: ResumeCommand) -> int:
    """An old run, from its newest good checkpoint."""
    from muzero_ray.runtime.build import probe
    from muzero_ray.runtime.run_output import RunOutput, open_run

    folder, config, checkpoint = open_run(command.run)
    config = command.extended(config)
    return run(config, probe(config), RunOutput.reopen(config, folder, checkpoint), checkpoint)


def dispatch(command: Command) -> int:
    """Runs a command. Each imports its own heavy parts, so that help and mistakes are answered at once."""
    match command:
        case PresetsCommand():
            print(presets_table())
            return 0
        case TrainCommand():
            return train(command)
        case ResumeCommand():
            return resume(command)
        case EvaluateCommand():
            from muzero_ray.runtime.commands import evaluate_run

            evaluate_run(command)
            return 0
        case PlayCommand():
            from muzero_ray.runtime.commands import play_run

            play_run(command)
            return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parses and runs; returns the exit code. Errors a user can act on are one message without a traceback."""
    try:
        return dispatch(parse_args(sys.argv[1:] if argv is None else argv))
    except MuZeroRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
