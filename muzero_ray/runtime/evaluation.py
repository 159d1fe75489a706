"""Noise-free games under one stated protocol: the score of a network, and of the random policy beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from muzero_ray.config import Config
from muzero_ray.envs.call_note import CallNote
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.renewal import Renewal
from muzero_ray.errors import EnvironmentFault
from muzero_ray.networks.engine import InferenceEngine
from muzero_ray.runtime.build import TaskShape, build_engine, build_search, environment_factory, evaluation_instances
from muzero_ray.runtime.frame_stacker import FrameStacker
from muzero_ray.runtime.opponents import Opponent, make_opponent
from muzero_ray.runtime.protocol import EvaluationProtocol, evaluation_protocol
from muzero_ray.runtime.video import encode_mp4
from muzero_ray.search.policies import SearchFunction
from muzero_ray.types import Array, BoolArray, FloatArray, IntArray

MAX_LANES = 32
"""Episodes played side by side."""

MAX_FRAMES = 1_800
"""Rendered frames kept for a video."""

VIDEO_FPS = 30
"""Of videos, in agent steps per second."""

Policy = Callable[[Array, BoolArray], IntArray]
"""Stacked observations `[B, ...]` and legal actions `[B, A]` to actions `[B]`."""


@dataclass(frozen=True)
class Evaluation:
    """Result of some episodes: raw undiscounted returns of the evaluated player and lengths in moves."""

    returns: FloatArray
    lengths: IntArray
    protocol: EvaluationProtocol
    seed: int
    video: bytes | None = None
    """mp4 of the first episode, if it was asked for and the environment renders."""
    faults: tuple[str, ...] = ()
    """Of environments that broke. What they played does not count: those episodes were played again."""

    @property
    def mean(self) -> float:
        return float(self.returns.mean())

    def summary(self) -> str:
        """The line `evaluate` ends with."""
        return (
            f"return_mean={self.mean:.3f} return_std={float(self.returns.std()):.3f} "
            f"episodes={len(self.returns)} env_steps={int(self.lengths.sum())}"
            + (f" environment_faults={len(self.faults)}" if self.faults else "")
        )

    def metrics(self) -> dict[str, float]:
        """The `eval/` group of a metrics row."""
        return {
            "eval/return_mean": self.mean,
            "eval/return_std": float(self.returns.std()),
            "eval/length_mean": float(self.lengths.mean()),
            "eval/episodes": len(self.returns),
            "eval/simulations": self.protocol.simulations,
        }


def search_policy(engine: InferenceEngine, search: SearchFunction) -> Policy:
    """The network and its search, noise-free: the most visited (or best improved) action."""
    rng = np.random.default_rng(0)  # breaks exact ties only

    def act(observations: Array, legal: BoolArray) -> IntArray:
        root = engine.initial(observations)
        temperature = np.zeros(len(observations), np.float32)
        return search(root, engine.recurrent, legal, rng, explore=False, temperature=temperature).action

    return act


def random_policy(seed: int) -> Policy:
    """Uniform over legal actions."""
    rng = np.random.default_rng(seed)

    def act(observations: Array, legal: BoolArray) -> IntArray:
        del observations
        actions: IntArray = np.argmax(rng.random(legal.shape) * legal, axis=1).astype(np.int32)
        return actions

    return act


AGAIN = 1_000_003
"""Added to the seed of an episode each time that its environment broke: it may break for each game of that seed."""


class _Lane:
    """One environment playing its share of the episodes; in two-player games the policy has seat `episode % 2`."""

    def __init__(self, make: Callable[[bool], Environment], opponent: Opponent | None, record: bool) -> None:
        self._place = Renewal(make(record), lambda: make(record))
        self._opponent = opponent
        self.record = record
        self.frames: list[Array] = []

    def start(self, episode: int, seed: int) -> list[Array]:
        """Begin `episode`; returns the frames seen until the policy is to move."""
        self.episode = episode
        self.score, self.length, self.over = 0.0, 0, False
        self.seat = episode % 2 if self._opponent else 0
        if self.record:
            self.frames.clear()
        frames = [self.environment.reset((seed + episode + AGAIN * self._place.in_a_row) % 2**32)]
        self._capture()
        return frames + self._reply()

    @property
    def environment(self) -> Environment:
        return self._place.environment

    def broke(self, fault: EnvironmentFault) -> None:
        """Another environment for it, which has to `start`. Raises the fault if there were too many in a row."""
        self._place.broke(fault)

    def finished(self) -> None:
        """Its episode is over."""
        self.record = False
        self._place.was_useful()

    def act(self, action: int) -> list[Array]:
        """Play the policy's action and the opponent's reply; returns the frames that followed."""
        self.length += 1
        return [self._step(action), *self._reply()]

    def _reply(self) -> list[Array]:
        frames = []
        while self._opponent and not self.over and self.environment.to_play() != self.seat:
            frames.append(self._step(self._opponent(self.environment)))
        return frames

    def _step(self, action: int) -> Array:
        player = self.environment.to_play()
        step = self.environment.step(action)
        self.score += step.reward if player == self.seat else -step.reward
        self.over = step.terminated or step.truncated
        self._capture()
        return step.observation

    def _capture(self) -> None:
        if self.record and len(self.frames) < MAX_FRAMES and (frame := self.environment.render()) is not None:
            self.frames.append(frame)


def play_episodes(
    make_environment: Callable[[bool], Environment],
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    frame_stack: int,
    protocol: EvaluationProtocol,
    opponent: Opponent | None = None,
    record: bool = False,
    instances: int | None = None,
) -> Evaluation:
    """Play `episodes` games, episode `i` reset with `seed + i`, up to `instances` (None: `MAX_LANES`) side by side.

    An episode whose environment breaks is played again in a new one, with another seed.
    make_environment: called with True for the one environment that is rendered. opponent: needed by, and only by,
    two-player games. record: keep the rendering of the first episode.
    """
    count = min(episodes, MAX_LANES, instances or MAX_LANES)
    lanes = [_Lane(make_environment, opponent, record and i == 0) for i in range(count)]
    faults: list[str] = []
    spec = lanes[0].environment.spec
    if (spec.num_players == 2) != (opponent is not None):
        raise ValueError(f"{spec.name} has {spec.num_players} player(s): an opponent is needed exactly for two")
    stacker = FrameStacker(count, spec.observation_shape, spec.observation_dtype, frame_stack)
    returns, lengths = np.zeros(episodes, np.float32), np.zeros(episodes, np.int32)
    waiting = iter(range(count, episodes))

    def begin(index: int, episode: int) -> None:
        while True:
            try:
                first, *rest = lanes[index].start(episode, seed)
                break
            except EnvironmentFault as fault:
                broke(lanes[index], fault)
        stacker.start(index, first)
        for frame in rest:
            stacker.push(index, frame)

    def broke(lane: _Lane, fault: EnvironmentFault) -> None:
        faults.append(str(fault))
        lane.broke(fault)

    try:
        for index in range(count):
            begin(index, index)
        active = list(range(count))
        while active:
            legal = np.stack([lanes[index].environment.legal_actions() for index in active])
            actions = policy(stacker.stacked[active], legal)
            still: list[int] = []
            for index, action in zip(active, actions.tolist(), strict=True):
                lane = lanes[index]
                try:
                    frames = lane.act(action)
                except EnvironmentFault as fault:
                    broke(lane, fault)
                    begin(index, lane.episode)
                    still.append(index)
                    continue
                for frame in frames:
                    stacker.push(index, frame)
                if lane.over:
                    returns[lane.episode], lengths[lane.episode] = lane.score, lane.length
                    lane.finished()
                    episode = next(waiting, None)
                    if episode is None:
                        continue
                    begin(index, episode)
                still.append(index)
            active = still
    finally:
        for lane in lanes:
            lane.environment.close()
    video = encode_mp4(np.stack(lanes[0].frames), fps=VIDEO_FPS) if lanes[0].frames else None
    return Evaluation(returns, lengths, protocol, seed, video, tuple(faults))


class Evaluator:
    """A network, its noise-free search and the environments to measure them in.

    note: told of every call into an environment.
    """

    def __init__(self, config: Config, shape: TaskShape, *, note: CallNote | None = None) -> None:
        self._engine = build_engine(config, shape)
        self._frame_stack = config.env.frame_stack
        self._make_environment = environment_factory(config, note)
        self._instances = evaluation_instances(config)
        self.protocol = evaluation_protocol(config, num_players=shape.spec.num_players)
        self._search = build_search(
            config, shape, simulations=self.protocol.simulations, c_scale=config.evaluation.c_scale
        )

    def load(self, flat: FloatArray) -> None:
        """Use these weights from now on."""
        self._engine.load(flat)

    def evaluate(self, *, episodes: int, seed: int, record: bool = False) -> Evaluation:
        """Score of the loaded weights."""
        return self._play(search_policy(self._engine, self._search), episodes, seed, record)

    def evaluate_random(self, *, episodes: int, seed: int) -> Evaluation:
        """Score of uniformly random play under the same protocol."""
        return self._play(random_policy(seed), episodes, seed, record=False)

    def policy(self) -> Policy:
        """The loaded network as a policy, noise-free."""
        return search_policy(self._engine, self._search)

    def _play(self, policy: Policy, episodes: int, seed: int, record: bool) -> Evaluation:
        return play_episodes(
            self._make_environment,
            policy,
            episodes=episodes,
            seed=seed,
            frame_stack=self._frame_stack,
            protocol=self.protocol,
            opponent=make_opponent(self.protocol.opponent, seed) if self.protocol.opponent else None,
            record=record,
            instances=self._instances,
        )
