"""Unpacks the configuration into plain objects. The serial runner and the Ray shells build from here alike."""

from __future__ import annotations

import math

from muzero_ray.acting.self_play import SelfPlay
from muzero_ray.config.schema import Config, SearchConfig
from muzero_ray.envs.crash_note import CrashNote
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.registry import make_another
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.inference.build import build_engine
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.search.planner import Planner
from muzero_ray.search.policies import make_search


def build_planner(
    config: Config, task: TaskSpec, search: SearchConfig, engine: InferenceEngine | None = None
) -> Planner:
    """The network of `config`, to be searched as `search` says. engine: that serves it (None: as configured)."""
    function = make_search(search, discount=config.learner.discount, num_players=task.spec.num_players)
    return Planner(build_engine(config, task) if engine is None else engine, function)


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
        build_planner(config, task, config.search),
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
