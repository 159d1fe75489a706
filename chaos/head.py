"""The head of a cluster is lost with the driver on it: who notices, and whether a new head can go on with the run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chaos.cluster import Cluster
from chaos.group import Tally, resumes
from chaos.hosts import Host, apart, make_bridge
from chaos.jobs import Broken
from chaos.joined import Run
from chaos.report import Outcome, largest, report
from muzero_ray.runs.checkpoint import list_checkpoints, load_checkpoint

LEAVE_SECONDS = 600.0
"""Ray gives up a head after 60 s. After a power cut no connection is closed, and it takes minutes to find that out."""


@dataclass
class Lost:
    """What came of all tries."""

    left: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    """Seconds since the loss, until nothing ran on a host any more; apart for power cuts."""
    stayed: int = 0
    """Processes that ran on after LEAVE_SECONDS."""
    ended: int = 0
    """Runs that went on and ended with 0."""
    tally: Tally = field(default_factory=Tally)


def lose_head(lost: Lost, hosts: list[Host], folder: Path, *, cut: bool) -> None:
    """A run on `hosts` whose first, the head, is killed. cut: its link goes before: a power cut."""
    head, *workers = hosts
    cluster = Cluster(folder, head)
    runs = folder / "runs"
    runs.mkdir()
    cluster.start_head()
    for host in workers:
        cluster.up(host)
    with cluster.train(folder / "log", runs) as program:
        run = Run(program, runs, cluster, workers)
        run.wait(lambda: all(run.answers(host, 0.0) for host in workers), "self-play on all hosts", 300)
        run.wait(lambda: len(list_checkpoints(runs / "run" / "checkpoints")) > 2, "checkpoints", 300)
        if cut:
            head.link(up=False)
        head.kill()
        at = time.monotonic()
    lost.tally.kills += 1
    leave(lost, workers, at, lost.left[cut])
    expected = load_checkpoint(runs / "run").step
    head.boot()
    cluster.start_head()
    for host in workers:
        cluster.up(host)
    at = time.monotonic()
    with cluster.launch(folder / "log-2", "resume", runs / "run") as program:
        lost.tally.resumed += resumes(program, expected, lost.tally)
        run = Run(program, runs, cluster, workers)
        run.wait(lambda: all(run.answers(host, at) for host in workers), "self-play on all hosts again", 300)
        _, problems = run.finish()
    lost.tally.notes += problems
    lost.ended += not problems


def leave(lost: Lost, workers: list[Host], since: float, left: list[float]) -> None:
    """Wait until nothing runs on them any more; how long that took is added to `left`."""
    waiting = list(workers)
    while waiting and time.monotonic() - since < LEAVE_SECONDS:
        time.sleep(0.5)
        for host in [host for host in waiting if not host.processes()]:
            left.append(time.monotonic() - since)
            waiting.remove(host)
    for host in waiting:
        names = sorted(process.name() for process in host.processes())
        lost.stayed += len(names)
        lost.tally.notes.append(f"still on {host.name} after {LEAVE_SECONDS:g} s: {', '.join(names)}")


def main(tries: int, folder: Path) -> Iterator[Outcome]:
    """In the outer namespaces."""
    make_bridge()
    lost = Lost()
    for index in range(tries):
        hosts = [Host(name, number) for number, name in enumerate("abc", 1)]
        part = folder / str(index)
        part.mkdir()
        try:
            lose_head(lost, hosts, part, cut=index % 2 == 1)
        except Broken as error:
            lost.tally.notes.append(str(error))
        for host in hosts:
            host.kill()
    left = sum(map(len, lost.left.values()))
    yield Outcome(
        "head lost: kill -9, power cut by turns",
        f"workers leave by themselves within {LEAVE_SECONDS:g} s; `resume` on a new head goes on from the newest good "
        "checkpoint and ends with 0",
        lost.tally.kills,
        lost.stayed + lost.tally.kills - lost.tally.resumed,
        lost.tally.kills == lost.tally.resumed == lost.ended == tries and left == 2 * tries,
        {
            "hosts left by all": left,
            "after kill -9 s (max)": largest(lost.left[False]),
            "after a power cut s (max)": largest(lost.left[True]),
            "processes that stayed": lost.stayed,
            "resumed": lost.tally.resumed,
            "ended at the target": lost.ended,
        },
        lost.tally.notes,
    )


def head(tries: int, folder: Path) -> Iterator[Outcome]:
    """Each time a cluster of its own."""
    yield from apart("chaos.head", tries, folder)


if __name__ == "__main__":
    report(main(int(sys.argv[1]), Path(sys.argv[2])))
