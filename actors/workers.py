"""Every process of a run as one truth table: what dies or hangs is replaced, and what keeps dying ends the run.

The services (replay shards, parameter server) are restarted by Ray under the same handle, so whoever holds it notices
no more than a pause; every other worker is replaced here, with an incarnation of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.actor import ActorHandle

from muzero_ray.actors.evaluator import EvaluatorWorker
from muzero_ray.actors.memory_kills import REMEDY, MemoryKills
from muzero_ray.actors.ray_watch import RayLost, RayWatch, left_cluster
from muzero_ray.actors.replay import ReplayWorker
from muzero_ray.actors.start_up import placement, stuck
from muzero_ray.actors.worker_handle import Kind, OtherLost, ProcessLost, WorkerHandle, answer, backoff, is_gone
from muzero_ray.envs.crash_note import read_crash_note
from muzero_ray.errors import EnvironmentFault, MuZeroRayError, NumericsError
from muzero_ray.private_folder import PrivateFolder
from muzero_ray.runs.output import RunOutput

SERVICES = ("replay", "params")

MAX_FAILURES = 5
"""A run survives this many deaths of one process without a useful answer in between; the next one ends it."""

MAX_BLOCKED = 20
"""Calls in a row that may fail because another process did not answer."""

CALL_TIMEOUT = 300.0
"""Seconds after which an answer counts as lost."""

LONG_CALLS: dict[Callable[..., Any] | None, float] = {
    EvaluatorWorker.evaluate: 3_600.0,
    EvaluatorWorker.evaluate_random: 3_600.0,
    EvaluatorWorker.go_on: 3_600.0,
    ReplayWorker.load: 3_600.0,
    ReplayWorker.recover: 3_600.0,
}
"""The same where one round of moves may take long (many games, a large search, an opponent that solves the game), and
for a large replay that is read back."""

PLACING_SECONDS = 60.0
"""A worker that has not started by then is mentioned: it waits for CPUs."""


class Workers:
    """The processes of a run, and what became of them.

    spawn: makes a worker, `(kind, index, restarts) -> handle`. notes: folder in which those on this node keep the note
    `WorkerHandle.note` of their calls into environments.
    """

    def __init__(
        self,
        handles: list[WorkerHandle[Any]],
        spawn: Callable[[Kind, int, int], ActorHandle[Any]],
        output: RunOutput,
        notes: PrivateFolder | None = None,
    ) -> None:
        self.handles = handles
        self._spawn = spawn
        self._output = output
        self._notes = notes
        self._placement: str | None = None
        self.watch = RayWatch()
        self._memory = MemoryKills()

    def of(self, kind: Kind) -> list[WorkerHandle[Any]]:
        return [worker for worker in self.handles if worker.kind == kind]

    def one(self, kind: Kind) -> WorkerHandle[Any]:
        (worker,) = self.of(kind)
        return worker

    @property
    def restarts(self) -> int:
        return sum(worker.restarts for worker in self.handles)

    def collect(self, wait: float) -> Iterator[tuple[WorkerHandle[Any], Any]]:
        """Wait up to `wait` seconds for an answer, then go through all that are there.

        Yields (worker, result of its call); for a call that failed the result is the ProcessLost or OtherLost, and what
        there is to do about it is done. Raises RayLost.
        """
        self.watch.check()
        waiting = {worker.waits_for: worker for worker in self.handles if worker.waits_for is not None}
        if waiting:
            ray.wait(list(waiting), timeout=wait)
            for ref in ray.wait(list(waiting), num_returns=len(waiting), timeout=0)[0]:
                worker = waiting[ref]
                if worker.waits_for == ref and (taken := self._take(worker, ref)) is not None:
                    yield worker, *taken
        else:
            time.sleep(wait / 10)  # everyone is backing off after a failure
        now = time.monotonic()
        for worker in self.handles:
            limit = LONG_CALLS.get(worker.method, CALL_TIMEOUT)
            if worker.method is not None and worker.call is not None and now - worker.started > limit:
                yield worker, self.failed(worker, f"no answer to {worker.method.__name__} for {limit:.0f} s")
        self._show_placement(now)

    def _take(self, worker: WorkerHandle[Any], ref: ray.ObjectRef[Any]) -> tuple[Any] | None:
        """The result of its call; None if `worker` has only become ready."""
        try:
            result = answer(ref, CALL_TIMEOUT)
        except ProcessLost as error:
            return (self.failed(worker, str(error)),)
        except OtherLost as error:
            return (self._blocked(worker, error),)
        except NumericsError as error:
            return (self.roll_back(worker, error),)
        worker.answered = time.monotonic()
        if worker.ready is not None:
            worker.ready, worker.node = None, result
            return None
        worker.release()
        return (result,)

    def failed(self, worker: WorkerHandle[Any], reason: str) -> ProcessLost:
        """Start a new process in place of one that died or hangs; it gets no work before the backoff is over.

        Machines come and go: the deaths of processes whose node left do not count as failures. Raises RayLost.
        """
        self.watch.check()
        if is_gone(worker.node):
            if left := left_cluster():
                raise RayLost(left)
            reason = "its node left"
        else:
            if self._notes is not None and (call := read_crash_note(self._notes.path / worker.note)) is not None:
                worker.in_environment += 1
                reason = f"{call} ({reason.rstrip('.')})"
            if self._memory.newly():
                reason = f"{reason.rstrip('.')}: memory ran out, and the kernel killed a process. {REMEDY}"
            self.count_failure(worker, reason)
        return self._replace(worker, reason)

    def memory_exceeded(self, worker: WorkerHandle[Any], reason: str) -> None:
        """Replace a worker that holds too much memory, as if it had died of that."""
        worker.in_environment += 1
        self.count_failure(worker, reason)
        self._replace(worker, reason)

    def _replace(self, worker: WorkerHandle[Any], reason: str) -> ProcessLost:
        self._output.message(f"{worker.name} lost ({reason}); replacing it")
        service = worker.kind in SERVICES
        ray.kill(worker.actor, no_restart=not service)
        worker.restarts += 1
        worker.identity = None
        worker.hold(worker.actor if service else self._spawn(worker.kind, worker.index, worker.restarts))
        worker.retry_at = time.monotonic() + backoff(worker.failures)
        return ProcessLost(reason)

    def roll_back(self, worker: WorkerHandle[Any], error: NumericsError) -> ProcessLost:
        """Numbers that are not finite: the learner goes on from the last checkpoint, as if it had died.

        Raises `error` if it is another's, or if the learner was set back to that checkpoint for this before.
        """
        if worker.kind != "learner" or worker.rolled_back:
            raise error
        worker.rolled_back = True
        return self.failed(worker, str(error))

    def count_failure(self, worker: WorkerHandle[Any], reason: str) -> None:
        """Count one more death in a row. MuZeroRayError if there were too many."""
        worker.failures += 1
        if worker.failures > MAX_FAILURES:
            kind = EnvironmentFault if worker.in_environment == worker.failures else MuZeroRayError
            raise self._given_up(f"{worker.name} failed {worker.failures} times in a row, last: {reason}", kind)

    def _blocked(self, worker: WorkerHandle[Any], error: OtherLost) -> OtherLost:
        """Its call failed because another process died. It lives, and tries again."""
        worker.release()
        worker.blocked += 1
        if worker.blocked > MAX_BLOCKED:
            raise self._given_up(
                f"{worker.name} got no answer from others {worker.blocked} times in a row, last: {error}"
            )
        worker.retry_at = time.monotonic() + backoff(min(worker.blocked, 4))
        return error

    def _given_up(self, reason: str, kind: type[MuZeroRayError] = MuZeroRayError) -> MuZeroRayError:
        now = time.monotonic()
        worst = sorted(self.handles, key=lambda worker: -worker.failures - worker.blocked)[:20]
        table = "\n".join(worker.row(now) for worker in worst)
        return kind(f"{reason}.\n{table}\n{self._output.resume_hint}")

    def _show_placement(self, now: float) -> None:
        """Tell when workers wait for CPUs, and when that changes. MuZeroRayError if they will never start."""
        waiting = [
            worker for worker in self.handles if worker.ready is not None and now - worker.started > PLACING_SECONDS
        ]
        if waiting and (reason := stuck(self.handles, now)) is not None:
            raise self._given_up(reason)
        text = placement(self.handles, waiting) if waiting else None
        if text != self._placement:
            self._output.message(text or "all workers are placed")
        self._placement = text
