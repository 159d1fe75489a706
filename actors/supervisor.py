"""Control, all in one place: hands out short calls, waits on their answers, keeps the run's state.

The answer that comes back is the health check, the statistics and the way an exception travels. No call runs for
long, none is dropped, and nobody waits without end: a process that dies or hangs is replaced, and one that keeps dying
ends the run with the reason.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import psutil

from muzero_ray.acting.rollout_stats import RolloutStats
from muzero_ray.actors.calls import call, ping
from muzero_ray.actors.evaluations import Evaluations
from muzero_ray.actors.evaluator import EvaluatorWorker
from muzero_ray.actors.jobs import STARTED
from muzero_ray.actors.replay import ReplayWorker
from muzero_ray.actors.self_play import SelfPlayWorker
from muzero_ray.actors.services import PING_SECONDS, Services
from muzero_ray.actors.worker_handle import OtherLost, ProcessLost, WorkerHandle, answer
from muzero_ray.actors.workers import CALL_TIMEOUT, SERVICES, Workers
from muzero_ray.config.schema import Config
from muzero_ray.control.limits import left_unfinished
from muzero_ray.control.run_state import RunState
from muzero_ray.errors import NumericsError
from muzero_ray.learner.learner import LearnerWorker
from muzero_ray.learner.reanalyze_worker import ReanalyzeWorker
from muzero_ray.replay.encoding import decode_game
from muzero_ray.replay.metrics import joint_replay_metrics
from muzero_ray.runs.output import RunOutput, learner_state
from muzero_ray.runs.replay_archive import join_shards

CALL_SECONDS = 5.0
"""How long a rollout or a train call may take before it reports."""

WAIT_SECONDS = 0.5
"""Longest sleep of the loop, so that a signal is answered soon."""

STOP_SECONDS = 10.0
"""After a request to stop, calls in flight get this long, and so does each part of the last checkpoint."""

IDLE_SECONDS = 1.0
"""Pause of a worker that found nothing to do."""


def _object_store_mb() -> float | None:
    """Shared memory of a private Ray: object store pages used so far. None on a cluster that others run."""
    for child in psutil.Process().children():
        if child.name() == "raylet":
            return float(getattr(child.memory_info(), "shared", 0)) / 2**20
    return None


class Supervisor:
    """Drives `workers` until a limit of the run is reached, or `request_stop`.

    replay_files: what the checkpoint that the run goes on from holds of replay, None for a new run. recover: replay
    takes up again what it acknowledged before its processes died, in place of these.
    """

    def __init__(
        self,
        workers: Workers,
        run_state: RunState,
        config: Config,
        output: RunOutput,
        replay_files: dict[str, bytes] | None = None,
        *,
        recover: bool = False,
    ) -> None:
        self._workers = workers
        self._run_state = run_state
        self._config = config
        self._output = output
        self._services = Services(workers, output, replay_files, recover=recover)
        self._learner: WorkerHandle[LearnerWorker] = workers.one("learner")
        self._evaluator: WorkerHandle[EvaluatorWorker] = workers.one("evaluator")
        self._evaluations = Evaluations(self._evaluator, config, run_state, output)
        self._stop_requested = False
        self._started = False
        self._publish = True
        """The parameter server may be empty, or behind: the learner publishes before it trains."""

    def request_stop(self) -> None:
        """Leave after the calls in flight; safe to call from a signal handler."""
        self._stop_requested = True

    @property
    def replay_is_loaded(self) -> bool:
        """Replay holds what it was to begin with, and perhaps more."""
        return self._services.are_loaded

    def restore(self) -> None:
        """Bring replay and learner back after the loss of all processes. In the end a checkpoint has what they hold."""
        while not self._started:
            self._hand_out()
            self._collect()

    def run(self) -> bool:
        """Train to the end. Returns False if a stop was requested first. A checkpoint is written either way.

        Raises MuZeroRayError, naming the way to go on, if a process keeps dying.
        """
        self._output.message(STARTED)
        while True:
            while self._run_state.stop_reason() is None and not self._stop_requested:
                self._hand_out()
                self._collect()
            self._drain()
            if self._started:
                self._write_row()
                if self.checkpoint():
                    break
            if self._stop_requested:
                self._output.message("the learner or replay did not answer, so no checkpoint was written")
                break
            # One of them died after the last learner step. It is restored; what that costs is trained again.
            self._hand_out()
            self._collect()
        return not self._stop_requested

    # Handing out.

    def _hand_out(self) -> None:
        """Give every free process what its budget allows."""
        run_state, now = self._run_state, time.monotonic()
        self._services.tend(now)
        self._ping_evaluator(now)
        if not self._services.are_ready:
            return
        if self._learner.is_free(now) and (self._learner.fresh or self._publish):
            self._set_up_learner()
        if not self._started or self._evaluations.are_final or run_state.stop_reason() is not None:
            return
        free = [worker for worker in self._workers.handles if worker.is_free(now)]
        free.sort(key=lambda worker: worker.started)  # who has waited longest: a scarce budget goes round
        if self._evaluator in free and self._evaluations.in_play:
            self._evaluations.go_on()
        elif self._evaluator in free and run_state.due("evaluate"):  # before the learner publishes newer weights
            self._evaluations.begin()
        for worker in free:
            if worker.kind == "self_play" and (transitions := self._rollout_budget()):
                worker.send(SelfPlayWorker.rollout, transitions, run_state.temperature, CALL_SECONDS)
                worker.reserved = transitions
            elif worker.kind == "learner" and (steps := run_state.train_budget()):
                worker.send(LearnerWorker.train, steps, run_state.beta, CALL_SECONDS)
            elif (
                worker.kind == "reanalyze"
                and run_state.learner_steps
                and (transitions := run_state.reanalyze_budget()) > 0
            ):
                worker.send(ReanalyzeWorker.reanalyze, transitions, CALL_SECONDS)

    def _ping_evaluator(self, now: float) -> None:
        """Ask it, between two evaluations, whether it is there."""
        idle = self._evaluator.is_free(now) and not self._evaluations.in_play
        if idle and now - self._evaluator.started > PING_SECONDS:
            self._evaluator.send_ping()

    def _set_up_learner(self) -> None:
        checkpoint = self._output.last_checkpoint() if self._learner.fresh else None
        if checkpoint is not None:
            self._learner.send(LearnerWorker.load, learner_state(checkpoint))
        else:
            self._learner.send(LearnerWorker.publish)

    def _rollout_budget(self) -> int:
        """Transitions for one more rollout, what others are playing already set aside; small change waits."""
        size = self._config.actors.rollout_steps
        reserved = sum(worker.reserved for worker in self._workers.handles)
        budget = min(self._run_state.limiter.insert_budget() - reserved, size)
        return budget if budget >= size // 2 or (budget > 0 and reserved == 0) else 0

    # Collecting.

    def _collect(self) -> None:
        """Wait for an answer, then take every one that is there."""
        for worker, result in self._workers.collect(WAIT_SECONDS):
            if worker is self._evaluator and isinstance(result, OtherLost | ProcessLost):
                self._evaluations.drop()  # it begins again
            if isinstance(result, OtherLost):
                # What the learner did in that call was not reported: publishing, it says at which step it is.
                self._publish |= worker is self._learner
            elif not isinstance(result, ProcessLost):
                self._take(worker, result)
        self._output.show(self._run_state)

    def _take(self, worker: WorkerHandle[Any], result: Any) -> None:
        """One answer, to where it belongs."""
        if worker.method is ping:
            return
        if worker.kind in SERVICES:
            self._publish |= self._services.take(worker, result)
        elif worker.method in (LearnerWorker.load, LearnerWorker.publish):
            self._set_up(result)
        elif worker is self._evaluator:
            self._evaluations.take(result)
        else:
            # A learner that dies anew before each checkpoint gets nowhere, so its own deaths count until there is one.
            worker.blocked = 0
            memory_exceeded = isinstance(result, RolloutStats) and result.memory_exceeded is not None
            replays = self._services.replays
            shards = [replays[worker.index % len(replays)]] if worker.kind == "self_play" else replays
            its_own = () if worker is self._learner or memory_exceeded else (worker,)
            for useful in (*shards, self._services.params, *its_own):
                useful.forgive()
            self._enter(worker, result)

    def _enter(self, worker: WorkerHandle[Any], result: Any) -> None:
        """A worker's result into the run's state."""
        if worker.kind == "self_play":
            self._run_state.played(result)
            self._output.faults(result.faults)
            self._output.played(self._run_state, map(decode_game, result.games), result)
            if result.memory_exceeded is not None:
                self._workers.memory_exceeded(worker, result.memory_exceeded)
        elif worker.kind == "reanalyze":
            self._run_state.reanalyzed += result
            if not result:  # everything is as fresh as the published weights
                worker.retry_at = time.monotonic() + IDLE_SECONDS
        else:
            self._run_state.trained(result)
            if self._run_state.due("log"):
                self._write_row()
            if self._run_state.due("checkpoint"):
                self.checkpoint()

    def _set_up(self, step: int) -> None:
        """The learner holds what it shall, and so does the parameter server."""
        if self._learner.fresh and self._started:
            self._output.message(
                f"learner restored at step {step}, where the run was at {self._run_state.learner_steps}"
            )
        self._run_state.learner_at(step)
        self._learner.fresh = self._publish = False
        if not self._started:
            # From here on there is something to resume from, and this part of the run has a number of its own.
            self._started = True
            self.checkpoint()

    def _drain(self) -> None:
        """Let calls in flight end; their results count. What hangs is not waited for once a stop was requested."""
        kinds = ("self_play", "learner", "reanalyze")
        begin = time.monotonic()
        while any(worker.call is not None for worker in self._workers.handles if worker.kind in kinds):
            if self._stop_requested and time.monotonic() - begin > STOP_SECONDS:
                break
            self._collect()

    # What is written.

    def _write_row(self) -> None:
        run_state, actors = self._run_state, self._workers.of("self_play")
        with contextlib.suppress(ProcessLost):  # a row without its replay group; the next question to it tells more
            step = run_state.learner_steps
            asked = [call(worker.actor, ReplayWorker.metrics, step) for worker in self._services.replays]
            run_state.metrics.update(joint_replay_metrics([answer(ref, STOP_SECONDS) for ref in asked]))
        alive = sum(worker.ready is None and worker.failures == 0 for worker in actors)
        run_state.metrics.update({"actors/alive": alive, "actors/restarts": self._workers.restarts})
        if (shared := _object_store_mb()) is not None:
            run_state.metrics.add("system/object_store_mb", shared)
        run_state.done("log")
        self._output.write_row(run_state)

    def checkpoint(self) -> bool:
        """Write learner, replay and counters as of now; False if one of them did not answer, and is replaced."""
        self._workers.watch.check()
        if self._learner.fresh:
            return False
        self._output.confirm_lock()  # each part of replay writes its own snapshot
        learner = call(self._learner.actor, LearnerWorker.save)
        asked: list[tuple[WorkerHandle[Any], Any]] = [(self._learner, learner)]
        asked += [(worker, call(worker.actor, ReplayWorker.save)) for worker in self._services.replays]
        deadline = time.monotonic() + (STOP_SECONDS if self._stop_requested else CALL_TIMEOUT)
        parts = []
        for worker, saved in asked:
            try:
                parts.append(answer(saved, max(deadline - time.monotonic(), 0.0)))
            except ProcessLost as error:
                if not self._stop_requested:
                    self._workers.failed(worker, str(error))
                return False
            except NumericsError as error:
                if self._stop_requested:
                    raise
                self._workers.roll_back(worker, error)
                return False
        learner_part, *replay_parts = parts
        self._run_state.done("checkpoint")
        self._output.checkpoint(self._run_state, learner_part, join_shards(replay_parts))
        self._learner.forgive()  # what it did since it was restored is safe
        return True

    def final_evaluation(self) -> None:
        """Score of the final weights beside random play under the same protocol, with a video."""
        self._end_evaluation()
        self._run_state.stop_clock()
        self._evaluations.are_final = self._publish = True
        while not self._evaluations.are_over:
            self._hand_out()
            published = not self._publish and not self._learner.fresh
            if published and self._evaluator.is_free(time.monotonic()):
                if self._evaluations.in_play:
                    self._evaluations.go_on()
                else:
                    self._evaluations.begin_final()
            self._collect()
        self._evaluations.finish()

    def _end_evaluation(self) -> None:
        """Let the evaluation on the way come to its end, unless the time is up: then it is dropped."""
        while self._evaluator.call is not None or self._evaluations.in_play:
            if self._evaluator.call is None and self._run_state.time_is_up:
                self._output.message(left_unfinished(self._run_state))
                self._evaluations.drop()
                return
            if self._evaluator.is_free(time.monotonic()):
                self._evaluations.go_on()
            self._collect()
