"""Unpacks the configuration into plain objects. The serial runner and the Ray shells build from here alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from muzero_ray.acting.self_play import SelfPlay
from muzero_ray.config.schema import Config, EnvConfig
from muzero_ray.config.validation import shown
from muzero_ray.envs.apart import spec_apart, spec_of
from muzero_ray.envs.call_note import CallNote
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import EnvironmentFault
from muzero_ray.inference.build import make_engine
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.networks.build import make_network
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.networks.precision import use_bf16
from muzero_ray.replay.buffer import ReplayBuffer, make_replay
from muzero_ray.search.policies import SearchFunction, make_search
from muzero_ray.training.build import make_learner, resolve_device
from muzero_ray.training.group import Group
from muzero_ray.training.learner import Learner
from muzero_ray.types import EnvSpec


@dataclass(frozen=True)
class TaskShape:
    """What the parts must agree on, read once from a real environment.

    spec: of a single frame. observation_shape: stacked, as networks see it, `(stack * C, ...)`.
    """

    spec: EnvSpec
    observation_shape: tuple[int, ...]

    def seen(self, env: EnvConfig) -> str:
        """Which environment it is and what is seen of it, for people."""
        given = "".join(f" {key}={shown(value)}" for key, value in env.kwargs.items())
        stack = f"{env.frame_stack} frames of " if env.frame_stack > 1 else ""
        return f"environment {env.id}{given and f' with{given}'}: observation: {stack}{self.spec.seen}"


def probe(config: Config, *, apart: bool = False) -> TaskShape:
    """Make the environment and a network for it once, and read the shapes.

    apart: try the environment in a process of its own, as workers will have theirs.
    Raises ConfigError or EnvironmentFault for what can not work, here and not in some worker.
    """
    spec = spec_apart(config.env) if apart else spec_of(config.env)
    channels, *rest = spec.observation_shape
    shape = TaskShape(spec, (channels * config.env.frame_stack, *rest))
    build_engine(config, shape)
    if config.run.address is None:
        resolve_device(config.learner.device)
    return shape


def build_network(config: Config, shape: TaskShape) -> MuZeroNetwork:
    """The network as the learner starts with it, on the CPU."""
    return make_network(
        config.network,
        observation_shape=shape.observation_shape,
        num_actions=shape.spec.num_actions,
        consistency=config.learner.consistency_weight > 0,
        seed=config.run.seed,
    )


def build_engine(config: Config, shape: TaskShape) -> InferenceEngine:
    """A network for acting. Its weights mean nothing until the first `load`."""
    network = build_network(config, shape)
    actors = config.actors
    bf16 = use_bf16(actors.precision, torch.device("cpu"), "actors.precision")
    return make_engine(network, engine=actors.engine, bf16=bf16, threads=actors.threads)


def build_search(
    config: Config, shape: TaskShape, *, simulations: int | None = None, c_scale: float | None = None
) -> SearchFunction:
    """The configured search; the arguments override its settings of these names (evaluation, reanalyze)."""
    search = config.search.overridden(simulations=simulations, c_scale=c_scale)
    return make_search(search, discount=config.learner.discount, num_players=shape.spec.num_players)


def build_self_play(
    config: Config,
    shape: TaskShape,
    *,
    actor: int,
    incarnation: int = 0,
    lanes: int | None = None,
    note: CallNote | None = None,
) -> SelfPlay:
    """Self-play actor number `actor`, with environments (`lanes`, or as many as configured) and a random stream.

    note: told of every call into an environment.
    """
    if lanes is None:
        lanes = config.actors.envs_per_actor
        if config.run.episodes is not None:
            # A run of a few episodes plays those, not many more that would all be in flight when it ends.
            lanes = min(lanes, math.ceil(config.run.episodes / config.actors.count))

    def make() -> Environment:
        return _one_more(config.env, note=note)

    return SelfPlay(
        [make() for _ in range(lanes)],
        build_engine(config, shape),
        build_search(config, shape),
        actor=actor,
        incarnation=incarnation,
        seed=config.run.seed,
        frame_stack=config.env.frame_stack,
        segment_length=config.replay.segment_length,
        overlap=config.learner.unroll_steps + config.learner.td_steps,
        simulations=config.search.simulations,
        temperature_moves=config.search.temperature_moves,
        renew=make,
    )


def build_buffer(config: Config, shape: TaskShape, shard: int = 0) -> ReplayBuffer:
    """The replay buffer of a run, or one shard of it."""
    rng = np.random.default_rng([config.run.seed, 1_000_001 + shard])
    return make_replay(config, num_players=shape.spec.num_players, rng=rng)


def build_learner(config: Config, shape: TaskShape, group: Group | None = None) -> Learner:
    """The learner, with freshly initialised weights; alone, or one rank of `group`."""
    return make_learner(
        config, observation_shape=shape.observation_shape, num_actions=shape.spec.num_actions, group=group
    )


def environment_factory(config: Config, note: CallNote | None = None) -> Callable[[bool], Environment]:
    """Makes evaluation environments; the argument asks for one that can render."""
    return lambda render: _one_more(config.env, evaluation=True, render=render, note=note)


def evaluation_instances(config: Config) -> int | None:
    """How many environments an evaluation may hold (None: any number). The serial runner closes those of self-play
    meanwhile."""
    allowed, actors = config.env.instances, config.actors
    if allowed is None or config.run.serial:
        return allowed
    return allowed - actors.count * actors.envs_per_actor


def _one_more(
    env: EnvConfig, *, evaluation: bool = False, render: bool = False, note: CallNote | None = None
) -> Environment:
    """An environment of the kind that `probe` has made one of."""
    try:
        return make_environment(env, evaluation=evaluation, render=render, note=note)
    except EnvironmentFault as fault:
        if env.instances is not None:
            raise
        raise EnvironmentFault(
            f"{fault}. The first one could be made. If only so many can exist at a time, say how many: --env.instances "
            "1 --serial --actors.envs-per-actor 1"
        ) from fault
