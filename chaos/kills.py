"""kill -9 of one process after another, in one running job."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import ray
import safetensors.numpy

from chaos.jobs import INTERVAL, Job, pid_of, run_job
from chaos.report import Outcome, largest, median
from chaos.witness import RESTORED, acknowledged, digest
from muzero_ray.actors.worker_handle import Kind
from muzero_ray.errors import MuZeroRayError
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.output import learner_state
from muzero_ray.runs.replay_archive import ARRAYS_FILE, INDEX_FILE
from muzero_ray.types import GameId

WORKERS: tuple[Kind, ...] = ("self_play", "reanalyze", "evaluator", "params")
"""Whatever plays, searches again, evaluates or hands out weights."""

WINDOW = 5.0
"""Seconds over which throughput is taken."""

RANDOM_SECONDS = 3.0
"""A kill comes at a random instant of this time, which several calls of a worker fit into."""

BACK, THROUGHPUT_SHARE, THROUGHPUT_SECONDS = 10.0, 0.9, 30.0
RECENT = 9
"""Windows that tell what is usual: replay keeps all games here, and has more to save at every checkpoint, so that the
throughput of the first kills is not that of the last."""

KEPT_SHARE = 0.9
"""The share of its throughput that a job must keep, relative to what it keeps without kills."""

SAMPLING_SECONDS = 15.0
"""Per 100,000 transitions that replay holds, or fewer."""

RESTORED_MESSAGE = re.compile(r"learner restored at step (\d+), where the run was at (\d+)")


@dataclass
class Kills:
    """What was measured of one kind, one entry per kill. Seconds since the kill."""

    back: list[float] = field(default_factory=list)
    """Until a new process had answered in its place."""
    throughput: list[float] = field(default_factory=list)
    """Until a window after the kill had 90 % of the usual throughput; infinite if none within a minute had."""
    usual: list[float] = field(default_factory=list)
    """Throughput in the windows before the kills so far, of all kinds: one list for the job.

    The usual one is the median of the newest: a single window may catch self-play as it makes up for a death before.
    """
    moments: list[float] = field(default_factory=list)
    """The moments of the ends of these windows, since the job began to train."""
    sampling: list[float] = field(default_factory=list)
    """Until a batch was drawn (replay)."""
    transitions: list[float] = field(default_factory=list)
    """That replay held then."""
    acting: list[float] = field(default_factory=list)
    """Until an actor played with the weights of the new learner."""

    def one(self, job: Job, kind: Kind, rng: random.Random, began: float = 0.0) -> None:
        """Kill the process of `kind` once and see what comes of it. began: when the job began to train."""
        worker = job.workers.one(kind)
        job.settle(worker)
        job.sleep(WINDOW + rng.uniform(0.0, RANDOM_SECONDS))
        restarts, pid = worker.restarts, pid_of(kind)
        at = time.monotonic()
        self.usual.append(job.rate(at - WINDOW, at))
        self.moments.append(at - began)
        os.kill(pid, signal.SIGKILL)
        if kind == "replay":
            ray.get(worker.actor.draw.remote(32, 0.4), timeout=120)  # Ray sends it again until it is answered
            self.sampling.append(time.monotonic() - at)
            self.transitions.append(ray.get(worker.actor.metrics.remote(0), timeout=60)["replay/size"])
        self.back.append(job.replaced(worker, restarts, at))
        if kind == "learner":
            incarnation = worker.restarts
            job.wait(
                lambda: job.run_state.acting.incarnation >= incarnation, "actors with the weights of the new learner"
            )
            self.acting.append(time.monotonic() - at)
        elif kind in WORKERS:
            self.throughput.append(self._throughput(job, at, statistics.median(self.usual[-RECENT:])))

    @staticmethod
    def _throughput(job: Job, at: float, usual: float) -> float:
        while (now := time.monotonic()) - at < 2 * THROUGHPUT_SECONDS:
            if now - at > WINDOW and job.rate(now - WINDOW, now) >= THROUGHPUT_SHARE * usual:
                return now - at
            job.sleep(0.1)
        return float("inf")


@dataclass
class Left:
    """What the run left. reached: it came to its target. lost, twice: games, of those acknowledged."""

    reached: bool
    acknowledged: int
    lost: int
    twice: int


def kill(kinds: tuple[Kind, ...], tries: int, folder: Path) -> tuple[dict[Kind, Kills], Left, list[str]]:
    """A job in which each kind is killed `tries` times, in turns; what was found, what is left, and why it is less."""
    rng = random.Random(4)
    usual: list[float] = []
    moments: list[float] = []
    found: dict[Kind, Kills] = {kind: Kills(usual=usual, moments=moments) for kind in kinds}

    def harm(job: Job) -> None:
        job.wait(lambda: job.run_state.learner_steps > 2 * INTERVAL, "training")
        began = time.monotonic()
        for _ in range(tries):
            for kind in kinds:
                found[kind].one(job, kind, rng, began)

    try:
        job = run_job(folder, harm)
    except MuZeroRayError as error:
        return found, Left(False, 0, 0, 0), [f"the run ended: {str(error).splitlines()[0]}"]
    return found, *look(job, folder)


def undisturbed(moments: list[float], folder: Path) -> list[float]:
    """Throughput in the windows that end at `moments` of the same job, to which nothing is done."""
    found: list[float] = []

    def watch(job: Job) -> None:
        job.wait(lambda: job.run_state.learner_steps > 2 * INTERVAL, "training")
        began = time.monotonic()
        for moment in moments:
            job.sleep(max(began + moment - time.monotonic(), 0.0))
            found.append(job.rate(began + moment - WINDOW, began + moment))

    run_job(folder, watch)
    return found


def kept(rates: list[float]) -> float:
    """Throughput of the last windows, as a share of that of the first; NaN if there are too few to tell."""
    if len(rates) < 2 * RECENT:
        return float("nan")
    return statistics.median(rates[-RECENT:]) / statistics.median(rates[:RECENT])


def drift(with_kills: list[float], without: list[float]) -> Outcome:
    """Whether throughput falls as replay grows, and whether kills have a part in that."""
    shares = kept(with_kills), kept(without)
    few = len(with_kills) < 2 * RECENT
    return Outcome(
        "throughput beside kills, from the first windows to the last",
        f">= {KEPT_SHARE:.0%} of what the same job without kills keeps of it",
        len(with_kills),
        0,
        few or shares[0] >= KEPT_SHARE * min(shares[1], 1.0),
        {
            "first steps/s": median(with_kills[:RECENT]),
            "last": median(with_kills[-RECENT:]),
            "without kills: first": median(without[:RECENT]),
            "last without": median(without[-RECENT:]),
            "kept": round(shares[0], 3),
            "kept without": round(shares[1], 3),
        },
        [f"fewer than {2 * RECENT} windows: not judged"] if few else [],
    )


def look(job: Job, folder: Path) -> tuple[Left, list[str]]:
    """Compare what actors were told with the last checkpoint."""
    checkpoint = load_checkpoint(job.folder)
    index = safetensors.numpy.load(checkpoint.files[ARRAYS_FILE])["index"]
    ids = [GameId(*row) for row in index[:, :3].tolist()]
    written = [GameId(*one) for chunk in json.loads(checkpoint.files[INDEX_FILE])["chunks"] for one in chunk["ids"]]
    told = acknowledged(folder)
    lost = told - set(ids)
    twice = len(ids) - len(set(ids)) + len(written) - len(set(written))
    reached = checkpoint.step == job.run_state.target
    notes = list(job.problems)
    if not reached:
        notes.append(f"the last checkpoint is of step {checkpoint.step}, the target was {job.run_state.target}")
    notes += [f"acknowledged and lost: {', '.join(map(str, sorted(lost)[:5]))}"] if lost else []
    return Left(reached, len(told), len(lost), twice), notes


def kill_workers(tries: int, folder: Path) -> Iterator[Outcome]:
    """One row for each, all of one job; and one that compares it with the same job without kills."""
    for name in ("kills", "without"):
        (folder / name).mkdir()
    found, left, notes = kill(WORKERS, tries, folder / "kills")
    for kind, kills in found.items():
        within = sum(seconds <= THROUGHPUT_SECONDS for seconds in kills.throughput)
        whole = left.reached and left.lost + left.twice == 0 and left.acknowledged > 0
        yield Outcome(
            f"kill -9 {kind}",
            f"run reaches its target; 0 acknowledged games lost or twice; back in {BACK:g} s (median); throughput "
            f">= 90 % within {THROUGHPUT_SECONDS:g} s",
            len(kills.back),
            left.lost + left.twice,
            whole and len(kills.throughput) == within == tries and median(kills.back) <= BACK,
            {
                "back s (median)": median(kills.back),
                "(max)": largest(kills.back),
                "90 % s (median)": median(kills.throughput),
                "within 30 s": within,
                "acknowledged": left.acknowledged,
            },
            notes,
        )
    kills = found[WORKERS[0]]
    yield drift(kills.usual, undisturbed(kills.moments, folder / "without"))


def kill_replay(tries: int, folder: Path) -> Iterator[Outcome]:
    """All that was ever acknowledged is there, and drawn from again."""
    found, left, notes = kill(("replay",), tries, folder)
    kills = found["replay"]
    times = zip(kills.sampling, kills.transitions, strict=False)
    in_time = [seconds <= SAMPLING_SECONDS * max(held / 100_000, 1.0) for seconds, held in times]
    yield Outcome(
        "kill -9 replay",
        f"0 acknowledged games lost or twice; sampling again in {SAMPLING_SECONDS:g} s per 100 k transitions",
        len(kills.back),
        left.lost + left.twice,
        left.reached and left.lost + left.twice == 0 and len(in_time) == tries and all(in_time),
        {
            "sampling s (median)": median(kills.sampling),
            "(max)": largest(kills.sampling),
            "transitions (max)": largest(kills.transitions),
            "acknowledged": left.acknowledged,
        },
        notes,
    )


def kill_learner(tries: int, folder: Path) -> Iterator[Outcome]:
    """It is set back to a checkpoint, exactly, and who acts follows it there."""
    kept: dict[int, str] = {}
    repeated: list[float] = []
    rng = random.Random(5)
    kills = Kills()

    def harm(job: Job) -> None:
        told = job.output.message

        def message(text: str) -> None:
            told(text)
            if match := RESTORED_MESSAGE.match(text):  # said before the next checkpoint may be written
                step = int(match[1])
                repeated.append(float(int(match[2]) - step))
                kept[len(repeated)] = digest(learner_state(load_checkpoint(job.folder / "checkpoints" / str(step))))

        job.output.message = message  # type: ignore[method-assign]
        job.wait(lambda: job.run_state.learner_steps > 2 * INTERVAL, "training")
        for _ in range(tries):
            kills.one(job, "learner", rng)

    job = run_job(folder, harm)
    left, notes = look(job, folder)
    hashes = {
        int(path.stem.split("-")[1]): json.loads(path.read_text())[1] for path in folder.glob(RESTORED.format("*"))
    }
    same = sum(hashes.get(incarnation) == value for incarnation, value in kept.items())
    yield Outcome(
        "kill -9 learner",
        "one checkpoint interval repeated at most; restored state's hash is the checkpoint's; actors take the restored "
        "weights",
        len(kills.back),
        len(kills.back) - same + left.lost + left.twice,
        left.reached
        and len(kills.acting) == same == tries
        and largest(repeated) <= INTERVAL
        and left.lost + left.twice == 0,
        {
            "repeated steps (max)": largest(repeated),
            "of an interval of": INTERVAL,
            "hashes equal": same,
            "weights taken after s (median)": median(kills.acting),
            "back s (median)": median(kills.back),
        },
        notes,
    )
