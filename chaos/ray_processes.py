"""kill -9 of Ray's own processes, one after another, under a running `launch.py train` with a private Ray."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from chaos.jobs import Broken, small_config
from chaos.joined import Games, WitnessedRun
from chaos.programs import Program, until
from chaos.report import Outcome, largest, median
from chaos.witness import Note, notes
from muzero_ray.config.files import dump_config


@dataclass(frozen=True)
class Victim:
    """A process of Ray. sign: what its name or command line has. ends: Ray is lost with it. back: seconds allowed."""

    sign: str
    ends: bool
    back: float


VICTIMS = {
    "agent": Victim("ray::RuntimeEnvAgent", True, 60.0),
    "raylet": Victim("raylet", True, 60.0),
    "GCS": Victim("gcs_server", True, 120.0),
    "log monitor": Victim("log_monitor.py", False, 60.0),
}

COMMAND = (sys.executable, "-m", "chaos.witnessed_launch")

PATIENCE = 300.0
"""Seconds after which a run that does not play is broken."""

GONE_SECONDS = 15.0
"""After its end, for the run's processes to be gone."""

RECENT = 2.0
"""Self-play is at work if a game was acknowledged in so many seconds."""

RANDOM_SECONDS = 5.0


def train(folder: Path) -> Program:
    """A run in `folder` / `run`. Its witnesses import Ray before it sets the mode itself."""
    config = folder / "config.yaml"
    config.write_text(dump_config(small_config(folder, name="run")))
    environment = {**os.environ, "RAY_AUTH_MODE": "token"}
    return Program(folder / "log", "train", "--config", config, command=COMMAND, environment=environment)


def kill_all(names: tuple[str, ...], tries: int, folder: Path) -> tuple[dict[str, list[float]], Games, list[str]]:
    """One run in which each is killed `tries` times, in turns: seconds until it was back, the games, what was wrong."""
    rng = random.Random(6)
    found: dict[str, list[float]] = {name: [] for name in names}
    with train(folder) as program:
        run = WitnessedRun(program, folder)
        try:
            for _ in range(tries):
                for name in names:
                    found[name].append(one(run, VICTIMS[name], rng))
        except Broken as error:
            return found, Games(0, 0, 0, 0, 0), [str(error)]
        games, problems = run.finish()
        if not until(lambda: not program.left(), GONE_SECONDS, pause=0.3):
            problems.append(f"after its end {len(program.left())} of its processes ran on")
    return found, games, problems


def one(run: WitnessedRun, victim: Victim, rng: random.Random) -> float:
    """Kill it once, while games come in; seconds until one came in that only a run that goes on could have played."""
    run.wait(lambda: time.monotonic() - newest(run.runs) < RECENT, "self-play", PATIENCE)
    run.sleep(rng.uniform(0.0, RANDOM_SECONDS))
    part = max(_part(note) for note in notes(run.runs))
    at = time.monotonic()
    os.kill(find(run.program.pid, victim.sign), signal.SIGKILL)
    settled = at if victim.ends else at + RECENT  # games that were on their way do not tell

    def after() -> list[float]:
        later = [note for note in notes(run.runs) if note.at > settled]
        return [note.at for note in later if _part(note) > part or not victim.ends]

    run.wait(lambda: bool(after()), "a game after the kill", PATIENCE)
    return min(after()) - at


def newest(runs: Path) -> float:
    """When the last game was acknowledged; minus infinity before the first."""
    return max((note.at for note in notes(runs)), default=-float("inf"))


def _part(note: Note) -> int:
    """Which start of the workers its actor is of (`RunState.incarnation`)."""
    return note.id.incarnation >> 16


def find(program: int, sign: str) -> int:
    """Pid of that process of the program's Ray. Broken if there is none."""
    for process in psutil.Process(program).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            # The raylet's own command line names the programs that it starts.
            words = [process.name()] if process.name() == "raylet" else [process.name(), *process.cmdline()]
            if process.status() != psutil.STATUS_ZOMBIE and any(word.strip().endswith(sign) for word in words):
                return process.pid
    raise Broken(f"Ray has no process {sign}")


def ray_processes(tries: int, folder: Path) -> Iterator[Outcome]:
    """One row for each, all of one run."""
    found, games, problems = kill_all(tuple(VICTIMS), tries, folder)
    for name, victim in VICTIMS.items():
        back = found[name]
        in_time = sum(seconds <= victim.back for seconds in back)
        yield Outcome(
            f"kill -9 of Ray's {name}",
            f"plays on by itself within {victim.back:g} s and reaches its target; 0 acknowledged games lost or twice",
            len(back),
            games.wrong,
            not problems and games.acknowledged > 0 and games.wrong == 0 and in_time == tries,
            {
                "back s (median)": median(back),
                "(max)": largest(back),
                "in time": in_time,
                "acknowledged": games.acknowledged,
            },
            problems,
        )
