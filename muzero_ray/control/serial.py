"""The one-process runner: the same plain objects as the distributed program, no Ray. Debug here.

One seed gives the same bytes on the same machine: metrics (clock columns aside), weights and replay; a run that was
stopped and resumed equals one that was not.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from muzero_ray.acting.build import build_self_play
from muzero_ray.acting.reanalyzer import Reanalyzer
from muzero_ray.acting.rollout_stats import PlayInterrupted
from muzero_ray.config.schema import Config
from muzero_ray.control.limits import finish, left_unfinished
from muzero_ray.control.run_state import RunState
from muzero_ray.control.train_tally import TrainTally
from muzero_ray.envs.chance import seed_generators
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import NumericsError, as_checkpoint_error
from muzero_ray.evaluation.episodes import Episodes
from muzero_ray.evaluation.evaluator import Evaluator
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.replay.build import build_buffer
from muzero_ray.replay.metrics import replay_metrics
from muzero_ray.runs.checkpoint import Checkpoint
from muzero_ray.runs.output import RunOutput, learner_state
from muzero_ray.runs.replay_archive import ReplayArchive, split_shards
from muzero_ray.training.build import build_learner
from muzero_ray.types import GameHistory, Weights, WeightsVersion

IN_FLIGHT_FILE = "in_flight.json"
"""Games in flight and random states: only the serial runner saves them."""


class SerialRunner:
    """Plays, trains, reanalyzes, evaluates and checkpoints by turns."""

    def __init__(self, config: Config, task: TaskSpec, output: RunOutput, checkpoint: Checkpoint | None) -> None:
        torch.set_num_threads(config.learner.threads)
        self._config = config
        self._output = output
        self._run_state = RunState(config)
        if checkpoint is not None:
            self._run_state.load_state(checkpoint.state["book"])
        seed_generators(config.run.seed, "serial", self._run_state.incarnation())
        self._buffer = build_buffer(config, task)
        self._archive = ReplayArchive(output.replay_folder)
        self._learner = build_learner(config, task)
        self._reanalyzer = Reanalyzer(config, task) if config.reanalyze.ratio > 0 else None
        self._evaluator = Evaluator(config, task)
        self._stop_requested = False
        self._rolled_back = False
        """Since the last checkpoint."""
        self._told_begun_anew = False
        self._games: list[GameHistory] = []
        """Handed out by the call of self-play that goes on; kept if a callback is to be told of them."""
        self._training: tuple[int, TrainTally] | None = None
        """Learner steps that were interrupted: at which one they began, and what came of them so far."""
        if checkpoint is not None:
            self._learner.load_state(*learner_state(checkpoint))
            self._archive.load(self._buffer, *split_shards(checkpoint.files, 1))
        # Games in flight go on. A distributed run saves none: it loses those, no more.
        in_flight = _in_flight(checkpoint) if checkpoint is not None else InFlight([], {}, 0, None)
        games, self_play, self._part, self._training = in_flight
        self._self_play = build_self_play(
            config, task, actor=0, incarnation=self._run_state.incarnation(), num_envs=len(games) or None
        )
        if games:
            self._self_play.load_state(games, self_play)
            self._tell_begun_anew()
        self._publish()

    def _tell_begun_anew(self) -> None:
        """Say it once: such an environment cannot be replayed the next time, either."""
        anew, self._self_play.begun_anew = self._self_play.begun_anew, []
        if anew and not self._told_begun_anew:
            self._told_begun_anew = True
            self._output.message(
                f"{len(anew)} games in flight begin anew, because replaying them failed. Their moves since the last "
                f"segment are lost, and the run takes another course than without the break. First of them: {anew[0]}"
            )

    def request_stop(self) -> None:
        """Leave soon: between two moves, learner steps or games searched again; safe to call from a signal handler."""
        self._stop_requested = True

    def run(self) -> bool:
        """Train to the end. Returns False if a stop was requested first. A checkpoint is written either way.

        Numbers that are not finite: the learner goes on from the last checkpoint. NumericsError if there is none, or if
        that did not help.
        """
        while self._may_go_on() and (self._part or self._run_state.stop_reason() is None):
            try:
                self._turn()
            except NumericsError as error:
                self._roll_back(error)
        if not self._stop_requested:
            self._write_row()
        self.checkpoint()
        return not self._stop_requested

    def _turn(self) -> None:
        """Play, train, reanalyze, evaluate. A part that was interrupted is where the next turn, also that of a resumed
        run, goes on.
        """
        parts = (self._play, self._train, self._reanalyze, self._evaluate)
        while self._part < len(parts):
            if not parts[self._part]():
                return
            self._part += 1
        self._part = 0
        if self._run_state.due("log"):
            self._write_row()
        if self._run_state.due("checkpoint"):
            self._run_state.done("checkpoint")
            self.checkpoint()

    def _may_go_on(self) -> bool:
        """Asked between two moves, whoever plays."""
        if (first := self._self_play.first_move_at) is not None:
            self._run_state.start_clock(first)
        return not (self._stop_requested or self._run_state.time_is_up)

    def _roll_back(self, error: NumericsError) -> None:
        """Set the learner back to the last checkpoint, once until there is another."""
        checkpoint = self._output.last_checkpoint()
        if checkpoint is None or self._rolled_back:
            raise error
        self._rolled_back, self._part, self._training = True, 0, None
        self._output.message(f"{error}. The learner goes on from the checkpoint of step {checkpoint.step}")
        self._learner.load_state(*learner_state(checkpoint))
        self._run_state.learner_at(checkpoint.step)
        self._publish()

    # The parts of a turn; each returns whether it came to its end.

    def _play(self) -> bool:
        if transitions := self._run_state.rollout_budget():
            try:
                stats = self._self_play.play(
                    transitions, temperature=self._run_state.temperature, emit=self._keep, go_on=self._may_go_on
                )
            except PlayInterrupted:
                return False
            self._run_state.played(stats)
            self._output.faults(stats.faults)
            games, self._games = self._games, []
            self._output.played(self._run_state, games, stats)
        return True

    def _keep(self, game: GameHistory) -> None:
        self._archive.add(self._buffer, game)
        if self._output.wants_games:
            self._games.append(game)

    def _train(self) -> bool:
        start, tally = self._training or (self._run_state.learner_steps, TrainTally())
        self._training, self._run_state.learner_steps = None, start
        steps = self._run_state.train_budget()
        if not steps:
            return True
        while tally.steps < steps:
            if not self._may_go_on():
                self._training = start, tally
                self._run_state.learner_steps = self._learner.step  # that of the weights in a checkpoint of now
                return False
            batch = self._buffer.sample(self._config.learner.batch_size, self._run_state.beta)
            result = self._learner.train_step(batch)
            self._buffer.update_priorities(batch.keys, result.priorities)
            tally.add(result)
        self._run_state.trained(tally.stats(self._learner.step, self._validate()))
        self._publish()
        return True

    def _validate(self) -> dict[str, float]:
        """Metrics of the model on games held out, when a row of metrics is due."""
        if self._learner.step % self._config.run.log_steps:
            return {}
        batch = self._buffer.draw_held_out(self._config.learner.batch_size)
        return self._learner.validate(batch) if batch is not None else {}

    def _publish(self) -> None:
        """Where weights reach those who act on them; the one-process stand-in for the parameter server."""
        version = WeightsVersion(0, self._learner.step)
        self._self_play.set_weights(Weights(version, self._learner.weights()))

    def _reanalyze(self) -> bool:
        if self._reanalyzer is None or not self._learner.step:
            return True
        while self._run_state.reanalyze_budget() > 0:
            if not self._may_go_on():
                return False
            version = WeightsVersion(0, self._learner.step)
            self._reanalyzer.set_weights(Weights(version, self._learner.target_weights()))
            done = 0
            for fresh in self._reanalyzer.refresh(self._buffer.stale_games(1)):
                self._buffer.replace_targets(*fresh)
                done += len(fresh.root_values)
            if not done:
                break  # everything is as fresh as these weights
            self._run_state.reanalyzed += done
        return True

    def _evaluate(self) -> bool:
        self._output.show(self._run_state)
        if not self._run_state.due("evaluate"):
            return True
        self._evaluator.load(self._learner.weights())
        with self._turn_of_evaluation():
            games = self._evaluator.begin(episodes=self._config.evaluation.episodes, seed=self._config.run.seed)
            evaluation = self._played_out(games, "evaluation", self._may_go_on)
        if evaluation is None:
            if not self._stop_requested:
                self._output.message(left_unfinished(self._run_state))
            return False
        self._run_state.done("evaluate")
        self._output.scored(self._run_state, evaluation, self._learner.step)
        return True

    def _played_out(self, games: Episodes, title: str, go_on: Callable[[], bool]) -> Evaluation | None:
        """Play `games` to their end and close them; None if they were interrupted. The screen says how far they are."""

        def show_and_ask() -> bool:
            self._output.evaluating(f"{title}: {games.progress}")
            self._output.show(self._run_state)
            return go_on()

        with games:
            over = games.play(show_and_ask)
            self._output.evaluating(None)
            return self._evaluator.result(games) if over else None

    @contextlib.contextmanager
    def _turn_of_evaluation(self) -> Iterator[None]:
        """If only so many environments can exist at a time, self-play does without meanwhile."""
        if self._config.env.instances is None:
            yield
            return
        self._self_play.rest()
        yield
        self._self_play.wake()
        self._tell_begun_anew()

    def _write_row(self) -> None:
        self._run_state.done("log")
        self._run_state.metrics.update(replay_metrics(self._buffer, self._learner.step))
        self._run_state.metrics.update({"actors/alive": 1, "actors/restarts": 0})
        self._output.write_row(self._run_state)

    def final_evaluation(self) -> None:
        """Score of the final weights beside random play under the same protocol, with a video."""
        self._run_state.stop_clock()
        evaluation = self._config.evaluation
        episodes, seed = evaluation.final_episodes, self._config.run.seed
        self._evaluator.load(self._learner.weights())
        with self._turn_of_evaluation():
            games = self._evaluator.begin(episodes=episodes, seed=seed, record=evaluation.video)
            trained = self._played_out(games, "final evaluation", lambda: True)
            games = self._evaluator.begin_random(episodes=episodes, seed=seed)
            baseline = self._played_out(games, "random play", lambda: True)
        assert trained is not None
        assert baseline is not None
        finish(self._output, self._config, self._run_state, trained, baseline, self._learner.step)

    def checkpoint(self) -> None:
        """Write everything, games in flight included."""
        self._output.confirm_lock()  # replay writes a snapshot of its own
        games, self_play = self._self_play.state()
        in_flight = {
            "part": self._part,
            "training": (self._training[0], self._training[1].state()) if self._training else None,
            "self_play": self_play,
            "games": [base64.b64encode(game).decode() for game in games],
        }
        self._output.checkpoint(
            self._run_state,
            self._learner.state(),
            self._archive.save(self._buffer),
            {IN_FLIGHT_FILE: json.dumps(in_flight).encode()},
        )
        self._rolled_back = False


class InFlight(NamedTuple):
    """What only the serial runner saves. games: encoded. part: of a turn, that is next. training: see SerialRunner."""

    games: list[bytes]
    self_play: dict[str, Any]
    part: int
    training: tuple[int, TrainTally] | None


@as_checkpoint_error(IN_FLIGHT_FILE)
def _in_flight(checkpoint: Checkpoint) -> InFlight:
    """What is in `checkpoint`; no games if another runner saved it."""
    if IN_FLIGHT_FILE not in checkpoint.files:
        return InFlight([], {}, 0, None)
    saved = json.loads(checkpoint.files[IN_FLIGHT_FILE])
    training = saved.get("training")
    return InFlight(
        [base64.b64decode(game) for game in saved["games"]],
        saved["self_play"],
        int(saved.get("part", 0)),
        (int(training[0]), TrainTally.restored(training[1])) if training is not None else None,
    )
