"""A learner that stands still, and a replay a hundred times slower, with large segments and little shared memory."""

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

STORE = 80 << 20
"""Bytes of the object store: with less Ray does not start."""

FACTOR = 100
"""How many times longer replay takes to add a game."""

ACTORS = 3

TURNOVERS = 10
"""How often replay has been filled when the pressure begins: some time after it is full its process grows by 20 MB,
once. What takes them was not looked at."""

SETTLE = 10.0
"""Seconds in which what is under way when the pressure begins is done with."""

DUMP_SECONDS = 11.0
"""After which the raylet has written down what it did."""

FLAT_MB = 16.0
"""What a process may hold more at the end of the pressure than at its beginning: a dozen segments, or four times what
an actor may have on its way. What does not stop growing is far beyond that in a minute."""

PENDING = "pending-{}-{}.txt"
SLOW = "slow"
ADDS = "adds.txt"


class CountingSelfPlay(WitnessedSelfPlay):
    """Notes how many pushes are unacknowledged, whenever it has sent one."""

    def __init__(self, config: Config, task: Any, actor: int, incarnation: int, *rest: Any) -> None:
        super().__init__(config, task, actor, incarnation, *rest)
        self._pending = (Path(config.run.runs_dir) / PENDING.format(actor, incarnation)).open("a", buffering=1)

    def _push(self, game: GameHistory) -> None:
        super()._push(game)
        self._pending.write(f"{time.time()} {len(self._pushes)}\n")


class SlowReplay(WitnessedReplay):
    """Takes FACTOR times as long for a game while there is a file SLOW, and notes how long that was."""

    def __init__(self, config: Config, *rest: Any) -> None:
        super().__init__(config, *rest)
        self._folder = Path(config.run.runs_dir)
        self._adds = (self._folder / ADDS).open("a", buffering=1)

    def add(self, encoded: bytes) -> bool:
        begin = time.perf_counter()
        done = super().add(encoded)
        took = time.perf_counter() - begin
        slow = (self._folder / SLOW).exists()
        if slow:
            time.sleep((FACTOR - 1) * took)
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
class Pressure:
    """What was seen of one kind of it. MB; env steps and seconds."""

    first: dict[str, float] = field(default_factory=dict)
    """Least memory of each process in the first third."""
    last: dict[str, float] = field(default_factory=dict)
    """In the last."""
    store: list[float] = field(default_factory=list)
    spilled: float = 0.0
    requests: int = 0
    """To spill."""
    pending: int = 0
    restarts: int = 0
    steps: int = 0
    """Played under pressure, after SETTLE."""
    back: float = float("nan")
    """Seconds until the learner had trained again."""

    def watch(self, job: Job, seconds: float) -> None:
        """Look for so long."""
        begin, steps = time.monotonic(), job.run_state.env_steps
        while (elapsed := time.monotonic() - begin) < seconds:
            part = self.first if elapsed < seconds / 3 else self.last if elapsed > seconds * 2 / 3 else {}
            for name, process in named_processes(os.getpid()).items():
                try:
                    part[name] = min(process.memory_full_info().uss / 2**20, part.get(name, float("inf")))
                except psutil.Error:
                    continue
            used, spilled = store_mb()
            self.store.append(used)
            self.spilled = max(self.spilled, spilled)
            if elapsed < min(SETTLE, seconds / 3):
                steps = job.run_state.env_steps
            job.sleep(1.0)
        self.steps = job.run_state.env_steps - steps

    @property
    def growth(self) -> float:
        """Growth of the process that grew most."""
        return max(
            (self.last[name] - self.first[name] for name in self.last.keys() & self.first.keys()), default=float("nan")
        )


def store_mb() -> tuple[float, float]:
    """In use in Ray's object store; and on the disk in its place, spilled or mapped from a file there."""
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
    """What a process has mapped of files that are directly in `folder`, given its /proc/PID/maps."""
    total = 0
    for line in maps.splitlines():
        span, *_, path = line.removesuffix(" (deleted)").split(maxsplit=5)
        if Path(path).parent == folder:
            low, _, high = span.partition("-")
            total += int(high, 16) - int(low, 16)
    return total


def spill_requests(session: Path) -> int:
    """Ever, as the raylet writes it down every ten seconds."""
    match = re.search(r"cumulative spill requests: (\d+)", (session / "logs" / "debug_state.txt").read_text())
    if match is None:
        raise RuntimeError("Ray does not say any more how often it spilled")
    return int(match[1])


def most_pending(folder: Path, since: float, until: float) -> int:
    """Unacknowledged pushes of any one actor between two times of the clock."""
    most = 0
    for path in folder.glob(PENDING.format("*", "*")):
        for line in path.read_text().splitlines():
            at, _, count = line.partition(" ")
            if since <= float(at) <= until:
                most = max(most, int(count))
    return most


def adds(folder: Path, slow: bool) -> list[tuple[float, int]]:
    """Seconds and bytes of each game that was added, without the sleep."""
    rows = [line.split() for line in (folder / ADDS).read_text().splitlines()]
    return [(float(took), int(size)) for was_slow, took, size in rows if bool(int(was_slow)) == slow]


def under(job: Job, folder: Path, seconds: float, begin: Callable[[], None], end: Callable[[], None]) -> Pressure:
    """Watch the job from `begin` to `end`, and wait until it trains again."""
    pressure = Pressure()
    restarts, since = job.workers.restarts, time.time()
    begin()
    try:
        pressure.watch(job, seconds)
    finally:
        end()
    pressure.pending = most_pending(folder, since, time.time())
    trained = job.run_state.learner_steps
    pressure.back = job.wait(lambda: job.run_state.learner_steps > trained, "training again", 240)
    pressure.restarts = job.workers.restarts - restarts
    job.sleep(DUMP_SECONDS)
    pressure.requests = spill_requests(session_folder())
    return pressure


def row(fault: str, seconds: int, pressure: Pressure, problems: list[str], figures: dict[str, float]) -> Outcome:
    pushed = pressure.pending <= MAX_PUSHES and (pressure.pending > 0 or pressure.steps == 0)
    return Outcome(
        fault,
        f"{MAX_PUSHES} pending pushes per actor at most; no process {FLAT_MB:g} MB larger in the last third than in "
        "the first; 0 bytes spilled; no restart; trains on afterwards",
        seconds,
        0,
        not problems
        and pushed
        and pressure.growth <= FLAT_MB
        and not pressure.spilled + pressure.requests + pressure.restarts,
        {
            "pending (max)": pressure.pending,
            "grew MB (max)": round(pressure.growth, 1),
            "store MB (max)": largest(pressure.store),
            "of": STORE >> 20,
            "spilled MB": round(pressure.spilled, 1),
            "spill requests": pressure.requests,
            "restarts": pressure.restarts,
            "trains again after s": round(pressure.back, 1),
            **figures,
        },
        problems,
    )


def pressure(tries: int, folder: Path) -> Iterator[Outcome]:
    """`tries` seconds of each."""
    found: dict[str, Pressure] = {}
    config = pressure_config(folder)

    def harm(job: Job) -> None:
        job.wait(lambda: job.run_state.env_steps > TURNOVERS * config.replay.capacity, "replay full", 900)
        learner = pid_of("learner")
        found["learner"] = under(
            job, folder, tries, lambda: os.kill(learner, signal.SIGSTOP), lambda: os.kill(learner, signal.SIGCONT)
        )
        mark = folder / SLOW
        found["replay"] = under(job, folder, tries, mark.touch, mark.unlink)

    with (
        mock.patch("muzero_ray.actors.cluster.object_store_bytes", return_value=STORE),
        mock.patch("chaos.witness.WitnessedReplay", SlowReplay),
        mock.patch("chaos.witness.WitnessedSelfPlay", CountingSelfPlay),
    ):
        job = run_job(folder, harm, config)
    if "learner" not in found:
        raise Broken("; ".join(job.problems))
    stood = found["learner"]
    still = [] if stood.steps == 0 else [f"self-play went on, by {stood.steps} env steps after {SETTLE:g} s"]
    yield row("learner stopped (SIGSTOP)", tries, stood, [*job.problems, *still], {"env steps meanwhile": stood.steps})
    if "replay" in found:
        slow = adds(folder, True)
        yield row(
            f"replay {FACTOR} times slower",
            tries,
            found["replay"],
            list(job.problems),
            {
                "an add ms (median)": median([1e3 * took for took, _ in adds(folder, False)]),
                "slowed to": median([1e3 * FACTOR * took for took, _ in slow]),
                "of MB": median([size / 2**20 for _, size in slow]),
                "games added": len(slow),
            },
        )
