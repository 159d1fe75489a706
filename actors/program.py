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

from muzero_ray.actors.memory_kills import REMEDY, MemoryKills
from muzero_ray.actors.ray_watch import RayLost, RayWatch, left_cluster
from muzero_ray.actors.slots import Kind, OtherLost, ProcessLost, Slot, answer, backoff, is_gone
from muzero_ray.actors.start_up import placement, stuck
from muzero_ray.envs.crash_note import read_crash_note
from muzero_ray.errors import EnvironmentFault, MuZeroRayError, NumericsError
from muzero_ray.private_folder import PrivateFolder
from muzero_ray.runs.output import RunOutput

SERVICES = ("replay", "params")

MAX_FAILURES = 5
"""Deaths of one process, without a useful answer in between, that a run survives: one more ends it."""

MAX_BLOCKED = 20
"""Calls in a row that may fail because another process did not answer."""

TIMEOUT = 300.0
"""Seconds after which an answer counts as lost."""

LONG_CALLS = {
    ("evaluator", "evaluate"): 3_600.0,
    ("evaluator", "evaluate_random"): 3_600.0,
    ("evaluator", "go_on"): 3_600.0,
    ("replay", "load"): 3_600.0,
    ("replay", "recover"): 3_600.0,
}
"""The same where one round of moves may take long (many games, a large search, an opponent that solves the game), and
for a large replay that is read back."""

PLACING_SECONDS = 60.0
"""A worker that has not started by then is mentioned: it waits for CPUs."""


class Program:
    """The processes of a run, and what became of them.

    spawn: makes a worker, `(kind, index, restarts) -> handle`. notes: folder in which those on this node keep the note
    `Slot.note` of their calls into environments.
    """

    def __init__(
        self,
        slots: list[Slot],
        spawn: Callable[[Kind, int, int], ActorHandle[Any]],
        output: RunOutput,
        notes: PrivateFolder | None = None,
    ) -> None:
        self.slots = slots
        self._spawn = spawn
        self._output = output
        self._notes = notes
        self._placement: str | None = None
        self.watch = RayWatch()
        self._memory = MemoryKills()

    def of(self, kind: Kind) -> list[Slot]:
        return [slot for slot in self.slots if slot.kind == kind]

    def one(self, kind: Kind) -> Slot:
        (slot,) = self.of(kind)
        return slot

    @property
    def restarts(self) -> int:
        return sum(slot.restarts for slot in self.slots)

    def collect(self, wait: float) -> Iterator[tuple[Slot, Any]]:
        """Wait up to `wait` seconds for an answer, then go through all that are there.

        Yields (slot, result of its call); for a call that failed the result is the ProcessLost or OtherLost, and what
        there is to do about it is done. Raises RayLost.
        """
        self.watch.check()
        waiting = {slot.waits_for: slot for slot in self.slots if slot.waits_for is not None}
        if waiting:
            ray.wait(list(waiting), timeout=wait)
            for ref in ray.wait(list(waiting), num_returns=len(waiting), timeout=0)[0]:
                slot = waiting[ref]
                if slot.waits_for == ref and (taken := self._take(slot, ref)) is not None:
                    yield slot, *taken
        else:
            time.sleep(wait / 10)  # everyone is backing off after a failure
        now = time.monotonic()
        for slot in self.slots:
            limit = LONG_CALLS.get((slot.kind, slot.method), TIMEOUT)
            if slot.call is not None and now - slot.started > limit:
                yield slot, self.failed(slot, f"no answer to {slot.method} for {limit:.0f} s")
        self._show_placement(now)

    def _take(self, slot: Slot, ref: ray.ObjectRef[Any]) -> tuple[Any] | None:
        """The result of its call; None if `slot` has only become ready."""
        try:
            result = answer(ref, TIMEOUT)
        except ProcessLost as error:
            return (self.failed(slot, str(error)),)
        except OtherLost as error:
            return (self._blocked(slot, error),)
        except NumericsError as error:
            return (self.roll_back(slot, error),)
        slot.answered = time.monotonic()
        if slot.ready is not None:
            slot.ready, slot.node = None, result
            return None
        slot.release()
        return (result,)

    def failed(self, slot: Slot, reason: str) -> ProcessLost:
        """Put a new process in the place of one that died or hangs; it gets no work before the backoff is over.

        Machines come and go: that one took its processes with it is held against none of them. Raises RayLost.
        """
        self.watch.check()
        if is_gone(slot.node):
            if left := left_cluster():
                raise RayLost(left)
            reason = "its node left"
        else:
            if self._notes is not None and (call := read_crash_note(self._notes.path / slot.note)) is not None:
                slot.in_environment += 1
                reason = f"{call} ({reason.rstrip('.')})"
            if self._memory.newly():
                reason = f"{reason.rstrip('.')}: memory ran out, and the kernel killed a process. {REMEDY}"
            self.count_failure(slot, reason)
        return self._replace(slot, reason)

    def memory_exceeded(self, slot: Slot, reason: str) -> None:
        """Replace one that holds too much memory, as if it had died of that."""
        slot.in_environment += 1
        self.count_failure(slot, reason)
        self._replace(slot, reason)

    def _replace(self, slot: Slot, reason: str) -> ProcessLost:
        self._output.message(f"{slot.name} lost ({reason}); replacing it")
        service = slot.kind in SERVICES
        ray.kill(slot.handle, no_restart=not service)
        slot.restarts += 1
        slot.identity = None
        slot.hold(slot.handle if service else self._spawn(slot.kind, slot.index, slot.restarts))
        slot.retry_at = time.monotonic() + backoff(slot.failures)
        return ProcessLost(reason)

    def roll_back(self, slot: Slot, error: NumericsError) -> ProcessLost:
        """Numbers that are not finite: the learner goes on from the last checkpoint, as if it had died.

        Raises `error` if it is another's, or if the learner was set back to that checkpoint for this before.
        """
        if slot.kind != "learner" or slot.rolled_back:
            raise error
        slot.rolled_back = True
        return self.failed(slot, str(error))

    def count_failure(self, slot: Slot, reason: str) -> None:
        """One more death in a row; MuZeroRayError if it is one too many."""
        slot.failures += 1
        if slot.failures > MAX_FAILURES:
            kind = EnvironmentFault if slot.in_environment == slot.failures else MuZeroRayError
            raise self._given_up(f"{slot.name} failed {slot.failures} times in a row, last: {reason}", kind)

    def _blocked(self, slot: Slot, error: OtherLost) -> OtherLost:
        """Its call failed through another's death: it lives, and tries again."""
        slot.release()
        slot.blocked += 1
        if slot.blocked > MAX_BLOCKED:
            raise self._given_up(f"{slot.name} got no answer from others {slot.blocked} times in a row, last: {error}")
        slot.retry_at = time.monotonic() + backoff(min(slot.blocked, 4))
        return error

    def _given_up(self, reason: str, kind: type[MuZeroRayError] = MuZeroRayError) -> MuZeroRayError:
        now = time.monotonic()
        worst = sorted(self.slots, key=lambda slot: -slot.failures - slot.blocked)[:20]
        table = "\n".join(slot.row(now) for slot in worst)
        return kind(f"{reason}.\n{table}\n{self._output.resume_hint}")

    def _show_placement(self, now: float) -> None:
        """Say it when workers wait for a place, and when that changes. MuZeroRayError if they wait in vain."""
        waiting = [slot for slot in self.slots if slot.ready is not None and now - slot.started > PLACING_SECONDS]
        if waiting and (reason := stuck(self.slots, now)) is not None:
            raise self._given_up(reason)
        text = placement(self.slots, waiting) if waiting else None
        if text != self._placement:
            self._output.message(text or "all workers are placed")
        self._placement = text
