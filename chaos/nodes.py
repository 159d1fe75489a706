"""Hosts that are killed, drained, cut off and added while a run trains on them.

`launch.py train ... --address auto` on the first of three hosts (chaos/hosts.py), under Ray's own health checks.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from chaos.cluster import Cluster
from chaos.hosts import Host, apart, make_bridge
from chaos.jobs import Broken
from chaos.joined import RECENT, Run
from chaos.programs import until
from chaos.report import Outcome, largest, median, report
from chaos.tokens import tokens

BLIP = 8.0
"""Seconds that a link may be down without anything being replaced."""

USED_SECONDS = 60.0

PUSH_SECONDS = 60.0
"""Until an actor that plays on has pushed a game."""


@dataclass
class Harm:
    """What was done to hosts of a run, and how long things took. Seconds since the harm."""

    run: Run
    dead: list[float] = field(default_factory=list)
    """Until Ray declared the node dead."""
    succeeded: list[float] = field(default_factory=list)
    """Until an actor that was on it had a successor with an acknowledged game."""
    left: list[float] = field(default_factory=list)
    """Until nothing ran on the host any more; of a link, since it was up again (and the raylet went on)."""
    used: list[float] = field(default_factory=list)
    """Since `ray start` on a host, until self-play on it had an acknowledged game."""
    alarms: list[int] = field(default_factory=list)
    """Processes replaced after a blip."""
    notes: list[str] = field(default_factory=list)

    def add(self, host: Host) -> None:
        """It joins."""
        run, at = self.run, time.monotonic()
        run.cluster.up(host)
        run.wait(lambda: bool(run.answers(host, at)), f"self-play on {host.name}")
        self.used.append(min(note.at for note in run.answers(host, at)) - at)
        run.sleep(RECENT)

    def _lose(self, host: Host, strike: Callable[[], None]) -> set[tuple[int, int]]:
        """Do it to that host, and wait for what comes of it; returns (actor, incarnation) of those that were on it."""
        run = self.run
        actors = {(note.id.actor, note.id.incarnation) for note in run.answers(host, time.monotonic() - RECENT)}
        strike()
        at = time.monotonic()
        run.wait(lambda: not run.cluster.alive(host), f"{host.name} dead")
        self.dead.append(run.cluster.lost(host, at))
        run.wait(lambda: run.succeeded(actors), f"successors of the actors on {host.name}")
        self.succeeded.append(time.monotonic() - at)
        return actors

    def _gone(self, host: Host, since: float) -> None:
        if host.empties(120):
            self.left.append(time.monotonic() - since)
        else:
            self.notes.append(f"still on {host.name}: {sorted({process.name() for process in host.processes()})}")

    def kill(self, host: Host, *, cut: bool) -> None:
        """kill -9 of everything on it. cut: its link goes before, so that no connection is closed: a power cut."""
        if cut:
            host.link(up=False)
        self._lose(host, host.kill)
        host.boot()

    def drain(self, host: Host) -> None:
        """SIGTERM to `ray start --block`, which has Ray drain the node."""
        at = time.monotonic()

        def strike() -> None:
            for process in host.processes("ray.scripts.scripts start"):
                process.send_signal(signal.SIGTERM)

        self._lose(host, strike)
        self._gone(host, at)

    def blip(self, host: Host) -> None:
        """Its link is down for a moment."""
        before = self.run.replaced()
        host.link(up=False)
        self.run.sleep(BLIP)
        host.link(up=True)
        at = time.monotonic()
        self.run.wait(lambda: bool(self.run.answers(host, at)), f"self-play on {host.name} after a blip")
        self.run.sleep(RECENT)
        self.alarms.append(self.run.replaced() - before)

    def partition(self, host: Host, *, pause: bool) -> None:
        """Its link is down until Ray has given it up. pause: it stands still meanwhile, as a virtual machine that is
        moved, and its actors play on first; of the raylet, which ends them, they hear when they have pushed.
        """
        run, paused = self.run, list[psutil.Process]()

        def strike() -> None:
            host.link(up=False)
            paused.extend(host.processes() if pause else ())
            for process in paused:
                process.suspend()

        actors = self._lose(host, strike)
        raylets = {process.pid for process in host.processes("raylet/raylet")}
        host.link(up=True)
        for process in paused:
            if process.pid not in raylets:
                process.resume()
        if pause and not until(lambda: run.refused(actors) > 0, PUSH_SECONDS, pause=0.3):
            self.notes.append(f"no push of a replaced actor on {host.name} in {PUSH_SECONDS:g} s")
        at = time.monotonic()
        for process in paused:
            if process.pid in raylets:
                process.resume()
        self._gone(host, at)


class Harms:
    """All that is done to one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.added, self.blips, self.cut_off, self.drained, self.killed = (Harm(run) for _ in range(5))

    def all(self, last: Host, tries: int) -> None:
        """`last` joins; then each harm, to the host that is busiest then, which joins again."""
        run = self.run
        run.wait(lambda: bool(run.answers(run.workers[0], 0.0)), f"self-play on {run.workers[0].name}", 300)
        run.sleep(RECENT)
        run.workers.append(last)
        self.added.add(last)
        for index in range(tries):
            self.blips.blip(run.busiest())
            for harm, strike in self._losses(index):
                host = run.busiest()
                strike(host)
                harm.add(host)

    def _losses(self, index: int) -> list[tuple[Harm, Callable[[Host], None]]]:
        """Ways to lose a host, another of each in each round."""
        return [
            (self.cut_off, lambda host: self.cut_off.partition(host, pause=index % 2 == 0)),
            (self.drained, self.drained.drain),
            (self.killed, lambda host: self.killed.kill(host, cut=index % 2 == 1)),
        ]


BAR = "run reaches its target; 0 acknowledged games lost or twice; 0 of a replaced actor taken"


def outcomes(harms: Harms, tries: int, problems: list[str]) -> Iterator[Outcome]:
    """Lets the run end first. problems: of the harm."""
    games, wrong = harms.run.finish()
    whole = not wrong and games.wrong == 0 and games.acknowledged > 0
    left = {"acknowledged": games.acknowledged}
    notes = [*problems, *wrong]

    def row(name: str, bar: str, done: int, met: bool, figures: Mapping[str, float], more: Sequence[str]) -> Outcome:
        bar = f"{bar}; {BAR}"
        return Outcome(name, bar, done, games.wrong, whole and met, {**figures, **left}, [*more, *notes])

    kinds = {
        "node lost: kill -9, power cut by turns": harms.killed,
        "node drained: SIGTERM to `ray start`": harms.drained,
        "link down until given up, then up": harms.cut_off,
    }
    for name, harm in kinds.items():
        figures = {
            "declared dead s (max)": largest(harm.dead),
            "successor's first game s (max)": largest(harm.succeeded),
            "joined again, used s (max)": largest(harm.used),
        }
        met = len(harm.used) == tries and not harm.notes
        bar = "its actors are replaced elsewhere"
        if harm is not harms.killed:
            figures["all gone s (max)"] = largest(harm.left)
            bar += ", nothing stays on the host"
        if harm is harms.cut_off:
            figures["pushes of replaced actors refused"] = games.refused
            met &= games.refused > 0
        yield row(name, bar, len(harm.dead), met, figures, harm.notes)
    alarms = harms.blips.alarms
    bar = "nothing is replaced"
    yield row(f"link down for {BLIP:g} s", bar, len(alarms), alarms == [0] * tries, {"replaced": sum(alarms)}, ())
    used = [seconds for harm in (harms.added, *kinds.values()) for seconds in harm.used]
    in_time = sum(seconds <= USED_SECONDS for seconds in used)
    figures = {"used s (median)": median(used), "(max)": largest(used), "in time": in_time}
    bar = f"self-play on it has an acknowledged game within {USED_SECONDS:g} s of `ray start`"
    late = [f"used after {seconds:.0f} s" for seconds in used if seconds > USED_SECONDS]
    yield row("node added", bar, len(used), in_time == len(used) == 1 + 3 * tries, figures, late)


def main(tries: int, folder: Path) -> Iterator[Outcome]:
    """In the outer namespaces."""
    make_bridge()
    first, second, third = (Host(name, number) for number, name in enumerate("abc", 1))
    cluster = Cluster(folder, first)
    cluster.start_head()
    yield tokens(cluster, third, folder)
    cluster.up(second)
    runs = folder / "runs"
    runs.mkdir()
    with cluster.train(folder / "log", runs) as program:
        harms = Harms(Run(program, runs, cluster, [second]))
        problems: list[str] = []
        try:
            harms.all(third, tries)
        except Broken as error:
            problems.append(str(error))
        yield from outcomes(harms, tries, problems)


def nodes(tries: int, folder: Path) -> Iterator[Outcome]:
    """All in one run, `tries` times each, and each time an added node."""
    yield from apart("chaos.nodes", tries, folder)


if __name__ == "__main__":
    report(main(int(sys.argv[1]), Path(sys.argv[2])))
