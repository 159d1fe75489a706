"""The first look at an environment, in a process of its own, so that one that hangs, exits or crashes is reported."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import types
from collections.abc import Iterator
from multiprocessing.connection import Connection

from muzero_ray.config.plugins import import_plugins
from muzero_ray.config.schema import EnvConfig
from muzero_ray.envs.registry import make_environment
from muzero_ray.envs.restarting import RestartingEnvironment
from muzero_ray.errors import EnvironmentFault, MuZeroRayError
from muzero_ray.stop_signals import not_for_children
from muzero_ray.types import EnvSpec

SECONDS = 120.0
"""For making an environment and starting its first game."""


def spec_of(cfg: EnvConfig) -> EnvSpec:
    """Make it, start a game, read its shapes. Raises ConfigError, or EnvironmentFault after some attempts."""
    environment = RestartingEnvironment(make_environment(cfg), lambda: make_environment(cfg))
    try:
        while True:
            try:
                environment.current.reset(environment.faults_in_a_row)
                return environment.current.spec
            except EnvironmentFault as fault:
                environment.replace(fault)
    finally:
        environment.current.close()


def spec_in_subprocess(cfg: EnvConfig, plugins: tuple[str, ...] = ()) -> EnvSpec:
    """`spec_of`, by another process, which imports `plugins` first. EnvironmentFault, too, if it hangs or dies."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_spec, args=(cfg, plugins, sender), daemon=True)
    with not_for_children(signal.SIGINT, signal.SIGHUP), _without_main():
        process.start()
    sender.close()
    try:
        answered = receiver.poll(SECONDS)
        answer = receiver.recv() if answered else None
    except EOFError:
        answer = None
    finally:
        process.kill()
        process.join()
    if isinstance(answer, MuZeroRayError):
        raise answer
    if isinstance(answer, EnvSpec):
        return answer
    what = "its process ended" if answered else f"nothing came back within {SECONDS:g} s"
    code = f" with {process.exitcode}" if answered else ""
    raise EnvironmentFault(f"environment {cfg.id} (seed 0, step 0): making it and its first reset: {what}{code}")


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A process that is spawned in this block does not import the user's script, which would train there once more."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _send_spec(cfg: EnvConfig, plugins: tuple[str, ...], sender: Connection) -> None:
    try:
        import_plugins(plugins)
        sender.send(spec_of(cfg))
    except MuZeroRayError as error:
        sender.send(error)
