"""The first look at a configuration: whether environment, network and device can be had."""

from __future__ import annotations

from muzero_ray.config.schema import Config
from muzero_ray.envs.chance import generators_kept
from muzero_ray.envs.subprocess_probe import spec_in_subprocess, spec_of
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.inference.build import build_engine
from muzero_ray.training.build import resolve_device


def probe(config: Config, *, in_subprocess: bool = False) -> TaskSpec:
    """Make the environment and a network for it once, and read the shapes.

    in_subprocess: try the environment in a process of its own, as workers will have theirs. In this one, it leaves the
    global generators as they were.
    Raises ConfigError or EnvironmentFault for what cannot work, here and not in some worker.
    """
    env = config.env
    if in_subprocess:
        spec = spec_in_subprocess(env, config.run.plugins)
    else:
        with generators_kept():
            spec = spec_of(env)
    task = TaskSpec.of(spec, env.frame_stack)
    build_engine(config, task)
    if config.run.address is None:
        resolve_device(config.learner.device)
    return task
