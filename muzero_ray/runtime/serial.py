"""The one-process runner: the same plain objects as the distributed program, no Ray. Debug here.

One seed gives the same bytes on the same machine: metrics (clock columns aside), weights and replay; a run that was
stopped and resumed equals one that was not.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import torch

from muzero_ray.config import Config
from muzero_ray.errors import NumericsError, taking_over
from muzero_ray.runtime.build import TaskShape, build_buffer, build_learner, build_self_play
from muzero_ray.runtime.checkpoint import Checkpoint
from muzero_ray.runtime.evaluation import Evaluator
from muzero_ray.runtime.reanalyzer import Reanalyzer
from muzero_ray.runtime.replay_archive import ReplayArchive, split_shards
from muzero_ray.runtime.run_book import RunBook, TrainTally, replay_metrics
from muzero_ray.runtime.run_output import RunOutput, learner_state
from muzero_ray.types import GameHistory, Weights, WeightsVersion

IN_FLIGHT_FILE = "in_flight.json"
"""Games in flight and random states: only the serial runner saves them."""


class SerialRunner:
    """Plays, trains, reanalyzes, evaluates and checkpoints by turns."""

    def __init__(self, config: Config, shape: TaskShape, output: RunOutput, checkpoint: Checkpoint | None) -> None:
        torch.set_num_threads(config.actors.learner_threads)
        self._config = config
        self._output = output
        self._book = RunBook(config)
        self._buffer = build_buffer(config, shape)
        self._archive = ReplayArchive(output.replay_folder)
        self._learner = build_learner(config, shape)
        self._reanalyzer = Reanalyzer(config, shape) if config.reanalyze.share > 0 else None
        self._evaluator = Evaluator(config, shape)
        self._stop_requested = False
        self._rolled_back = False
        """Since the last checkpoint."""
        if checkpoint is not None:
            self._book.load_state(checkpoint.state["book"])
            self._learner.load_state(*learner_state(checkpoint))
            self._archive.load(self._buffer, *split_shards(checkpoint.files, 1))
        # Games in flight go on. A distributed run saves none: it loses those, no more.
        games, self_play = _in_flight(checkpoint) if checkpoint is not None else ([], {})
        self._self_play = build_self_play(
            config, shape, actor=0, incarnation=self._book.incarnation(), lanes=len(games) or None
        )
        if games:
            self._self_play.load_state(games, self_play)
        self._publish()

    def request_stop(self) -> None:
        """Leave after the present turn; safe to call from a signal handler."""
        self._stop_requested = True

    def run(self) -> bool:
        """Train to the end. Returns False if a stop was requested first. A checkpoint is written either way.

        Numbers that are not finite: the learner goes on from the last checkpoint. NumericsError if there is none, or if
        that did not help.
        """
        while self._book.stop_reason() is None and not self._stop_requested:
            try:
                self._turn()
            except NumericsError as error:
                self._roll_back(error)
        if not self._stop_requested:
            self._write_row()
        self.checkpoint()
        return not self._stop_requested

    def _turn(self) -> None:
        self._play()
        self._train()
        self._reanalyze()
        self._output.show(self._book)
        if self._book.due("evaluate"):
            self._evaluate()
        if self._book.due("log"):
            self._write_row()
        if self._book.due("checkpoint"):
            self._book.done("checkpoint")
            self.checkpoint()

    def _roll_back(self, error: NumericsError) -> None:
        """Set the learner back to the last checkpoint, once until there is another."""
        checkpoint = self._output.last_checkpoint()
        if checkpoint is None or self._rolled_back:
            raise error
        self._rolled_back = True
        self._output.message(f"{error}. The learner goes on from the checkpoint of step {checkpoint.step}")
        self._learner.load_state(*learner_state(checkpoint))
        self._book.learner_at(checkpoint.step)
        self._publish()

    def _play(self) -> None:
        if transitions := self._book.rollout_budget():
            stats = self._self_play.play(transitions, temperature=self._book.temperature, emit=self._keep)
            self._book.played(stats)
            self._output.faults(stats.faults)

    def _keep(self, game: GameHistory) -> None:
        self._archive.add(self._buffer, game)

    def _train(self) -> None:
        steps = self._book.train_budget()
        if not steps:
            return
        tally = TrainTally()
        for _ in range(steps):
            batch = self._buffer.sample(self._config.learner.batch_size, self._book.beta)
            result = self._learner.train_step(batch)
            self._buffer.update_priorities(batch.keys, result.priorities)
            tally.add(result)
        self._book.trained(tally.stats(self._learner.step, self._quality()))
        self._publish()

    def _quality(self) -> dict[str, float]:
        """Of the model on games held out, when a row of metrics is due."""
        if self._learner.step % self._config.run.log_steps:
            return {}
        batch = self._buffer.draw_held_out(self._config.learner.batch_size)
        return self._learner.assess(batch) if batch is not None else {}

    def _publish(self) -> None:
        """Where weights reach those who act on them; the one-process stand-in for the parameter server."""
        version = WeightsVersion(0, self._learner.step)
        self._self_play.set_weights(Weights(version, self._learner.weights()))

    def _reanalyze(self) -> None:
        if self._reanalyzer is None or not self._learner.step:
            return
        while self._book.reanalyze_budget() > 0:
            version = WeightsVersion(0, self._learner.step)
            self._reanalyzer.set_weights(Weights(version, self._learner.target_weights()))
            done = 0
            for fresh in self._reanalyzer.refresh(self._buffer.stale_games(1)):
                self._buffer.replace_targets(*fresh)
                done += len(fresh.root_values)
            if not done:
                return  # everything is as fresh as these weights
            self._book.reanalyzed += done

    def _evaluate(self) -> None:
        self._book.done("evaluate")
        self._evaluator.load(self._learner.weights())
        with self._turn_of_evaluation():
            evaluation = self._evaluator.evaluate(episodes=self._config.evaluation.episodes, seed=self._config.run.seed)
        self._output.scored(self._book, evaluation, self._learner.step)

    @contextlib.contextmanager
    def _turn_of_evaluation(self) -> Iterator[None]:
        """If only so many environments can exist at a time, self-play does without meanwhile."""
        if self._config.env.instances is None:
            yield
            return
        self._self_play.rest()
        yield
        self._self_play.wake()

    def _write_row(self) -> None:
        self._book.done("log")
        self._book.metrics.update(replay_metrics(self._buffer, self._learner.step))
        self._book.metrics.update({"actors/alive": 1, "actors/restarts": 0})
        self._output.write_row(self._book)

    def final_evaluation(self) -> None:
        """Score of the final weights beside random play under the same protocol, with a video."""
        evaluation = self._config.evaluation
        episodes, seed = evaluation.final_episodes, self._config.run.seed
        self._evaluator.load(self._learner.weights())
        with self._turn_of_evaluation():
            trained = self._evaluator.evaluate(episodes=episodes, seed=seed, record=evaluation.video)
            baseline = self._evaluator.evaluate_random(episodes=episodes, seed=seed)
        self._output.finished(self._book, trained, baseline, self._learner.step)

    def checkpoint(self) -> None:
        """Write everything, games in flight included."""
        self._output.confirm_lock()  # replay writes a snapshot of its own
        games, self_play = self._self_play.state()
        in_flight = {
            "self_play": self_play,
            "games": [base64.b64encode(game).decode() for game in games],
        }
        self._output.checkpoint(
            self._book,
            self._learner.state(),
            self._archive.save(self._buffer),
            {IN_FLIGHT_FILE: json.dumps(in_flight).encode()},
        )
        self._rolled_back = False


@taking_over(IN_FLIGHT_FILE)
def _in_flight(checkpoint: Checkpoint) -> tuple[list[bytes], dict[str, Any]]:
    """Encoded games, and the state of self-play, that the serial runner saved; nothing if another did."""
    if IN_FLIGHT_FILE not in checkpoint.files:
        return [], {}
    in_flight = json.loads(checkpoint.files[IN_FLIGHT_FILE])
    return [base64.b64decode(game) for game in in_flight["games"]], in_flight["self_play"]
