"""muzero_ray's command line: `python launch.py train breakout`. See `python launch.py --help`.

`build_program` starts all processes of a distributed run: read it to see how the system fits together.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if __name__ == "__main__":  # `python -m launch` and `python -P` would not look beside this file first
    here = os.path.dirname(os.path.realpath(__file__))
    if not os.path.exists(os.path.join(here, "__init__.py")):  # installed, it is a module of the package
        sys.path.insert(0, here)

from muzero_ray.caches import make_cache_writable
from muzero_ray.errors import MuZeroRayError
from muzero_ray.printed import launch_line
from muzero_ray.standard_streams import flush_standard_streams, open_standard_streams, print_error, print_result
from muzero_ray.stop_signals import Handler, Leave, handle_signals, leave
from muzero_ray.user_paths import check_current_directory

if TYPE_CHECKING:
    from pathlib import Path

    from ray.actor import ActorHandle

    from muzero_ray.actors.workers import Workers
    from muzero_ray.cli.commands import Command, ResumeCommand, TrainCommand
    from muzero_ray.config.schema import Config
    from muzero_ray.control.run_state import RunState
    from muzero_ray.envs.task_spec import TaskSpec
    from muzero_ray.runs.checkpoint import Checkpoint
    from muzero_ray.runs.output import RunOutput

INTERRUPTED = 130
"""Exit code after a signal to stop."""


class Runner(Protocol):
    """What trains: `SerialRunner` or `RayRunner`. `run` returns False if a stop was requested first."""

    def run(self) -> bool: ...

    def final_evaluation(self) -> None: ...

    def request_stop(self) -> None: ...


def build_program(config: Config, task: TaskSpec, run_state: RunState, output: RunOutput) -> Workers:
    """Start every process of a run, and give each the handles of those that it calls.

    Replay and the parameter server (params) call nobody. Self-play calls {its shard of replay, params}, the learner and
    reanalyze {all shards, params}, the evaluator {params}. Further ranks of the learner call {all shards}; its first
    rank starts them, and is replaced together with them.

    Workers that a run cannot do without start first, so that they get CPUs where these are scarce. All shards are on
    the driver's node, where they write to the run's folder, and so is the learner, unless only another node can hold it
    (a GPU). Ray restarts replay and params. The supervisor replaces the others: the new ones of self-play and of the
    learner have an incarnation of their own.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from muzero_ray.actors.calls import start
    from muzero_ray.actors.cluster import EVALUATOR_CPUS
    from muzero_ray.actors.evaluator import EvaluatorWorker
    from muzero_ray.actors.parameter_server import ParameterServer
    from muzero_ray.actors.replay import ReplayWorker
    from muzero_ray.actors.self_play import SelfPlayWorker
    from muzero_ray.actors.worker_handle import Kind, WorkerHandle, note_name
    from muzero_ray.actors.workers import Workers
    from muzero_ray.learner.learner import LearnerWorker
    from muzero_ray.learner.rank import LearnerPeer
    from muzero_ray.learner.reanalyze_worker import ReanalyzeWorker
    from muzero_ray.private_folder import PrivateFolder

    node = ray.get_runtime_context().get_node_id()
    here, near = (NodeAffinitySchedulingStrategy(node, soft=soft) for soft in (False, True))
    # 0 CPUs, so that they also fit on a head node that offers none. Ray repeats unanswered calls, which does no harm:
    # games have ids, and weights have versions.
    service: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    shards = range(config.replay.shards)
    replays = [start(ReplayWorker, service, config, task, shard, output.replay_folder) for shard in shards]
    params = start(ParameterServer, service)
    actors = config.actors
    rank_options = learner_places(config, near)
    # Crash notes are not in the run's folder, whose disk may be slow, full or gone.
    notes = PrivateFolder()

    def spawn(kind: Kind, index: int, restarts: int = 0) -> ActorHandle[Any]:
        incarnation, note = run_state.incarnation(restarts), notes.path / note_name(kind, index, restarts)
        if kind == "self_play":
            options = {"num_cpus": actors.num_cpus, "scheduling_strategy": "SPREAD"}
            handles = (replays[index % len(replays)], params)
            return start(SelfPlayWorker, options, config, task, index, incarnation, *handles, note, output.wants_games)
        if kind == "learner":

            def make_peer(rank: int) -> ActorHandle[LearnerPeer]:
                return start(LearnerPeer, rank_options[rank], config, task, incarnation, replays, rank)

            return start(LearnerWorker, rank_options[0], config, task, incarnation, replays, params, make_peer)
        if kind == "reanalyze":
            return start(ReanalyzeWorker, {"num_cpus": actors.num_cpus}, config, task, replays, params)
        return start(EvaluatorWorker, {"num_cpus": EVALUATOR_CPUS}, config, task, params, note)

    workers: list[tuple[Kind, int]] = [("learner", 0), ("evaluator", 0)]
    workers += [("reanalyze", 0)] if config.reanalyze.ratio > 0 else []
    workers += [("self_play", index) for index in range(actors.count)]
    handles: list[WorkerHandle[Any]] = [WorkerHandle("replay", shard, replays[shard]) for shard in shards]
    handles += [WorkerHandle("params", 0, params)]
    handles += [WorkerHandle(kind, index, spawn(kind, index)) for kind, index in workers]
    return Workers(handles, spawn, output, notes)


def learner_places(config: Config, single: Any) -> list[dict[str, Any]]:
    """Ray's options for each rank of the learner. single: scheduling strategy of a learner with one rank.

    Several ranks get their CPUs and GPUs together or not at all, on as few nodes as possible. What they got stays
    reserved while their processes are replaced.
    """
    from ray.util import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    cpus, gpus, workers = config.learner.cpus, config.learner.gpus, config.learner.workers
    options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus}
    if workers == 1:
        return [options | {"scheduling_strategy": single}]
    bundle = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    group = placement_group([bundle] * workers, strategy="PACK")
    return [
        options | {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)}
        for rank in range(workers)
    ]


@contextlib.contextmanager
def ray_runner(config: Config, task: TaskSpec, output: RunOutput, checkpoint: Checkpoint | None) -> Iterator[Runner]:
    """A runner on a Ray cluster, or on a private Ray that ends with the block."""
    from muzero_ray.actors.cluster import check_cpus, connect, connected, freeze_startup_objects
    from muzero_ray.control.run_state import RunState

    run_state = RunState(config)
    if checkpoint is not None:
        run_state.load_state(checkpoint.state["book"])
    private, namespace = config.run.address is None, f"muzero-{output.folder.name}"
    if private:
        check_cpus(config, os.cpu_count() or 1, private=True)
    output.message("starting Ray" if private else f"joining the Ray cluster at {config.run.address}")
    with connected(config.run.address, namespace) as notice:
        import ray

        from muzero_ray.actors.ray_runner import RayRunner
        from muzero_ray.actors.supervisor import Supervisor

        def start(recover: bool) -> Supervisor:
            workers = build_program(config, task, run_state, output)
            files = checkpoint.files if checkpoint else None
            return Supervisor(workers, run_state, config, output, files, recover=recover)

        if notice:
            output.message(notice)
        if warning := check_cpus(config, ray.available_resources().get("CPU", 0.0), private=private):
            output.message(warning)
        runner = RayRunner(start, lambda: connect(config.run.address, namespace), run_state, output)
        freeze_startup_objects()
        yield runner


@contextlib.contextmanager
def serial_runner(config: Config, task: TaskSpec, output: RunOutput, checkpoint: Checkpoint | None) -> Iterator[Runner]:
    """A runner that has everything in this process, without Ray."""
    from muzero_ray.control.serial import SerialRunner
    from muzero_ray.envs.chance import generators_kept

    with generators_kept():
        yield SerialRunner(config, task, output, checkpoint)


def run(
    config: Config,
    task: TaskSpec,
    output: RunOutput,
    checkpoint: Checkpoint | None,
    listen: Callable[[Handler], None] = handle_signals,
) -> int:
    """Train until a limit of the run is reached, evaluate, and return the exit code.

    The first signal to stop makes it write a checkpoint and leave, a second one leaves at once. During the final
    evaluation all is saved, so the first one leaves at once. listen: installs a handler of these signals.
    """
    output.message(task.describe(config.env))
    make_runner = serial_runner if config.run.serial else ray_runner
    listen(starting := Leave())
    with output, make_runner(config, task, output, checkpoint) as runner:

        def stop(*_: object) -> None:
            listen(leave)
            runner.request_stop()
            output.message("stopping: writing a checkpoint (once more: leave at once)")

        listen(stop)
        starting.check()  # an exception in one of Ray's callbacks is lost
        if not runner.run():
            output.message(f"stopped; {output.resume_hint}")
            return INTERRUPTED
        listen(leave)
        output.message("training is over; final evaluation (a signal to stop now leaves at once)")
        try:
            runner.final_evaluation()
        except KeyboardInterrupt:
            output.message(
                "left without the final evaluation; the checkpoint is written. Evaluate it with: "
                f"{launch_line('evaluate', output.folder)}"
            )
            return INTERRUPTED
        return 0


def train(command: TrainCommand) -> int:
    """Train one run, or one for each of `--seeds` and then report on all; return the exit code."""
    key, folders = os.environ.get("WANDB_API_KEY"), []
    for of_seed in command.each_seed():
        if key is not None:
            os.environ["WANDB_API_KEY"] = key  # each run removes it, so that no worker inherits it
        folders.append(of_seed.new_folder())
        if code := train_once(of_seed, folders[-1]):
            return code
    if command.seeds:
        from muzero_ray.cli.commands import ReportCommand
        from muzero_ray.cli.report import report_runs

        report_runs(ReportCommand(runs=tuple(folders)))
    return 0


def train_once(
    command: TrainCommand,
    folder: Path,
    callbacks: Sequence[object] = (),
    listen: Callable[[Handler], None] = handle_signals,
) -> int:
    """Train one run in `folder`, return the exit code. callbacks: besides those of the config. listen: see `run`."""
    from muzero_ray.cli.start import started_run

    with started_run(command, folder, callbacks) as start:
        return run(*start, listen) if start is not None else 0


def resume(command: ResumeCommand) -> int:
    """Go on with a run from its newest good checkpoint, return the exit code."""
    from muzero_ray.cli.start import resumed_run

    with resumed_run(command) as start:
        return run(*start) if start is not None else 0


def dispatch(command: Command) -> int:
    """Run a command, return the exit code. Each imports what it needs here, so that help and errors come fast."""
    from muzero_ray.cli.commands import (
        ArenaCommand,
        EvaluateCommand,
        PlayCommand,
        PresetsCommand,
        ReportCommand,
        ResumeCommand,
        SubmitCommand,
        TrainCommand,
    )
    from muzero_ray.cli.parse import presets_table

    match command:
        case PresetsCommand():
            print_result(presets_table())
            return 0
        case TrainCommand() | ResumeCommand():
            from muzero_ray.private_folder import private_temporary_files

            with private_temporary_files():
                return train(command) if isinstance(command, TrainCommand) else resume(command)
        case SubmitCommand():
            from muzero_ray.actors.jobs import submit

            print_result(submit(command))
            return 0
        case EvaluateCommand() | ArenaCommand() | ReportCommand() | PlayCommand():
            from muzero_ray.cli.finished_runs import inspect_runs

            inspect_runs(command)
            return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, return the exit code. Errors a user can act on are one message without a traceback."""
    try:
        from muzero_ray.cli.parse import parse_args

        check_current_directory()
        command = parse_args(sys.argv[1:] if argv is None else argv)
        with make_cache_writable():
            return dispatch(command)
    except MuZeroRayError as error:
        print_error(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def program() -> int:
    """`main` for a process of its own: it sets up signals and standard streams, too."""
    handle_signals(leave)
    open_standard_streams()
    try:
        return main()
    finally:
        flush_standard_streams()


if __name__ == "__main__":
    sys.exit(program())
