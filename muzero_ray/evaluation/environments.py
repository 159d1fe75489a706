"""The environments of an evaluation, and how many of them there may be."""

from __future__ import annotations

from collections.abc import Callable

from muzero_ray.config.schema import Config
from muzero_ray.envs.crash_note import CrashNote
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.registry import make_another


def environment_factory(config: Config, note: CrashNote | None = None) -> Callable[[bool], Environment]:
    """Makes evaluation environments; the argument asks for one that can render."""
    return lambda render: make_another(config.env, evaluation=True, render=render, note=note)


def evaluation_instances(config: Config) -> int | None:
    """How many environments an evaluation may hold (None: any number). The serial runner closes those of self-play
    meanwhile."""
    allowed, actors = config.env.instances, config.actors
    if allowed is None or config.run.serial:
        return allowed
    return allowed - actors.count * actors.envs_per_actor
