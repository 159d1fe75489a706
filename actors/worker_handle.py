"""A worker as the supervisor sees it: its actor, whether it runs, when it last answered, how often it died."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from muzero_ray.actors.calls import call, ping, run_in
from muzero_ray.errors import MuZeroRayError, PeerLost

Kind = Literal["replay", "params", "learner", "evaluator", "reanalyze", "self_play"]

Worker = TypeVar("Worker")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

MAX_BACKOFF = 60.0
"""Seconds; the pause before a replacement gets work doubles from 1 up to this."""

LOST = (RayActorError, ObjectLostError, GetTimeoutError, OutOfMemoryError, NodeDiedError, WorkerCrashedError)
"""What Ray raises when a process is gone or hangs."""


class ProcessLost(Exception):
    """The process that was asked is gone or hangs, or cannot work without another that is."""


class OtherLost(Exception):
    """The process that was asked lives, but another one that it needs did not answer."""


def answer(ref: ray.ObjectRef[Result], timeout: float) -> Result:
    """`ray.get`, telling apart who failed: ProcessLost, OtherLost, or the MuZeroRayError that a worker raised."""
    try:
        result: Result = ray.get(ref, timeout=timeout)
        return result
    except RayTaskError as error:
        cause: BaseException | None = error
        while isinstance(cause, RayTaskError):  # one for each process that it came through
            cause = cause.cause
        if isinstance(cause, MuZeroRayError):
            raise cause from None
        if isinstance(cause, PeerLost):
            raise ProcessLost(str(cause)) from error
        if isinstance(cause, LOST):
            raise OtherLost(_reason(cause)) from error
        raise
    except LOST as error:
        raise ProcessLost(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """One line: the exception of a constructor that failed, or else what Ray says first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if getattr(error, "actor_init_failed", False) else lines[0]


@dataclass(eq=False)
class WorkerHandle(Generic[Worker]):
    """One worker, replacements included: the actor that it is now, and what that is doing."""

    kind: Kind
    index: int
    actor: ActorHandle[Worker]
    restarts: int = 0
    """Its incarnation within this part of the run."""
    failures: int = 0
    """Deaths since its last useful answer. Starting a replacement does not count as an answer."""
    in_environment: int = 0
    """How many of those deaths were an environment's doing: its process was in a call into one, or held too much."""
    blocked: int = 0
    """Calls since then that failed because another process died."""
    retry_at: float = 0.0
    """Monotonic time before which it gets no work."""
    answered: float | None = None
    """Monotonic time of its last answer."""
    identity: str | None = None
    """Which process of a service answered last."""
    rolled_back: bool = False
    """Whether the learner was set back to the last checkpoint, and not for dying."""
    fresh: bool = True
    """Its process holds nothing yet but what its constructor was given."""
    ready: ray.ObjectRef[Any] | None = field(init=False)
    """Pending while Ray has not found it a place, or its constructor runs; None from then on. It says which node."""
    node: str | None = None
    """Id of the node that its process runs on, once it does."""
    call: ray.ObjectRef[Any] | None = None
    method: Callable[..., Any] | None = None
    """What was called last."""
    reserved: int = 0
    """Transitions of the budget that its call may use up."""
    started: float = 0.0
    """Monotonic time of its last call, or of being placed."""

    def __post_init__(self) -> None:
        self.hold(self.actor)

    @property
    def name(self) -> str:
        return f"{self.kind} {self.index}" if self.kind in ("self_play", "replay") else self.kind

    @property
    def note(self) -> str:
        """Name of the file in which its process notes its calls into environments."""
        return note_name(self.kind, self.index, self.restarts)

    @property
    def waits_for(self) -> ray.ObjectRef[Any] | None:
        return self.ready if self.ready is not None else self.call

    def hold(self, actor: ActorHandle[Worker]) -> None:
        """From now on `actor` is the worker."""
        self.actor = actor
        self.ready = run_in(actor, node_of)
        self.node = None
        self.fresh = True
        self.release()
        self.started = time.monotonic()

    def send(
        self,
        method: Callable[Concatenate[Worker, Arguments], object],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> None:
        """Call `method`; `waits_for` is then its answer."""
        self.call = call(self.actor, method, *arguments, **named)
        self.method, self.started = method, time.monotonic()

    def send_ping(self) -> None:
        """Ask it for nothing but an answer."""
        self.call = run_in(self.actor, ping)
        self.method, self.started = ping, time.monotonic()

    def release(self) -> None:
        """Its call is over."""
        self.call, self.reserved = None, 0

    def forgive(self) -> None:
        """It did useful work: earlier failures no longer count."""
        self.failures = self.in_environment = self.blocked = 0
        self.rolled_back = False

    def is_free(self, now: float) -> bool:
        return self.waits_for is None and self.retry_at <= now

    def row(self, now: float) -> str:
        """Its line of the truth table."""
        called = self.method.__name__ if self.method is not None and self.call is not None else "idle"
        state = "waits for a place" if self.ready is not None else called
        last = f"{now - self.answered:.0f} s ago" if self.answered is not None else "never"
        wait = f", next try in {self.retry_at - now:.0f} s" if self.retry_at > now else ""
        return (
            f"  {self.name:<14}{state:<18} answered {last}, restarts {self.restarts}, "
            f"failures {self.failures}, blocked {self.blocked}{wait}"
        )


def note_name(kind: Kind, index: int, restarts: int) -> str:
    return f"{kind}-{index}-{restarts}"


def node_of(_: object) -> str:
    """Id of the node that the asked actor is on."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


def is_gone(node: str | None) -> bool:
    """Whether that node has left the cluster."""
    return node is not None and not any(known["NodeID"] == node and known["Alive"] for known in ray.nodes())


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return float(min(2.0 ** (failures - 1), MAX_BACKOFF))
