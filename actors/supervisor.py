"""Control, all in one place: hands out short calls, waits on their answers, keeps the run's book.

The answer that comes back is the health check, the statistics and the way an exception travels. No call runs for
long, none is dropped, nothing polls.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil
import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayError, RayTaskError

from muzero_ray.config import Config
from muzero_ray.errors import MuZeroRayError
from muzero_ray.runtime.run_book import RunBook
from muzero_ray.runtime.run_output import LearnerState, RunOutput

logger = logging.getLogger(__name__)

Kind = Literal["self_play", "learner", "reanalyze", "evaluator"]

CALL_SECONDS = 5.0
"""How long a rollout or a train call may take before it reports."""

WAIT_SECONDS = 0.5
"""Longest sleep of the loop, so that a signal is answered soon."""

TIMEOUT = 300.0
"""Seconds after which an answer counts as lost."""

EVALUATION_TIMEOUT = 3_600.0
"""The same for an evaluation, whose games are played to their end."""

IDLE_SECONDS = 1.0
"""Pause of a worker that found nothing to do."""

MAX_FAILURES = 5
"""Deaths of one worker without an answer in between that end the run."""

LOST = (RayActorError, ObjectLostError, GetTimeoutError)
"""What Ray raises when a process is gone or hangs."""


def _get(answers: Any, timeout: float = TIMEOUT) -> Any:
    """`ray.get`, with an error that a worker raised for the user as itself, not as Ray's report of it."""
    try:
        return ray.get(answers, timeout=timeout)
    except RayTaskError as error:
        if isinstance(error.cause, MuZeroRayError):
            raise error.cause from None
        raise


def _object_store_mb() -> float | None:
    """Shared memory of a private Ray: object store pages used so far. None on a cluster that others run."""
    for child in psutil.Process().children():
        if child.name() == "raylet":
            return float(getattr(child.memory_info(), "shared", 0)) / 2**20
    return None


@dataclass
class Slot:
    """One worker's place: who holds it now, and what it is doing."""

    kind: Kind
    index: int
    handle: ActorHandle
    restarts: int = 0
    failures: int = 0
    """Deaths since its last answer."""
    retry_at: float = 0.0
    call: ray.ObjectRef | None = None
    reserved: int = 0
    """Transitions of the budget that its call may use up."""
    started: float = 0.0


@dataclass
class Program:
    """Every process of a run. spawn: makes a worker's replacement, `(kind, index, restarts) -> handle`."""

    replay: ActorHandle
    params: ActorHandle
    slots: list[Slot]
    spawn: Callable[[Kind, int, int], ActorHandle]
    restarts: int = field(default=0)

    def of(self, kind: Kind) -> list[Slot]:
        return [slot for slot in self.slots if slot.kind == kind]


class Supervisor:
    """Drives `program` until a limit of the book is reached, or `request_stop`."""

    def __init__(self, program: Program, book: RunBook, config: Config, output: RunOutput) -> None:
        self._program = program
        self._book = book
        self._config = config
        self._output = output
        self._stop_requested = False
        self._learner = program.of("learner")[0]
        self._evaluator = program.of("evaluator")[0]

    def request_stop(self) -> None:
        """Leave after the calls in flight; safe to call from a signal handler."""
        self._stop_requested = True

    def start(self, learner: LearnerState | None, replay_files: dict[str, bytes] | None) -> None:
        """Before `run`: restore what a checkpoint held, if there is one, and publish the first weights."""
        self._output.message("starting workers")
        if learner is not None and replay_files is not None:
            _get(self._program.replay.load.remote(replay_files))
            _get(self._learner.handle.load.remote(learner))
        else:
            _get(self._learner.handle.publish.remote())
        self._output.show(self._book)

    def run(self) -> bool:
        """Train to the end. Returns False if a stop was requested first. A checkpoint is written either way.

        Raises MuZeroRayError, naming the way to go on, if a process is lost that can not be replaced.
        """
        try:
            while self._book.stop_reason() is None and not self._stop_requested:
                self._hand_out()
                self._collect()
            self._drain()
            self._write_row()
            self.checkpoint()
        except RayError as error:
            # A worker's own mistake is for developers, with its traceback; a death that it was told of is not its own.
            cause = error.cause if isinstance(error, RayTaskError) else error
            if not isinstance(cause, LOST):
                raise
            what = " ".join(line.strip() for line in str(cause).splitlines()[:2])
            raise MuZeroRayError(
                f"a process that the run can not do without was lost ({what}). "
                f"Go on from the last checkpoint with: {self._output.resume_command}"
            ) from error
        return not self._stop_requested

    def _hand_out(self) -> None:
        """Give every idle worker what its budget allows."""
        book, now = self._book, time.monotonic()
        idle = [slot for slot in self._program.slots if slot.call is None and slot.retry_at <= now]
        idle.sort(key=lambda slot: slot.started)  # who has waited longest: a scarce budget goes round
        for slot in idle:
            if slot.kind == "self_play" and (transitions := self._rollout_budget()):
                self._call(slot, "rollout", transitions, book.temperature, CALL_SECONDS, reserved=transitions)
            elif slot.kind == "learner" and (steps := book.train_budget()):
                self._call(slot, "train", steps, book.beta, CALL_SECONDS)
            elif slot.kind == "reanalyze" and book.learner_steps and (transitions := book.reanalyze_budget()) > 0:
                self._call(slot, "reanalyze", transitions, CALL_SECONDS)
            elif slot.kind == "evaluator" and book.due("evaluate"):
                book.done("evaluate")
                self._call(slot, "evaluate", self._config.evaluation.episodes, self._config.run.seed, False)

    def _rollout_budget(self) -> int:
        """Transitions for one more rollout, what others are playing already set aside; small change waits."""
        size = self._config.actors.rollout_steps
        reserved = sum(slot.reserved for slot in self._program.slots)
        budget = min(self._book.limiter.insert_budget() - reserved, size)
        return budget if budget >= size // 2 or (budget > 0 and reserved == 0) else 0

    def _call(self, slot: Slot, method: str, *arguments: Any, reserved: int = 0) -> None:
        slot.call = getattr(slot.handle, method).remote(*arguments)
        slot.reserved, slot.started = reserved, time.monotonic()

    def _collect(self) -> None:
        """Wait for an answer, then take every one that is there."""
        calls = {slot.call: slot for slot in self._program.slots if slot.call is not None}
        if not calls:
            time.sleep(WAIT_SECONDS / 10)  # every worker is backing off after a failure
            return
        ray.wait(list(calls), timeout=WAIT_SECONDS)
        ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        for ref in ready:
            self._answer(calls[ref])
        for slot in calls.values():
            limit = EVALUATION_TIMEOUT if slot.kind == "evaluator" else TIMEOUT
            if slot.call is not None and time.monotonic() - slot.started > limit:
                self._failed(slot, f"no answer for {limit:.0f} s")
        self._output.show(self._book)

    def _answer(self, slot: Slot) -> None:
        """Enter one worker's result in the book."""
        assert slot.call is not None
        try:
            result = _get(slot.call)
        except RayTaskError:
            raise  # what the worker reports, even if it is another's death (its class is then that error's, too)
        except (RayActorError, GetTimeoutError) as error:
            self._failed(slot, str(error).splitlines()[0])
            return
        slot.call, slot.reserved, slot.failures = None, 0, 0
        if slot.kind == "self_play":
            self._book.played(result)
        elif slot.kind == "learner":
            self._book.trained(result)
            self._after_training()
        elif slot.kind == "reanalyze":
            self._book.reanalyzed += result
            if not result:  # everything is as fresh as the published weights
                slot.retry_at = time.monotonic() + IDLE_SECONDS
        else:
            version, evaluation = result
            self._output.scored(self._book, evaluation, version.step)

    def _after_training(self) -> None:
        if self._book.due("log"):
            self._write_row()
        if self._book.due("checkpoint"):
            self.checkpoint()

    def _failed(self, slot: Slot, reason: str) -> None:
        """Replace a worker that died or hangs. The learner can not be: its state is in the last checkpoint."""
        slot.failures += 1
        if slot.kind == "learner" or slot.failures > MAX_FAILURES:
            raise MuZeroRayError(
                f"{slot.kind} {slot.index} failed {slot.failures} time(s) in a row, last: {reason}. "
                f"Go on from the last checkpoint with: {self._output.resume_command}"
            )
        self._output.message(f"{slot.kind} {slot.index} lost ({reason}); replacing it")
        ray.kill(slot.handle)
        slot.restarts += 1
        self._program.restarts += 1
        slot.handle = self._program.spawn(slot.kind, slot.index, slot.restarts)
        slot.call, slot.reserved = None, 0
        slot.retry_at = time.monotonic() + min(2.0 ** (slot.failures - 1), 60.0)

    def _drain(self) -> None:
        """Let calls in flight end; their results count."""
        while any(slot.call is not None and slot.kind != "evaluator" for slot in self._program.slots):
            self._collect()

    def _alive(self) -> int:
        return sum(slot.failures == 0 for slot in self._program.of("self_play"))

    def _write_row(self) -> None:
        replay = _get(self._program.replay.metrics.remote(self._book.learner_steps))
        self._book.metrics.update(replay)
        self._book.metrics.update({"actors/alive": self._alive(), "actors/restarts": self._program.restarts})
        if (shared := _object_store_mb()) is not None:
            self._book.metrics.add("system/object_store_mb", shared)
        self._book.done("log")
        self._output.write_row(self._book)

    def checkpoint(self) -> None:
        """Write learner, replay and book as of now."""
        self._book.done("checkpoint")
        learner, replay = _get([self._learner.handle.save.remote(), self._program.replay.save.remote()])
        self._output.checkpoint(self._book, learner, replay)

    def final_evaluation(self) -> None:
        """Score of the final weights beside random play under the same protocol, with a video."""
        episodes, seed = self._config.evaluation.final_episodes, self._config.run.seed
        slot, scores = self._evaluator, None
        if slot.call is not None:
            ray.wait([slot.call], timeout=EVALUATION_TIMEOUT)
            self._answer(slot)
        while scores is None:
            trained = slot.handle.evaluate.remote(episodes, seed, self._config.evaluation.video)
            baseline = slot.handle.evaluate_random.remote(episodes, seed)
            try:
                scores = _get([trained, baseline], EVALUATION_TIMEOUT)
            except RayTaskError:
                raise
            except (RayActorError, GetTimeoutError) as error:
                self._failed(slot, str(error).splitlines()[0])
        (version, evaluation), random_play = scores
        self._output.finished(self._book, evaluation, random_play, version.step)
