"""From a raw observation to an action: a trained network, the engine that computes it, its search and a frame stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from muzero_ray.acting.build import build_planner
from muzero_ray.acting.frame_stacker import FrameStacker
from muzero_ray.caches import make_cache_writable
from muzero_ray.config.schema import Config
from muzero_ray.envs.own_spaces import OwnSpaces
from muzero_ray.envs.registry import describe_environment
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.protocol import evaluation_search
from muzero_ray.inference.build import EngineName, acting_engine
from muzero_ray.networks.build import build_network
from muzero_ray.networks.flat import load_named
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.networks.onnx_export import export_onnx
from muzero_ray.runs.checkpoint import Checkpoint
from muzero_ray.runs.run import Run, WhichCheckpoint, open_checkpoint
from muzero_ray.search.planner import Planned, Planner
from muzero_ray.search.search_tree import SearchTree
from muzero_ray.types import Array, BoolArray, FloatArray, IntArray

MODEL = "model."
"""What the names of the network's weights in a checkpoint begin with."""


@dataclass(frozen=True)
class Plan:
    """What a search found out about `B` positions. Values and rewards are in the environment's units.

    actions: `[B]` int32, the ones to take, in [0, A). policy: `[B, A]`, the search's improved policy. visits: `[B, A]`
    int32, simulations that went through each action. values: `[B]`, of the positions after the search, for the player
    to move. rewards, q_values: `[B, A]`, what the model predicts an action to earn at once, and in all; NaN where the
    search did not try it. prior, network_values: `[B, A]` and `[B]`, what the network alone says. tree: every node of
    the search; None if a search of a plugin shows none.
    """

    actions: IntArray
    policy: FloatArray
    visits: IntArray
    values: FloatArray
    rewards: FloatArray
    q_values: FloatArray
    prior: FloatArray
    network_values: FloatArray
    tree: SearchTree | None


class Agent:
    """A trained network that acts: with its search, without exploration, as evaluations do.

        agent = mz.Agent.load("runs/cartpole")
        env = gymnasium.make("CartPole-v1")
        observation, info = env.reset()
        agent.reset()
        done = False
        while not done:
            observation, reward, terminated, truncated, info = env.step(agent.act(observation))
            done = terminated or truncated

    Made by `load`. config: of its run, with the settings given to `load`. step: learner step of its weights. One thread
    at a time.
    """

    def __init__(
        self,
        config: Config,
        task: TaskSpec,
        spaces: OwnSpaces,
        network: MuZeroNetwork,
        planner: Planner,
        checkpoint: Checkpoint,
        seed: int,
    ) -> None:
        self.config, self.task, self.planner, self.network = config, task, planner, network
        self.step, self.path = checkpoint.step, checkpoint.path
        self._spaces = spaces
        self._rng = np.random.default_rng(seed)
        self._stacker = self._new_stacker(1)
        self._begun = False

    @classmethod
    def load(
        cls,
        source: Run | str | Path,
        *,
        checkpoint: WhichCheckpoint = "last",
        device: str = "auto",
        engine: EngineName = "auto",
        simulations: int | None = None,
        seed: int = 0,
    ) -> Agent:
        """An agent with the weights of a run. The machine needs nothing of what trained them, such as a GPU.

        source: a run, its folder, or the folder of one of its checkpoints, which may have been copied elsewhere.
        checkpoint: `last`, `best` (the highest score among those kept) or the learner step of one. device: `auto` is
        the CPU, where the compiled engines compute; `cuda` is for many positions at a time. engine: `torch`,
        `compiled`, or `auto`, what the run's actors used. simulations: a move (None: as the run's evaluations). seed:
        of exploration.
        The environment is made once, to learn its spaces. Raises MuZeroRayError for whatever cannot be used.

            agent = mz.Agent.load("runs/breakout", checkpoint="best", simulations=50)
        """
        config, found = open_checkpoint(source, checkpoint, read="weights")
        if simulations is not None:
            config = config.override({"evaluation.simulations": simulations})
        return cls.of(config, found, device=device, engine=engine, seed=seed)

    @classmethod
    @make_cache_writable()
    def of(
        cls, config: Config, checkpoint: Checkpoint, *, device: str = "auto", engine: EngineName = "auto", seed: int = 0
    ) -> Agent:
        """An agent with the weights of a checkpoint that was read already; see `load`."""
        spec, spaces = describe_environment(config.env)
        task = TaskSpec.of(spec, config.env.frame_stack)
        network = build_network(config, task)
        weights = {name.removeprefix(MODEL): array for name, array in checkpoint.model.items()}
        load_named(network, weights, checkpoint.path)
        served = acting_engine(network, config, engine=engine, device=_device(device))
        planner = build_planner(config, task, evaluation_search(config), served)
        return cls(config, task, spaces, network, planner, checkpoint, seed)

    def reset(self) -> None:
        """Forget the frames seen so far: a new episode begins.

        observation, info = env.reset()
        agent.reset()
        """
        self._begun = False

    def act(self, observation: Any, legal: Any = None) -> Any:
        """The action to take, of the environment's own action space, after one raw observation of its own space.

        Call it once for each observation of an episode: frames are stacked until `reset`. observation: what
        `env.step` returned; of board games the pyspiel.State. legal: which actions are allowed, `[A]` (None: all, or
        what the State says). ValueError if the observation or `legal` is not of the environment.

            action = agent.act(observation, info.get("action_mask"))
        """
        frame = self._spaces.frame(observation)
        if self._begun:
            self._stacker.push(0, frame)
        else:
            self._stacker.start(0, frame)
            self._begun = True
        mask = self._legal([observation], None if legal is None else [legal])
        return self._spaces.action(int(self._search(self._stacker.stacked, mask, False, 0.0).result.action[0]))

    def plan(
        self, observations: Sequence[Any], legal: Any = None, *, explore: bool = False, temperature: float = 0.0
    ) -> Plan:
        """Search several positions together, and tell all that was found; the frames of `act` are left alone.

        observations: `B` raw ones of the environment's own space; where the network sees a stack of frames, each may be
        a list of the newest ones, oldest first (missing ones are zeros). legal: `[B, A]` (None: as `act`). explore:
        with the noise of self-play. temperature: above 0, actions are drawn from policy^(1 / temperature); 0 takes the
        best.

            plan = agent.plan([observation])
            plan.policy[0], plan.values[0], plan.tree.visits[0]
        """
        stacks = [one if isinstance(one, list | tuple) else [one] for one in observations]
        if not stacks or not all(stacks):
            raise ValueError("plan: no observation was given. Pass at least one, each with at least one frame")
        stacker = self._new_stacker(len(stacks))
        for row, stack in enumerate(stacks):
            stacker.start(row, self._spaces.frame(stack[0]))
            for one in stack[1:]:
                stacker.push(row, self._spaces.frame(one))
        mask = self._legal([stack[-1] for stack in stacks], legal)
        planned = self._search(stacker.stacked, mask, explore, temperature)
        return self._told(planned, mask, 0.0 if explore else temperature)

    def export(self, folder: str | Path) -> Path:
        """Write the network's h, g and f as ONNX, checked with onnxruntime, and `model.json`, which describes them.

        h: stacked observations to hidden states; g: these and actions to the next ones and rewards; f: hidden states to
        policies and values; for any number of rows, in env units. Needs the extra `onnx`. Returns the folder. Raises
        MuZeroRayError.

            mz.Agent.load("runs/cartpole").export("exported")
        """
        spec, env = self.task.spec, self.config.env
        about = {
            "environment": env.id,
            "observation": spec.seen,
            "frame_stack": env.frame_stack,
            "num_actions": spec.num_actions,
            "num_players": spec.num_players,
            "discount": self.config.learner.discount,
            "learner_step": self.step,
        }
        export_onnx(
            self.network,
            Path(folder),
            observation_shape=self.task.observation_shape,
            observation_dtype=spec.observation_dtype,
            about=about,
        )
        return Path(folder)

    def _search(self, stacked: Array, legal: BoolArray, explore: bool, temperature: float) -> Planned:
        heat = np.full(len(legal), temperature, np.float32)
        return self.planner.plan(stacked, legal, self._rng, explore=explore, temperature=heat)

    def _told(self, planned: Planned, legal: BoolArray, temperature: float) -> Plan:
        """temperature: of drawing actions here, 0 where the search chose them."""
        root, result = planned
        tree = self.planner.tree_of(planned)
        rewards = np.full(legal.shape, np.nan, np.float32)
        q_values = rewards.copy()
        if tree is not None:
            rows, nodes = np.nonzero(tree.parent == 0)
            rewards[rows, tree.action[rows, nodes]] = tree.reward[rows, nodes]
            q_values[rows, tree.action[rows, nodes]] = tree.q[rows, nodes]
        logits = np.where(legal, root.policy_logits, -np.inf)
        prior = np.exp(logits - logits.max(axis=1, keepdims=True))
        return Plan(
            actions=self._drawn(result.policy_target, temperature) if temperature > 0 else result.action,
            policy=result.policy_target,
            visits=result.visit_counts,
            values=result.root_value,
            rewards=rewards,
            q_values=q_values,
            prior=prior / prior.sum(axis=1, keepdims=True),
            network_values=root.value.copy(),
            tree=tree,
        )

    def _drawn(self, policy: FloatArray, temperature: float) -> IntArray:
        """Actions drawn from `policy` `[B, A]` to the power of 1 / temperature: the largest of logits and noise."""
        with np.errstate(divide="ignore"):
            logits = np.log(policy) / temperature
        drawn: IntArray = np.argmax(logits + self._rng.gumbel(size=policy.shape), axis=1).astype(np.int32)
        return drawn

    def _legal(self, observations: Sequence[Any], given: Any) -> BoolArray:
        shape = (len(observations), self.task.spec.num_actions)
        if given is None:
            own = [self._spaces.legal(one) for one in observations]
            return np.stack([np.ones(shape[1], np.bool_) if one is None else one for one in own])
        mask = np.asarray(given)
        if mask.shape != shape or mask.dtype.kind not in "bui" or not mask.any(axis=1).all():
            raise ValueError(
                f"legal: expected 0 and 1 for each of {shape[1]} actions of {shape[0]} positions, at least one 1 in "
                f"each, got {mask.dtype} {mask.shape}"
            )
        return mask.astype(np.bool_)

    def _new_stacker(self, rows: int) -> FrameStacker:
        spec = self.task.spec
        return FrameStacker(rows, spec.observation_shape, spec.observation_dtype, self.config.env.frame_stack)


def _device(name: str) -> str:
    """ConfigError if this machine does not have it."""
    if name == "auto":
        return "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device={name}: this machine has no such device ({reason}). Use auto or cpu") from None
    return name
