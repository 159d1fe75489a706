"""Noise-free games under one stated protocol: the score of a network, and of the random policy beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from muzero_ray.acting.build import TaskShape, build_engine, build_search, environment_factory, evaluation_instances
from muzero_ray.config.schema import Config
from muzero_ray.envs.call_note import CallNote
from muzero_ray.envs.environment import Environment
from muzero_ray.evaluation.episodes import Episodes, EpisodesProgress, Policy
from muzero_ray.evaluation.opponents import Opponent, make_opponent
from muzero_ray.evaluation.protocol import EvaluationProtocol, evaluation_protocol
from muzero_ray.evaluation.video import encode_mp4
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.search.policies import SearchFunction
from muzero_ray.types import Array, BoolArray, FloatArray, IntArray

VIDEO_FPS = 30
"""Of videos, in agent steps per second."""


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
    cut: int = 0
    """Episodes that reached the protocol's limit of moves, and count with their return so far."""

    @property
    def mean(self) -> float:
        return float(self.returns.mean())

    def summary(self) -> str:
        """The line `evaluate` ends with."""
        return (
            f"return_mean={self.mean:.3f} return_std={float(self.returns.std()):.3f} "
            f"episodes={len(self.returns)} env_steps={int(self.lengths.sum())}"
            + (f" environment_faults={len(self.faults)}" if self.faults else "")
            + (f" episodes_cut={self.cut}" if self.cut else "")
        )

    def cut_note(self) -> str | None:
        """What to know, and to do, about episodes that were cut; None if none was."""
        if not self.cut:
            return None
        return (
            f"{self.cut} of {len(self.returns)} episodes of an evaluation were cut after "
            f"{self.protocol.move_limit:,} moves and count with their return so far, because "
            f"{self.protocol.environment['id']} names no limit of its own. Set env.max_moves to choose a limit"
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
    """Play `episodes` games to their end; the arguments are those of `Episodes`."""
    with Episodes(
        make_environment,
        policy,
        episodes=episodes,
        seed=seed,
        frame_stack=frame_stack,
        opponent=opponent,
        record=record,
        move_limit=protocol.move_limit,
        instances=instances,
    ) as games:
        games.play(lambda: True)
        return result_of(games, protocol)


def result_of(games: Episodes, protocol: EvaluationProtocol) -> Evaluation:
    """The score of episodes that are all over."""
    video = encode_mp4(np.stack(games.frames), fps=VIDEO_FPS) if games.frames else None
    return Evaluation(games.returns, games.lengths, protocol, games.seed, video, tuple(games.faults), games.cut)


class Evaluator:
    """A network, its noise-free search and the environments to measure them in.

    note: told of every call into an environment.
    """

    def __init__(self, config: Config, shape: TaskShape, *, note: CallNote | None = None) -> None:
        self._engine = build_engine(config, shape)
        self._frame_stack = config.env.frame_stack
        self._make_environment = environment_factory(config, note)
        self._instances = evaluation_instances(config)
        self.protocol = evaluation_protocol(config, shape.spec)
        self._search = build_search(
            config, shape, simulations=self.protocol.simulations, c_scale=config.evaluation.c_scale
        )

    def load(self, flat: FloatArray) -> None:
        """Use these weights from now on."""
        self._engine.load(flat)

    def begin(self, *, episodes: int, seed: int, record: bool = False) -> Episodes:
        """Begin to measure the loaded weights: play these episodes to their end, then take their `result`."""
        return self._begin(self.policy(), episodes, seed, record)

    def begin_random(self, *, episodes: int, seed: int) -> Episodes:
        """The same for uniformly random play."""
        return self._begin(random_policy(seed), episodes, seed, record=False)

    def result(self, games: Episodes) -> Evaluation:
        """The score of episodes that are all over."""
        return result_of(games, self.protocol)

    def evaluate(
        self, *, episodes: int, seed: int, record: bool = False, watch: Callable[[EpisodesProgress], None] | None = None
    ) -> Evaluation:
        """Score of the loaded weights. watch: told how far it is, before each round of moves."""
        with self.begin(episodes=episodes, seed=seed, record=record) as games:

            def go_on() -> bool:
                if watch is not None:
                    watch(games.progress)
                return True

            games.play(go_on)
            return self.result(games)

    def evaluate_random(self, *, episodes: int, seed: int) -> Evaluation:
        """Score of uniformly random play under the same protocol."""
        with self.begin_random(episodes=episodes, seed=seed) as games:
            games.play(lambda: True)
            return self.result(games)

    def policy(self) -> Policy:
        """The loaded network as a policy, noise-free."""
        return search_policy(self._engine, self._search)

    def _begin(self, policy: Policy, episodes: int, seed: int, record: bool) -> Episodes:
        return Episodes(
            self._make_environment,
            policy,
            episodes=episodes,
            seed=seed,
            frame_stack=self._frame_stack,
            opponent=make_opponent(self.protocol.opponent, seed) if self.protocol.opponent else None,
            record=record,
            move_limit=self.protocol.move_limit,
            instances=self._instances,
        )
