"""A run with its Ray: a private one that dies is started anew, and the run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from muzero_ray.actors.cluster import disconnect
from muzero_ray.actors.ray_internals import is_private
from muzero_ray.actors.ray_watch import RayLost, loss
from muzero_ray.actors.supervisor import Supervisor
from muzero_ray.actors.worker_handle import backoff
from muzero_ray.control.run_state import RunState
from muzero_ray.errors import MuZeroRayError
from muzero_ray.runs.output import RunOutput

MAX_LOSSES = 5
"""A run survives this many losses of its Ray without progress in between; the next one ends it."""

Result = TypeVar("Result")

Start = Callable[[bool], Supervisor]
"""Starts all workers. True: replay takes up again what it acknowledged before its processes died."""


class RayRunner:
    """Drives a supervisor. With a private Ray that is lost, it makes another one of both and goes on.

    Only the processes are lost. The run's state stays, replay reads back every game that it acknowledged, and learner
    steps go on from the last checkpoint, as when these processes die one by one.

    Made when Ray is there; `connect` starts another one.
    """

    def __init__(self, start: Start, connect: Callable[[], object], run_state: RunState, output: RunOutput) -> None:
        self._start, self._connect, self._run_state, self._output = start, connect, run_state, output
        self._supervisor: Supervisor | None = start(False)
        self._recover = False
        self._losses = 0
        self._lost_at = -1
        """Learner step at which Ray was last lost."""
        self._stop_requested = False

    def request_stop(self) -> None:
        """As `Supervisor.request_stop`. While Ray is started anew, the stop waits until a checkpoint has all games."""
        self._stop_requested = True
        if self._supervisor is not None:
            self._supervisor.request_stop()

    def run(self) -> bool:
        """As `Supervisor.run`."""
        return self._surviving(Supervisor.run)

    def final_evaluation(self) -> None:
        """As `Supervisor.final_evaluation`."""
        self._surviving(Supervisor.final_evaluation)

    def _surviving(self, act: Callable[[Supervisor], Result]) -> Result:
        while True:
            try:
                return act(self._supervisor or self._restart())
            except Exception as error:
                reason = self._loss(error)
            # Only here: the error's frames hold references that Ray must not outlive.
            self._end_ray()
            self._count_loss(reason)

    def _loss(self, error: Exception) -> str:
        """Why Ray is lost, if that is what `error` comes of; raises it otherwise.

        Whatever goes wrong while a private Ray is dead comes of that.
        """
        if isinstance(error, RayLost):
            if not is_private():
                raise MuZeroRayError(
                    f"{error}, and the run with it. Repair the cluster, or start it anew (docs/cluster.md). "
                    f"{self._output.resume_hint}"
                ) from error
            return str(error)
        if self._supervisor is None and isinstance(error, MuZeroRayError):
            return str(error)  # it did not even start
        if is_private() and (reason := loss()) is not None:
            return reason
        raise error

    def _count_loss(self, reason: str) -> None:
        further = self._run_state.learner_steps > self._lost_at
        self._losses = 1 if further else self._losses + 1
        self._lost_at = max(self._lost_at, self._run_state.learner_steps)
        if self._losses > MAX_LOSSES:
            raise MuZeroRayError(
                f"Ray was lost {self._losses} times in a row, last: {reason}. Look for what kills its processes, "
                f"memory first. {self._output.resume_hint}"
            )
        pause = backoff(self._losses)
        self._output.message(f"{reason}; starting Ray anew in {pause:g} s, the run goes on by itself")
        end = time.monotonic() + pause
        while time.monotonic() < end and not self._stop_requested:
            time.sleep(0.1)

    def _end_ray(self) -> None:
        if self._supervisor is not None:
            self._recover |= self._supervisor.replay_is_loaded
        self._supervisor = None
        disconnect()

    def _restart(self) -> Supervisor:
        self._run_state.resumes += 1  # the new processes are others than all before
        self._connect()
        supervisor = self._supervisor = self._start(self._recover)
        if self._stop_requested:
            supervisor.request_stop()
        before = self._run_state.learner_steps
        supervisor.restore()
        self._output.message(
            f"Ray is back; learner at step {self._run_state.learner_steps}, where the run was at {before}"
        )
        return supervisor
