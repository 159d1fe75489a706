"""SIGSTOP: a process that lives, holds its connections, and does not answer. For ever, or for three seconds."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import psutil

from chaos.jobs import CLASSES, INTERVAL, Broken, Job, pid_of, run_job
from chaos.kills import look
from chaos.report import Outcome, largest
from muzero_ray.actors.worker_handle import Kind

TIMEOUT = 9.0
"""Seconds, instead of the program's 300 (and of an hour for games that are played to the end), so that this ends."""

SLACK = 5.0
SHORT = 3.0
GONE_SECONDS = 15.0


@dataclass
class Stops:
    """Stops of one kind of process. found: seconds until each was given up. stayed: those never got rid of."""

    found: list[float] = field(default_factory=list)
    stayed: int = 0
    short: int = 0
    alarms: int = 0

    def for_ever(self, job: Job, kind: Kind, rng: random.Random) -> None:
        worker = job.workers.one(kind)
        job.settle(worker)
        job.sleep(rng.uniform(0.0, 3.0))
        restarts, pid, at = worker.restarts, pid_of(kind), time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            self.found.append(job.wait(lambda: worker.restarts > restarts, f"{kind} found stopped", 3 * TIMEOUT))
            job.replaced(worker, restarts, at)
            job.wait(lambda: not psutil.pid_exists(pid), "the stopped process ended", GONE_SECONDS)
        except Broken:
            self.stayed += psutil.pid_exists(pid)
            if job.over.is_set() or worker.restarts == restarts:
                raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def for_a_while(self, job: Job, kind: Kind, rng: random.Random) -> None:
        job.settle(job.workers.one(kind))
        job.sleep(rng.uniform(0.0, 3.0))
        restarts, pid = job.workers.restarts, pid_of(kind)
        os.kill(pid, signal.SIGSTOP)
        try:
            job.sleep(SHORT)
        finally:
            os.kill(pid, signal.SIGCONT)
        job.sleep(SHORT)
        self.short += 1
        self.alarms += job.workers.restarts - restarts


@contextlib.contextmanager
def short_timeouts() -> Iterator[None]:
    with (
        mock.patch("muzero_ray.actors.workers.CALL_TIMEOUT", TIMEOUT),
        mock.patch("muzero_ray.actors.supervisor.CALL_TIMEOUT", TIMEOUT),
        mock.patch("muzero_ray.actors.workers.LONG_CALLS", {}),
    ):
        yield


def stop(tries: int, folder: Path) -> Iterator[Outcome]:
    """Each kind, for a while and for ever, in one running job."""
    rng = random.Random(9)
    found = {kind: Stops() for kind in CLASSES}

    def harm(job: Job) -> None:
        job.wait(lambda: job.run_state.learner_steps > 2 * INTERVAL, "training")
        for _ in range(tries):
            for kind, stops in found.items():
                stops.for_a_while(job, kind, rng)
                stops.for_ever(job, kind, rng)

    with short_timeouts():
        job = run_job(folder, harm)
    left, notes = look(job, folder)
    for kind, stops in found.items():
        in_time = sum(seconds <= TIMEOUT + SLACK for seconds in stops.found)
        yield Outcome(
            f"SIGSTOP {kind}",
            f"for ever: found within the time-out (here {TIMEOUT:g} s) + {SLACK:g} s and replaced; for {SHORT:g} s: no "
            "false alarm; 0 acknowledged games lost or twice",
            len(stops.found) + stops.short,
            stops.alarms + left.lost + left.twice,
            left.reached and in_time == stops.short == tries and stops.alarms + left.lost + left.twice == 0,
            {
                "found s (max)": largest(stops.found),
                "in time": in_time,
                "false alarms": stops.alarms,
                "stopped process not ended": stops.stayed,
            },
            notes,
        )
