"""Stops the learner, then makes replay a hundred times slower; segments are large, and shared memory is small."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import ray

from chaos.jobs import Broken, Job, pid_of, run_job, small_config
from chaos.report import Outcome, largest, median
from chaos.soak import folder_mb, named_processes
from chaos.witness import WitnessedReplay, WitnessedSelfPlay
from muzero_ray.actors.self_play import MAX_PUSHES
from muzero_ray.config.schema import Config
from muzero_ray.types import GameHistory

STORE_BYTES = 80 << 20
"""Size of Ray's object store: with less Ray does not start."""

SLOWDOWN = 100
"""How many times as long a slow replay takes to add a game."""

ACTORS = 3

TURNOVERS = 10
"""How many times its capacity replay has taken in when the pressure begins: some time after it is full, its process
grows by 20 MB, once. Why was not investigated."""

SETTLE_SECONDS = 10.0
"""By then, whatever was under way when the pressure began is finished."""

DUMP_SECONDS = 11.0
"""Within this time the raylet writes its counters to a file."""

MAX_GROWTH_MB = 16.0
"""How much more a process may hold in the last third of the pressure than in the first: a dozen segments. One that
keeps growing takes far more in a minute."""

PENDING_FILE = "pending-{}-{}.txt"
"""Of an actor and its incarnation: a line with the time and the unacknowledged pushes, for each push."""

SLOW_FILE = "slow"
"""While it is there, replay is slow."""

ADDS_FILE = "adds.txt"
"""A line for each game that replay added: whether it was slow (0 or 1), seconds without the sleep, bytes."""


class CountingSelfPlay(WitnessedSelfPlay):
    """Notes after each push how many are unacknowledged."""

    def __init__(self, config: Config, task: Any, actor: int, incarnation: int, *rest: Any) -> None:
        super().__init__(config, task, actor, incarnation, *rest)
        self._pending = (Path(config.run.runs_dir) / PENDING_FILE.format(actor, incarnation)).open("a", buffering=1)

    def _push(self, game: GameHistory) -> None:
        super()._push(game)
        self._pending.write(f"{time.time()} {len(self._pushes)}\n")


class SlowReplay(WitnessedReplay):
    """Takes SLOWDOWN times as long to add a game while SLOW_FILE is there, and notes every add."""

    def __init__(self, config: Config, *rest: Any) -> None:
        super().__init__(config, *rest)
        self._folder = Path(config.run.runs_dir)
        self._adds = (self._folder / ADDS_FILE).open("a", buffering=1)

    def add(self, encoded: bytes) -> bool:
        begin = time.perf_counter()
        done = super().add(encoded)
        took = time.perf_counter() - begin
        slow = (self._folder / SLOW_FILE).exists()
        if slow:
            time.sleep((SLOWDOWN - 1) * took)
        self._adds.write(f"{int(slow)} {took} {len(encoded)}\n")
        return done


def pressure_config(folder: Path) -> Config:
    """Several actors, images that do not compress, a replay that is soon full."""
    data = small_config(folder).to_dict()
    data["env"] = {"id": "chaos.noise:Noise-v0"}
    data["network"] |= {"kind": "resnet", "channels": 4, "blocks": 1, "head_channels": 1}
    data["search"] |= {"simulations": 2}
    data["replay"] |= {"capacity": 2_000, "segment_length": 100, "samples_per_insert": 2.0}
    data["actors"] |= {"count": ACTORS, "envs_per_actor": 4, "rollout_steps": 100, "engine": "torch"}
    data["evaluation"] |= {"interval_steps": 1_000}
    return Config.model_validate(data)


@dataclass
class Measured:
    """What was measured while the job was under pressure."""

    first: dict[str, float] = field(default_factory=dict)
    """Least memory (USS, MB) of each process in the first third of the time."""
    last: dict[str, float] = field(default_factory=dict)
    """The same in the last third."""
    store: list[float] = field(default_factory=list)
    """MB in use in Ray's object store."""
    spilled: float = 0.0
    """Most MB that were on the disk in its place."""
    spill_requests: int = 0
    pending: int = 0
    """Most unacknowledged pushes of one actor."""
    restarts: int = 0
    env_steps: int = 0
    """Played after SETTLE_SECONDS."""
    seconds_to_train: float = float("nan")
    """From the end of the pressure until the learner had trained again."""

    def watch(self, job: Job, seconds: float) -> None:
        """Sample memory and object store once a second."""
        begin, settled_at = time.monotonic(), job.run_state.env_steps
        while (elapsed := time.monotonic() - begin) < seconds:
            third = self.first if elapsed < seconds / 3 else self.last if elapsed > seconds * 2 / 3 else {}
            for name, process in named_processes(os.getpid()).items():
                try:
                    third[name] = min(process.memory_full_info().uss / 2**20, third.get(name, float("inf")))
                except psutil.Error:
                    continue
            used, spilled = store_mb()
            self.store.append(used)
            self.spilled = max(self.spilled, spilled)
            if elapsed < min(SETTLE_SECONDS, seconds / 3):
                settled_at = job.run_state.env_steps
            job.sleep(1.0)
        self.env_steps = job.run_state.env_steps - settled_at

    @property
    def growth(self) -> float:
        """MB by which the process that grew most is larger in the last third than in the first."""
        return max(
            (self.last[name] - self.first[name] for name in self.last.keys() & self.first.keys()), default=float("nan")
        )


def store_mb() -> tuple[float, float]:
    """(MB in use in Ray's object store, MB on the disk in its place: spilled, or mapped from a file there)."""
    name = "object_store_memory"
    used = ray.cluster_resources()[name] - ray.available_resources().get(name, 0.0)
    session = session_folder()
    spilled = sum(folder_mb(folder) for folder in session.glob("ray_spilled_objects*"))
    mapped = 0
    for child in psutil.Process().children():
        if child.name() == "raylet":
            mapped = mapped_bytes(Path(f"/proc/{child.pid}/maps").read_text(), session)
    return used / 2**20, spilled + mapped / 2**20


def session_folder() -> Path:
    """The session folder of the private Ray that this process started."""
    return Path(ray.nodes()[0]["ObjectStoreSocketName"]).parents[1]


def mapped_bytes(maps: str, folder: Path) -> int:
    """Bytes that a process has mapped from files directly in `folder`. maps: the content of its /proc/PID/maps."""
    total = 0
    for line in maps.splitlines():
        span, *_, path = line.removesuffix(" (deleted)").split(maxsplit=5)
        if Path(path).parent == folder:
            low, _, high = span.partition("-")
            total += int(high, 16) - int(low, 16)
    return total


def spill_requests(session: Path) -> int:
    """How many requests to spill there were since Ray started. The raylet writes this to a file every ten seconds."""
    match = re.search(r"cumulative spill requests: (\d+)", (session / "logs" / "debug_state.txt").read_text())
    if match is None:
        raise RuntimeError("debug_state.txt of the raylet no longer says how often Ray was asked to spill")
    return int(match[1])


def most_pending(folder: Path, since: float, until: float) -> int:
    """Most unacknowledged pushes of one actor from `since` to `until` (`time.time`)."""
    most = 0
    for path in folder.glob(PENDING_FILE.format("*", "*")):
        for line in path.read_text().splitlines():
            at, _, count = line.partition(" ")
            if since <= float(at) <= until:
                most = max(most, int(count))
    return most


def adds(folder: Path, slow: bool) -> list[tuple[float, int]]:
    """(seconds without the sleep, bytes) of each game that was added while replay was slow, or while it was not."""
    rows = [line.split() for line in (folder / ADDS_FILE).read_text().splitlines()]
    return [(float(took), int(size)) for was_slow, took, size in rows if bool(int(was_slow)) == slow]


def measure(job: Job, folder: Path, seconds: float, begin: Callable[[], None], end: Callable[[], None]) -> Measured:
    """Watch the job for `seconds` between `begin` and `end`, then wait until it trains again."""
    measured = Measured()
    restarts, since = job.workers.restarts, time.time()
    begin()
    try:
        measured.watch(job, seconds)
    finally:
        end()
    measured.pending = most_pending(folder, since, time.time())
    trained = job.run_state.learner_steps
    measured.seconds_to_train = job.wait(lambda: job.run_state.learner_steps > trained, "training again", 240)
    measured.restarts = job.workers.restarts - restarts
    job.sleep(DUMP_SECONDS)
    measured.spill_requests = spill_requests(session_folder())
    return measured


def row(fault: str, seconds: int, measured: Measured, problems: list[str], figures: dict[str, float]) -> Outcome:
    """The outcome for one fault. figures: further ones to show."""
    pushed = measured.pending <= MAX_PUSHES and (measured.pending > 0 or measured.env_steps == 0)
    return Outcome(
        fault,
        f"{MAX_PUSHES} pending pushes per actor at most; no process {MAX_GROWTH_MB:g} MB larger in the last third than "
        "in the first; 0 bytes spilled; no restart; trains on afterwards",
        seconds,
        0,
        not problems
        and pushed
        and measured.growth <= MAX_GROWTH_MB
        and not measured.spilled + measured.spill_requests + measured.restarts,
        {
            "pending (max)": measured.pending,
            "grew MB (max)": round(measured.growth, 1),
            "store MB (max)": largest(measured.store),
            "of": STORE_BYTES >> 20,
            "spilled MB": round(measured.spilled, 1),
            "spill requests": measured.spill_requests,
            "restarts": measured.restarts,
            "trains again after s": round(measured.seconds_to_train, 1),
            **figures,
        },
        problems,
    )


def pressure(tries: int, folder: Path) -> Iterator[Outcome]:
    """`tries` seconds with the learner stopped, then as many with replay slow, in one job."""
    found: dict[str, Measured] = {}
    config = pressure_config(folder)

    def harm(job: Job) -> None:
        job.wait(lambda: job.run_state.env_steps > TURNOVERS * config.replay.capacity, "replay full", 900)
        learner = pid_of("learner")
        found["learner"] = measure(
            job, folder, tries, lambda: os.kill(learner, signal.SIGSTOP), lambda: os.kill(learner, signal.SIGCONT)
        )
        slow_file = folder / SLOW_FILE
        found["replay"] = measure(job, folder, tries, slow_file.touch, slow_file.unlink)

    with (
        mock.patch("muzero_ray.actors.cluster.object_store_bytes", return_value=STORE_BYTES),
        mock.patch("chaos.witness.WitnessedReplay", SlowReplay),
        mock.patch("chaos.witness.WitnessedSelfPlay", CountingSelfPlay),
    ):
        job = run_job(folder, harm, config)
    if "learner" not in found:
        raise Broken("; ".join(job.problems))
    stopped = found["learner"]
    steps = stopped.env_steps
    went_on = [f"self-play went on, by {steps} env steps after {SETTLE_SECONDS:g} s"] if steps else []
    yield row("learner stopped (SIGSTOP)", tries, stopped, [*job.problems, *went_on], {"env steps meanwhile": steps})
    if "replay" in found:
        slow = adds(folder, True)
        yield row(
            f"replay {SLOWDOWN} times slower",
            tries,
            found["replay"],
            list(job.problems),
            {
                "an add ms (median)": median([1e3 * took for took, _ in adds(folder, False)]),
                "slowed to": median([1e3 * SLOWDOWN * took for took, _ in slow]),
                "of MB": median([size / 2**20 for _, size in slow]),
                "games added": len(slow),
            },
        )
