"""From settings to a replay buffer."""

from __future__ import annotations

import numpy as np

from muzero_ray.config.schema import Config
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.replay.targets import Horizon


def build_buffer(config: Config, task: TaskSpec, shard: int = 0) -> ReplayBuffer:
    """The replay buffer of a run, or one shard of it."""
    rng = np.random.default_rng([config.run.seed, 1_000_001 + shard])
    return make_replay(config, num_players=task.spec.num_players, rng=rng)


def make_replay(cfg: Config, *, num_players: int, rng: np.random.Generator) -> ReplayBuffer:
    """The replay of a run, or one shard of it."""
    return ReplayBuffer(
        capacity=cfg.replay.capacity // cfg.replay.shards,
        capacity_bytes=cfg.replay.capacity_bytes // cfg.replay.shards,
        alpha=cfg.replay.priority_alpha,
        frame_stack=cfg.env.frame_stack,
        unroll_steps=cfg.learner.unroll_steps,
        horizon=Horizon(cfg.learner.td_steps, cfg.learner.discount, cfg.reanalyze.shorten_steps),
        num_players=num_players,
        with_next_observations=cfg.learner.consistency_weight > 0,
        holdout=cfg.replay.holdout,
        rng=rng,
    )
