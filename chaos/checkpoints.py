"""Restores mutated checkpoints as `launch.py resume` does: a typed error, or what was saved; no code is run."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from chaos.handmade import HANDMADE
from chaos.mutations import DAMAGE, FORGERY, Mutation
from chaos.report import Outcome
from chaos.witness import digest
from muzero_ray.config.schema import Config
from muzero_ray.control.limits import lift_spent_limits
from muzero_ray.control.probe import probe
from muzero_ray.control.serial import SerialRunner
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import MuZeroRayError, as_checkpoint_error
from muzero_ray.runs.checkpoint import list_checkpoints, load_checkpoint
from muzero_ray.runs.output import RunOutput, learner_state
from muzero_ray.runs.run import open_run

RESTORE_SECONDS = 5.0
"""Within which a checkpoint is restored or refused."""

STEP_LIMIT = 1_000_000
"""`run.learner_steps` of the resumed run: more than any checkpoint holds."""

REFUSED = ("exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.", "pickle.", "socket.")
"""Names of Python's audit events, or their beginnings, that mean: code is run, or the network is used."""


class CodeRun(Exception):
    """Code was about to be run, or the network to be used."""


class Late(BaseException):
    """The time limit is over. Not an Exception such as TimeoutError: the program may rightly handle that itself."""


class Watch:
    """An audit hook. While armed, it refuses to run code or use the network, and notes each attempt in `seen`."""

    _instance: Watch | None = None

    def __init__(self) -> None:
        self.armed = False
        self.seen: list[str] = []

    @classmethod
    def get(cls) -> Watch:
        """The one watch of this process: audit hooks cannot be removed."""
        if cls._instance is None:
            cls._instance = cls()
            sys.addaudithook(cls._instance._hook)
        return cls._instance

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.armed and event.startswith(REFUSED):
            self.seen.append(f"{event} {arguments!r:.80}")
            raise CodeRun(self.seen[-1])

    @contextlib.contextmanager
    def armed_for(self, seconds: float) -> Iterator[None]:
        """Armed within the block, which Late interrupts after `seconds`."""

        def late(_: int, __: FrameType | None) -> None:
            raise Late(f"longer than {seconds:g} s")

        self.seen.clear()
        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        self.armed = True
        try:
            yield
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)


@dataclass
class Original:
    """An undamaged run. digests: by learner step, the hash of the learner's state in each checkpoint."""

    folder: Path
    config: Config
    task: TaskSpec
    digests: dict[int, str]


def make_original(folder: Path) -> Original:
    """A short serial run with several checkpoints, games in flight and reanalyzed games."""
    data: dict[str, Any] = {
        "run": {"learner_steps": 40, "log_steps": 20, "checkpoint_steps": 15, "wandb": "disabled", "serial": True},
        "env": {"id": "CartPole-v1", "max_moves": 60},
        "network": {"hidden": 16, "layers": (16,), "head_layers": (16,)},
        "search": {"simulations": 2},
        "replay": {"min_size": 64, "samples_per_insert": 2.0, "segment_length": 8},
        "learner": {"batch_size": 16, "unroll_steps": 3, "td_steps": 4},
        "reanalyze": {"ratio": 0.3, "simulations": 2},
        "actors": {"count": 1, "envs_per_actor": 2, "rollout_steps": 40},
    }
    config = Config.model_validate(data)
    task = probe(config)
    with RunOutput.create(config, folder) as output:
        SerialRunner(config, task, output, None).run()
    checkpoints = [load_checkpoint(path) for path in list_checkpoints(folder / "checkpoints")]
    return Original(folder, config, task, {one.step: digest(learner_state(one)) for one in checkpoints})


def restore(folder: Path, task: TaskSpec) -> tuple[int, str]:
    """All that `resume RUN --iterations STEP_LIMIT` does before it plays on: (step, hash of the learner's state)."""
    _, config, checkpoint = open_run(folder)
    config = config.model_copy(update={"run": config.run.model_copy(update={"learner_steps": STEP_LIMIT})})
    with as_checkpoint_error("the checkpoint's state.json"):  # as `launch.py` does
        given = {"learner_steps": STEP_LIMIT, "episodes": None, "minutes": None}
        config = lift_spent_limits(config, checkpoint.state["book"], given)
    with RunOutput.reopen(config, folder, checkpoint) as output:
        runner = SerialRunner(config, task, output, checkpoint)
        return checkpoint.step, digest(runner._learner.state())


@dataclass
class Verdict:
    """What became of one mutated run. change: what the mutation did. result: `loaded`, or the error.

    problem: what is wrong with that, or None.
    """

    change: str
    result: str
    seconds: float
    problem: str | None


def judge(original: Original, mutation: Mutation, rng: random.Random, folder: Path, limit: float) -> Verdict:
    """Restore a mutated copy of the original, made in `folder` and then removed. limit: seconds that this may take.

    A typed error is right. So is a state that loads, for damage only if it is the state that was saved.
    """
    run = folder / "run"
    shutil.copytree(original.folder, run)
    change = mutation(rng, run)
    watch, begin = Watch.get(), time.monotonic()
    result, problem = "loaded", None
    try:
        with contextlib.redirect_stdout(io.StringIO()), watch.armed_for(limit):
            step, state = restore(run, original.task)
        if mutation in DAMAGE and original.digests.get(step) != state:
            problem = f"not the state that was saved at step {step}"
    except MuZeroRayError as error:
        result = f"{type(error).__name__}: {error}"
    except (Exception, Late) as error:  # any other error is a problem
        frame = traceback.extract_tb(error.__traceback__)[-1]
        result = problem = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
    problem = f"ran {watch.seen[0]}" if watch.seen else problem
    seconds = time.monotonic() - begin
    shutil.rmtree(folder)
    return Verdict(change, result, seconds, problem)


def verdicts(mutations: list[Mutation], folder: Path, limit: float = RESTORE_SECONDS) -> list[Verdict]:
    """Judge each mutation on its own copy of one original, which may take `limit` seconds. Prints nothing."""
    logging.disable(logging.WARNING)  # every skipped checkpoint is a warning
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            original = make_original(folder / "original")
            copy = folder / "good"
            shutil.copytree(original.folder, copy)
            restore(copy, original.task)  # imports and compilation are done now, outside of any limit
        rng = random.Random(6)
        return [judge(original, mutation, rng, folder / "mutated", limit) for mutation in mutations]
    finally:
        logging.disable(logging.NOTSET)


def sample(tries: int) -> list[Mutation]:
    """`tries` mutations: damage and forgery in turns, the kinds of each in turns."""
    kinds = itertools.chain.from_iterable(zip(itertools.cycle(DAMAGE), itertools.cycle(FORGERY)))
    return list(itertools.islice(kinds, tries))


def summary(name: str, found: list[Verdict]) -> Outcome:
    """The outcome `name` of these verdicts. Problems at the same place in the code are one note."""
    problems = [verdict for verdict in found if verdict.problem]
    by_place: dict[str, list[Verdict]] = {}
    for verdict in problems:
        by_place.setdefault(verdict.problem.split("(")[-1] if verdict.problem else "", []).append(verdict)
    notes = [f"{len(same)} times: {same[0].change}: {same[0].problem}" for same in by_place.values()]
    return Outcome(
        name,
        f"typed error or what was saved; {RESTORE_SECONDS:g} s; no code run",
        len(found),
        len(problems),
        bool(found) and not problems,
        {
            "typed errors": sum(verdict.result != "loaded" and not verdict.problem for verdict in found),
            "loaded": sum(verdict.result == "loaded" and not verdict.problem for verdict in found),
            "slowest s": max((verdict.seconds for verdict in found), default=0.0),
        },
        notes,
    )


def checkpoints(tries: int, folder: Path) -> Iterator[Outcome]:
    """The experiment: twelve checkpoints made by hand, then `tries` random mutations."""
    yield summary("hand-made checkpoints", verdicts(list(HANDMADE), folder / "handmade"))
    yield summary("mutated checkpoints", verdicts(sample(tries), folder / "random"))
