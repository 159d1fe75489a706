"""Start Ray actors and call them with types: both take the plain class or its method, so that mypy checks each call."""

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
    """Start an actor of the class `worker`. options: Ray's, such as `num_cpus` or `scheduling_strategy`."""
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
    """Let `actor` run a method of its class, as `ReplayWorker.draw`. Does not wait; `ray.get` gives the result."""
    result: ray.ObjectRef[Any] = getattr(actor, method.__name__).remote(*arguments, **named)
    return result


def run_in(actor: ActorHandle[Worker], function: Callable[[Worker], Result]) -> ray.ObjectRef[Result]:
    """As `call`, for a function that takes the actor's object and is not a method of its class."""
    result: ray.ObjectRef[Result] = actor.__ray_call__.remote(function)
    return result


def ping(_: object) -> None:
    """Does nothing. `run_in(actor, ping)` is answered if the actor is alive and not busy."""
