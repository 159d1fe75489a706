"""Ray's actors, typed: `start` and `call` take the plain class and its methods, so that mypy checks every call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

import ray
from ray.actor import ActorHandle

Worker = TypeVar("Worker")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def start(
    worker: Callable[Arguments, Worker],
    options: dict[str, Any],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> ActorHandle[Worker]:
    """Make an actor of the class `worker`. options: Ray's, for its process and its place."""
    remote: Any = ray.remote(worker)
    actor: ActorHandle[Worker] = remote.options(**options).remote(*arguments, **named)
    return actor


@overload
def call(
    actor: ActorHandle[Worker],
    method: Callable[Concatenate[Worker, Arguments], Coroutine[Any, Any, Result]],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> ray.ObjectRef[Result]: ...
@overload
def call(
    actor: ActorHandle[Worker],
    method: Callable[Concatenate[Worker, Arguments], Result],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> ray.ObjectRef[Result]: ...
def call(actor: ActorHandle[Any], method: Callable[..., Any], *arguments: Any, **named: Any) -> ray.ObjectRef[Any]:
    """Have `actor` run a method of its class, such as `ReplayWorker.draw`; returns the answer to come."""
    answer: ray.ObjectRef[Any] = getattr(actor, method.__name__).remote(*arguments, **named)
    return answer


def run_in(actor: ActorHandle[Worker], function: Callable[[Worker], Result]) -> ray.ObjectRef[Result]:
    """Have `actor` run a function that is not a method of its class."""
    answer: ray.ObjectRef[Result] = actor.__ray_call__.remote(function)
    return answer


def ping(_: object) -> None:
    """For `run_in`: its answer shows that the actor is there."""
