"""Mutated checkpoints, restored as `launch.py resume` does: a typed error, or what was saved; no code is run."""

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

LIMIT = 5.0
"""Seconds to restore or refuse."""

MORE = 1_000_000
"""Learner steps that the run is resumed for."""

CODE = ("exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.", "pickle.", "socket.")
"""Audit events, or how they begin, that mean that something was run, or called over the network."""


class CodeRun(Exception):
    """Something was run, or would have been."""


class Late(BaseException):
    """Past the time limit; no OSError as TimeoutError is, which the program may rightly take for the disk's."""


class Watch:
    """While armed, this process can run nothing new: what tries is noted and refused."""

    _one: Watch | None = None

    def __init__(self) -> None:
        self.armed = False
        self.seen: list[str] = []

    @classmethod
    def get(cls) -> Watch:
        """Audit hooks cannot be removed: there is one in a process."""
        if cls._one is None:
            cls._one = cls()
            sys.addaudithook(cls._one._hook)
        return cls._one

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.armed and event.startswith(CODE):
            self.seen.append(f"{event} {arguments!r:.80}")
            raise CodeRun(self.seen[-1])

    @contextlib.contextmanager
    def armed_for(self, seconds: float) -> Iterator[None]:
        """Late, wherever it is, after so long."""

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
    """An undamaged run, and the hash of the learner's state in each of its checkpoints."""

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
    """All that `resume RUN --iterations MORE` does before it plays on: (step, hash of the learner's state)."""
    _, config, checkpoint = open_run(folder)
    config = config.model_copy(update={"run": config.run.model_copy(update={"learner_steps": MORE})})
    with as_checkpoint_error("the checkpoint's state.json"):  # as `launch.py` does
        given = {"learner_steps": MORE, "episodes": None, "minutes": None}
        config = lift_spent_limits(config, checkpoint.state["book"], given)
    with RunOutput.reopen(config, folder, checkpoint) as output:
        runner = SerialRunner(config, task, output, checkpoint)
        return checkpoint.step, digest(runner._learner.state())


@dataclass
class Verdict:
    """What became of one mutated run. problem: what broke the bar, or None."""

    what: str
    result: str
    seconds: float
    problem: str | None


def judge(original: Original, mutation: Mutation, rng: random.Random, folder: Path, limit: float) -> Verdict:
    """Restore a mutated copy of the original, made in `folder`. Damage must not change what is loaded.

    limit: seconds that this may take.
    """
    run = folder / "run"
    shutil.copytree(original.folder, run)
    what = mutation(rng, run)
    watch, begin = Watch.get(), time.monotonic()
    result, problem = "loaded", None
    try:
        with contextlib.redirect_stdout(io.StringIO()), watch.armed_for(limit):
            step, state = restore(run, original.task)
        if mutation in DAMAGE and original.digests.get(step) != state:
            problem = f"another state than was saved at step {step}"
    except MuZeroRayError as error:
        result = f"{type(error).__name__}: {error}"
    except (Exception, Late) as error:  # this is what is looked for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        result = problem = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
    problem = f"ran {watch.seen[0]}" if watch.seen else problem
    seconds = time.monotonic() - begin
    shutil.rmtree(folder)
    return Verdict(what, result, seconds, problem)


def verdicts(mutations: list[Mutation], folder: Path, limit: float = LIMIT) -> list[Verdict]:
    """The verdict on each mutation, on a copy of its own of one original, within `limit` seconds. Prints nothing."""
    logging.disable(logging.WARNING)  # every skipped checkpoint is a warning
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            original = make_original(folder / "original")
            copy = folder / "good"
            shutil.copytree(original.folder, copy)
            restore(copy, original.task)  # what is imported or compiled once, is by now
        rng = random.Random(6)
        return [judge(original, mutation, rng, folder / "mutated", limit) for mutation in mutations]
    finally:
        logging.disable(logging.NOTSET)


def sample(tries: int) -> list[Mutation]:
    """As many mutations, damage and forgery in turns, every kind of each as often."""
    kinds = itertools.chain.from_iterable(zip(itertools.cycle(DAMAGE), itertools.cycle(FORGERY)))
    return list(itertools.islice(kinds, tries))


def summary(name: str, found: list[Verdict]) -> Outcome:
    problems = [verdict for verdict in found if verdict.problem]
    kinds: dict[str, list[Verdict]] = {}
    for verdict in problems:
        kinds.setdefault(verdict.problem.split("(")[-1] if verdict.problem else "", []).append(verdict)
    notes = [f"{len(same)} times: {same[0].what}: {same[0].problem}" for same in kinds.values()]
    return Outcome(
        name,
        f"typed error or what was saved; {LIMIT:g} s; no code run",
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
    """Twelve that were made by hand, and `tries` at random."""
    yield summary("hand-made checkpoints", verdicts(list(HANDMADE), folder / "handmade"))
    yield summary("mutated checkpoints", verdicts(sample(tries), folder / "random"))
