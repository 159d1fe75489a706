"""Self-play: K environments side by side, one batched search per move, finished segments out.

A plain class; `actors/self_play.py` puts it behind Ray, `control/serial.py` drives it in process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from muzero_ray.acting.frame_stacker import FrameStacker
from muzero_ray.acting.generator_state import restore_rng, rng_state
from muzero_ray.acting.recorder import GameRecorder
from muzero_ray.acting.rollout_accumulator import RolloutAccumulator
from muzero_ray.acting.rollout_stats import Episode, PlayInterrupted, RolloutStats
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.restarting import RestartingEnvironment
from muzero_ray.errors import EnvironmentFault, as_checkpoint_error
from muzero_ray.replay.encoding import decode_game, encode_game
from muzero_ray.search.planner import Planner
from muzero_ray.types import (
    Array,
    EnvStep,
    FloatArray,
    GameHistory,
    GameId,
    Weights,
    WeightsVersion,
)


class PreparedWeights(NamedTuple):
    """Weights as the engine will serve them."""

    version: WeightsVersion
    prepared: Any


class SelfPlay:
    """Plays `environments` with `planner`; every finished or cut segment goes to `play`'s `emit`.

    make_environment: makes an environment in place of one that broke; None: the first fault is raised.
    actor, incarnation: identity, stamped on every segment's id. seed: of action sampling, search noise and resets.
    temperature_moves: from this move of a game on actions are greedy (PUCT on boards), or None.
    """

    def __init__(
        self,
        environments: Sequence[Environment],
        planner: Planner,
        *,
        actor: int,
        incarnation: int,
        seed: int,
        frame_stack: int,
        segment_length: int,
        overlap: int,
        simulations: int,
        temperature_moves: int | None,
        make_environment: Callable[[], Environment] | None = None,
    ) -> None:
        self._environments = [RestartingEnvironment(environment, make_environment) for environment in environments]
        self._planner = planner
        self._actor, self._incarnation = actor, incarnation
        self._rng = np.random.default_rng([seed, actor, incarnation])
        self._simulations = simulations
        self._temperature_moves = temperature_moves
        self._seq = 0
        self._version: WeightsVersion | None = None
        spec = environments[0].spec
        num_envs = len(environments)
        self._stacker = FrameStacker(num_envs, spec.observation_shape, spec.observation_dtype, frame_stack)
        self._legal = np.ones((num_envs, spec.num_actions), np.bool_)
        self._moves = np.zeros(num_envs, np.int64)
        self._scores = np.zeros(num_envs)
        self._recorders = [
            GameRecorder(segment_length=segment_length, overlap=overlap, frame_stack=frame_stack)
            for _ in range(num_envs)
        ]
        self._frame_stack = frame_stack
        self._started = False
        self._resting: list[dict[str, Any]] = []
        self._faults: list[str] = []
        """Not yet reported."""
        self._interrupted: RolloutAccumulator | None = None
        """What a call that was interrupted had done; the next one goes on with it."""
        self.first_move_at: float | None = None
        """Monotonic time at which this process had made its first move; None before."""
        self.begun_anew: list[str] = []
        """Why games in flight could not be brought back; whoever tells of it empties the list."""

    @property
    def where(self) -> str:
        """What the first environment plays, for messages."""
        environment = self._environments[0].current
        return str(getattr(environment, "where", environment.spec.name))

    @property
    def version(self) -> WeightsVersion | None:
        """The version of the weights in use; None before the first `set_weights`."""
        return self._version

    def set_weights(self, weights: Weights) -> None:
        self._adopt(self.prepare(weights))

    def prepare(self, weights: Weights) -> PreparedWeights:
        """The costly part of `set_weights`, for `play`'s `newer`; may run in another thread meanwhile."""
        return PreparedWeights(weights.version, self._planner.engine.prepare(weights.flat))

    def _adopt(self, weights: PreparedWeights) -> None:
        self._planner.engine.adopt(weights.prepared)
        self._version = weights.version

    def play(
        self,
        transitions: int,
        *,
        temperature: float,
        emit: Callable[[GameHistory], None],
        seconds: float | None = None,
        newer: Callable[[], PreparedWeights | None] | None = None,
        go_on: Callable[[], bool] | None = None,
    ) -> RolloutStats:
        """Make moves in all environments until `transitions` are played (rounded up to a whole round of moves).

        seconds: leave after the round in which this much time has passed. newer: asked before each round for weights to
        go on with; it must not wait, but for the first ones. go_on: asked before each round whether to play it. If not,
        PlayInterrupted: the next call, also one after `load_state`, then goes on with what this one has played.
        """
        if self._version is None and newer is None:
            raise RuntimeError("set_weights must come before play")
        if not self._started:
            for env in range(len(self._environments)):
                self._start_game(env)
            self._started = True
        totals, self._interrupted = self._interrupted or RolloutAccumulator(), None
        begin = time.monotonic()

        def hand_out(game: GameHistory) -> None:
            totals.inserted += game.owned
            emit(game)

        while totals.transitions < transitions and (seconds is None or time.monotonic() - begin < seconds):
            if go_on is not None and not go_on():
                self._interrupted = totals
                raise PlayInterrupted
            if newer is not None and (weights := newer()) is not None:
                self._adopt(weights)
            self._round(temperature, hand_out, totals)
            totals.rounds += 1
            if self.first_move_at is None:
                self.first_move_at = time.monotonic()
        assert self._version is not None
        faults, self._faults = tuple(self._faults), []
        now = time.monotonic()
        return totals.stats(
            seconds=now - begin,
            simulations=totals.rounds * self._simulations * len(self._environments),
            version=self._version,
            faults=faults,
            playing_for=now - self.first_move_at if self.first_move_at is not None else 0.0,
        )

    def _round(self, temperature: float, emit: Callable[[GameHistory], None], totals: RolloutAccumulator) -> None:
        """One move in every environment."""
        search_begin = time.monotonic()
        temperatures = np.full(len(self._environments), temperature, np.float32)
        if self._temperature_moves is not None:
            temperatures[self._moves >= self._temperature_moves] = 0.0
        root, result = self._planner.plan(
            self._stacker.stacked, self._legal, self._rng, explore=True, temperature=temperatures
        )
        totals.searched(time.monotonic() - search_begin, root, result, self._legal)
        moves = zip(result.action.tolist(), result.policy_target, result.root_value.tolist(), strict=True)
        self._moves += 1
        steps = {env: step for env, move in enumerate(moves) if (step := self._move(env, *move)) is not None}
        totals.transitions += len(steps)
        games: list[GameHistory] = []
        for env, step in steps.items():
            if not (step.terminated or step.truncated) and self._recorders[env].segment_ready():
                self._environments[env].forget_faults()
                games.append(self._recorders[env].cut(self._next_id()))
        try:
            self._end_games(steps, games.append, totals)
        finally:  # last, since it may fail: by then no game is left that is over
            for game in games:
                emit(game)

    def _move(self, env: int, action: int, policy: FloatArray, root_value: float) -> EnvStep | None:
        """Play one environment's chosen action and record it; None if it broke, and another has begun a game."""
        assert self._version is not None
        environment = self._environments[env].current
        player = environment.to_play()
        try:
            step = environment.step(action)
        except EnvironmentFault as fault:
            self._replace(env, fault)
            self._start_game(env)
            return None
        legal = environment.legal_actions()
        self._recorders[env].record(
            action=action,
            reward=step.reward,
            policy=policy,
            root_value=root_value,
            version=self._version,
            frame=step.observation,
            to_play=environment.to_play(),
            legal=legal,
        )
        self._stacker.push(env, step.observation)
        self._scores[env] += step.reward if player == 0 else -step.reward
        self._legal[env] = legal
        return step

    def _replace(self, env: int, fault: EnvironmentFault) -> None:
        """Its game is lost. Raises the fault if there were too many in a row."""
        self._faults.append(str(fault))
        self._environments[env].replace(fault)

    def _end_games(
        self, steps: Mapping[int, EnvStep], emit: Callable[[GameHistory], None], totals: RolloutAccumulator
    ) -> None:
        """Hand out games that ended this round and start the next ones."""
        ended = [env for env, step in steps.items() if step.terminated or step.truncated]
        # A truncated game still has value: its last state is bootstrapped by the network's own estimate.
        bootstrap = any(not steps[env].terminated for env in ended)
        last_values = self._planner.values(self._stacker.stacked) if bootstrap else np.zeros(len(self._environments))
        for env in ended:
            terminated = steps[env].terminated
            self._environments[env].forget_faults()
            emit(
                self._recorders[env].finish(
                    self._next_id(),
                    last_value=0.0 if terminated else float(last_values[env]),
                    terminated=terminated,
                    truncated=not terminated,
                )
            )
            self._start_game(env, totals)

    def _start_game(self, env: int, totals: RolloutAccumulator | None = None) -> None:
        """Reset; an episode that is over is added to `totals`. After a lost life the same game goes on."""
        environment = self._environments[env]
        goes_on = environment.current.goes_on
        totals = None if goes_on else totals
        while True:
            try:
                frame = environment.current.reset(int(self._rng.integers(2**31)))
                break
            except EnvironmentFault as fault:
                self._replace(env, fault)
                goes_on = False
        self._legal[env] = environment.current.legal_actions()
        self._recorders[env].start(frame, environment.current.to_play(), self._legal[env].copy())
        self._stacker.start(env, frame)
        if goes_on:
            return
        if totals is not None:
            totals.episodes.append(Episode(float(self._scores[env]), int(self._moves[env])))
        self._moves[env] = 0
        self._scores[env] = 0.0

    def _next_id(self) -> GameId:
        self._seq += 1
        return GameId(self._actor, self._incarnation, self._seq)

    def state(self) -> tuple[list[bytes], dict[str, Any]]:
        """Games in flight and random state, for an exact resume: encoded partial games, and a JSON-able dict."""
        games = [encode_game(recorder.partial()) if len(recorder) else b"" for recorder in self._recorders]
        return games, {
            "rng": rng_state(self._rng),
            "incarnation": self._incarnation,
            "seq": self._seq,
            "started": self._started,
            "versions": [recorder.versions if len(recorder) else [] for recorder in self._recorders],
            "environments": [environment.current.save() for environment in self._environments] if self._started else [],
            "moves": self._moves.tolist(),
            "scores": self._scores.tolist(),
            "faults": self._faults,
            "interrupted": self._interrupted.state() if self._interrupted is not None else None,
        }

    @as_checkpoint_error("the state of self-play")
    def load_state(self, games: Sequence[bytes], state: dict[str, Any]) -> None:
        """Inverse of `state`; environments are brought back by replaying their seed and actions.

        A game that replaying does not bring back, as it took another course, begins anew: see `begun_anew`.
        """
        self._rng = restore_rng(state["rng"])
        self._incarnation = int(state["incarnation"])
        self._seq = int(state["seq"])
        self._started = bool(state["started"])
        self._moves[:] = state["moves"]
        self._scores[:] = state["scores"]
        self._faults = list(state.get("faults", []))
        if state.get("interrupted") is not None:
            self._interrupted = RolloutAccumulator.restored(state["interrupted"])
        for env, saved in enumerate(state["environments"]):
            environment, recorder = self._environments[env].current, self._recorders[env]
            if (frame := self._brought_back(env, saved)) is None:
                continue
            self._legal[env] = environment.legal_actions()
            if games[env]:
                game = decode_game(games[env])
                recorder.resume(game, [WeightsVersion(*version) for version in state["versions"][env]])
                self._stacker.restore(env, game.observations[-self._frame_stack :])
            else:
                recorder.start(frame, environment.to_play(), self._legal[env].copy())
                self._stacker.start(env, frame)

    def rest(self) -> None:
        """Close the environments until `wake`: of some, only so many can exist at a time."""
        self._resting = [environment.current.save() for environment in self._environments] if self._started else []
        self.close()

    def wake(self) -> None:
        """Make them again, and bring their games back; those that cannot be brought back begin anew: `begun_anew`."""
        for env, environment in enumerate(self._environments):
            environment.reopen()
            if self._resting:
                self._brought_back(env, self._resting[env])

    def _brought_back(self, env: int, saved: dict[str, Any]) -> Array | None:
        """The present frame of the game in `saved`, replayed; None if that failed, and another game has begun."""
        try:
            return self._environments[env].current.restore(saved)
        except EnvironmentFault as fault:
            self.begun_anew.append(str(fault))
            self._environments[env].replace(fault)
            self._start_game(env)
            return None

    def close(self) -> None:
        for environment in self._environments:
            environment.current.close()
