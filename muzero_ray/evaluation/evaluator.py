"""Noise-free games under one stated protocol: the score of a network, and of the random policy beside it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from muzero_ray.acting.build import build_planner
from muzero_ray.config.schema import Config
from muzero_ray.envs.crash_note import CrashNote
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.evaluation.environments import environment_factory, evaluation_instances
from muzero_ray.evaluation.episodes import Episodes, EpisodesProgress, Policy
from muzero_ray.evaluation.opponents import Opponent, make_opponent
from muzero_ray.evaluation.policies import random_policy, search_policy
from muzero_ray.evaluation.protocol import EvaluationProtocol, evaluation_protocol, evaluation_search
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.evaluation.video import encode_mp4
from muzero_ray.search.planner import Planner
from muzero_ray.types import FloatArray

VIDEO_FPS = 30
"""The speed of videos, in agent steps per second."""


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

    planner: of both (None: made as `config` says, to be given weights by `load`). chosen_by_score: whether its weights
    are those of the checkpoint with the best score. note: told of every call into an environment.
    """

    def __init__(
        self,
        config: Config,
        task: TaskSpec,
        *,
        planner: Planner | None = None,
        chosen_by_score: bool = False,
        note: CrashNote | None = None,
    ) -> None:
        self._planner = planner or build_planner(config, task, evaluation_search(config))
        self._frame_stack = config.env.frame_stack
        self._make_environment = environment_factory(config, note)
        self._instances = evaluation_instances(config)
        self.protocol = evaluation_protocol(
            config, task.spec, precision=self._planner.engine.precision, chosen_by_score=chosen_by_score
        )

    def load(self, flat: FloatArray) -> None:
        """Use these weights from now on."""
        self._planner.engine.load(flat)

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
        return search_policy(self._planner)

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
