"""Unpacks the configuration into plain objects. The serial runner and the Ray shells build from here alike."""

from __future__ import annotations

import math

from muzero_ray.acting.self_play import SelfPlay
from muzero_ray.config.schema import Config
from muzero_ray.envs.crash_note import CrashNote
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.registry import make_another
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.inference.build import build_engine
from muzero_ray.search.policies import build_search


def build_self_play(
    config: Config,
    task: TaskSpec,
    *,
    actor: int,
    incarnation: int = 0,
    num_envs: int | None = None,
    note: CrashNote | None = None,
) -> SelfPlay:
    """Self-play actor number `actor`, with environments (`num_envs`, or as many as configured) and a random stream.

    note: told of every call into an environment.
    """
    if num_envs is None:
        num_envs = config.actors.envs_per_actor
        if config.run.episodes is not None:
            # A run of a few episodes plays those, not many more that would all be in flight when it ends.
            num_envs = min(num_envs, math.ceil(config.run.episodes / config.actors.count))

    def make() -> Environment:
        return make_another(config.env, note=note)

    return SelfPlay(
        [make() for _ in range(num_envs)],
        build_engine(config, task),
        build_search(config, task),
        actor=actor,
        incarnation=incarnation,
        seed=config.run.seed,
        frame_stack=config.env.frame_stack,
        segment_length=config.replay.segment_length,
        overlap=config.learner.unroll_steps + config.learner.td_steps,
        simulations=config.search.simulations,
        temperature_moves=config.search.greedy_from,
        make_environment=make,
    )
