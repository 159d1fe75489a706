"""The games of an evaluation while they are played: round by round, so that whoever asked for them stays in charge."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from muzero_ray.acting.frame_stacker import FrameStacker
from muzero_ray.envs.chance import OwnChance
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.restarting import RestartingEnvironment
from muzero_ray.errors import EnvironmentFault
from muzero_ray.evaluation.opponents import Opponent
from muzero_ray.types import Array, BoolArray, IntArray

MAX_ENVIRONMENTS = 32
"""Episodes played side by side."""

MAX_FRAMES = 1_800
"""Rendered frames kept for a video."""

Policy = Callable[[Array, BoolArray], IntArray]
"""Stacked observations `[B, ...]` and legal actions `[B, A]` to actions `[B]`."""

AGAIN = 1_000_003
"""Added to the seed of an episode each time that its environment broke: it may break for each game of that seed."""


class _EpisodeRunner:
    """One environment playing its share of the episodes; in two-player games the policy has seat `episode % 2`."""

    def __init__(self, make: Callable[[bool], Environment], opponent: Opponent | None, record: bool) -> None:
        self._environment = RestartingEnvironment(make(record), lambda: make(record))
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
        frames = [self.environment.reset((seed + episode + AGAIN * self._environment.faults_in_a_row) % 2**32)]
        self._capture()
        return frames + self._reply()

    @property
    def environment(self) -> Environment:
        return self._environment.current

    def replace(self, fault: EnvironmentFault) -> None:
        """Another environment for it, which has to `start`. Raises the fault if there were too many in a row."""
        self._environment.replace(fault)

    def finished(self) -> None:
        """Its episode is over."""
        self.record = False
        self._environment.forget_faults()

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


class EpisodesProgress(NamedTuple):
    """How far the episodes are. moves: of the evaluated policy, unfinished episodes included."""

    finished: int
    episodes: int
    moves: int

    def __str__(self) -> str:
        return f"{self.finished} of {self.episodes} episodes, {self.moves:,} moves"


class Episodes:
    """Episodes in play, up to `instances` (None: `MAX_ENVIRONMENTS`) side by side; a context manager that closes their
    environments.

    Episode `i` is reset with `seed + i`. If its environment breaks, it is played again in a new one, with another seed.
    make_environment: called with True for the one environment that is rendered. opponent: needed by, and only by,
    two-player games. record: keep the rendering of the first episode. move_limit: cut an episode after this many moves
    of the policy; it then counts with its return so far (None: never).
    """

    def __init__(
        self,
        make_environment: Callable[[bool], Environment],
        policy: Policy,
        *,
        episodes: int,
        seed: int,
        frame_stack: int,
        opponent: Opponent | None = None,
        record: bool = False,
        move_limit: int | None = None,
        instances: int | None = None,
    ) -> None:
        count = min(episodes, MAX_ENVIRONMENTS, instances or MAX_ENVIRONMENTS)
        self.seed = seed
        self.faults: list[str] = []
        self.cut = 0
        """Episodes that reached the limit of moves."""
        self.returns, self.lengths = np.zeros(episodes, np.float32), np.zeros(episodes, np.int32)
        self._policy, self._move_limit = policy, move_limit
        self._finished = self._moves = 0
        self._waiting = iter(range(count, episodes))
        self._chance = OwnChance("evaluation", seed)
        with self._chance:
            self._runners = [_EpisodeRunner(make_environment, opponent, record and i == 0) for i in range(count)]
            try:
                spec = self._runners[0].environment.spec
                if (spec.num_players == 2) != (opponent is not None):
                    raise ValueError(
                        f"{spec.name} has {spec.num_players} player(s): an opponent is needed exactly for two"
                    )
                self._stacker = FrameStacker(count, spec.observation_shape, spec.observation_dtype, frame_stack)
                for env in range(count):
                    self._begin(env, env)
            except BaseException:
                self.close()
                raise
        self._active = list(range(count))

    def __enter__(self) -> Episodes:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all environments."""
        for runner in self._runners:
            runner.environment.close()

    @property
    def progress(self) -> EpisodesProgress:
        return EpisodesProgress(self._finished, len(self.returns), self._moves)

    @property
    def frames(self) -> list[Array]:
        """Pictures of the episode that was recorded, uint8 `[H, W, 3]` each; empty if none was."""
        return self._runners[0].frames

    def play(self, go_on: Callable[[], bool]) -> bool:
        """Play on while `go_on`, which is asked before each round of moves, says so. Returns whether all are over."""
        with self._chance:
            while self._active and go_on():
                self._round()
        return not self._active

    def _round(self) -> None:
        """One move of the policy in every episode in play, and the replies to it."""
        active, runners = self._active, self._runners
        legal = np.stack([runners[env].environment.legal_actions() for env in active])
        actions = self._policy(self._stacker.stacked[active], legal).tolist()
        self._moves += len(active)
        self._active = [env for env, action in zip(active, actions, strict=True) if self._move(env, action)]

    def _move(self, env: int, action: int) -> bool:
        """Play `action` in one environment; returns whether an episode goes on, or begins, there."""
        runner = self._runners[env]
        try:
            frames = runner.act(action)
        except EnvironmentFault as fault:
            self._replace(runner, fault)
            self._begin(env, runner.episode)
            return True
        for frame in frames:
            self._stacker.push(env, frame)
        cut = not runner.over and runner.length == self._move_limit
        if not (runner.over or cut):
            return True
        self.cut += cut
        self._finished += 1
        self.returns[runner.episode], self.lengths[runner.episode] = runner.score, runner.length
        runner.finished()
        episode = next(self._waiting, None)
        if episode is None:
            return False
        self._begin(env, episode)
        return True

    def _begin(self, env: int, episode: int) -> None:
        while True:
            try:
                first, *rest = self._runners[env].start(episode, self.seed)
                break
            except EnvironmentFault as fault:
                self._replace(self._runners[env], fault)
        self._stacker.start(env, first)
        for frame in rest:
            self._stacker.push(env, frame)

    def _replace(self, runner: _EpisodeRunner, fault: EnvironmentFault) -> None:
        self.faults.append(str(fault))
        runner.replace(fault)
