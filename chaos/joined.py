"""A run on a cluster of hosts, as its witnesses, messages and checkpoints show it from outside."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import safetensors.numpy

from chaos.cluster import Cluster
from chaos.hosts import Host
from chaos.jobs import Broken
from chaos.programs import Program, until
from chaos.witness import TARGET, Note, acknowledged, notes, refused
from muzero_ray.errors import CheckpointError
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.replay_archive import ARRAYS_FILE, INDEX_FILE
from muzero_ray.types import GameId

RECENT = 15.0
"""An actor of which a game was acknowledged in so many seconds plays."""

LAST_STEPS = 400
"""The run ends so many learner steps after the harm."""


@dataclass(frozen=True)
class Games:
    """What actors were told, and what the last checkpoint holds. lost: acknowledged, and not there. twice: there more
    than once. late: taken from an actor whose successor had a game there already. refused: of such an actor, not taken.
    """

    acknowledged: int
    lost: int
    twice: int
    late: int
    refused: int

    @property
    def wrong(self) -> int:
        return self.lost + self.twice + self.late


def compare(told: set[GameId], declined: Iterable[GameId], there: list[GameId], arrived: list[GameId]) -> Games:
    """told: ids that actors got answers to. declined: that replay did not take. there: in replay, and arrived: as they
    came in.
    """
    newest: Counter[int] = Counter()
    late = 0
    for game in arrived:
        late += game.incarnation < newest[game.actor]
        newest[game.actor] = max(newest[game.actor], game.incarnation)
    held = set(there)
    refused = {game for game in declined if game.incarnation < newest[game.actor]} - held
    twice = len(there) - len(held) + len(arrived) - len(set(arrived))
    return Games(len(told), len(told - held - refused), twice, late, len(refused))


@dataclass
class WitnessedRun:
    """A `launch.py train` with witnesses (`chaos.witnessed_launch`), on whatever Ray."""

    program: Program
    runs: Path

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 300.0) -> float:
        """Until it holds; returns how long that took. Broken if it never does, or the run ends before."""
        begin = time.monotonic()
        if not until(lambda: condition() or self.program.code is not None, seconds, pause=0.3):
            raise Broken(f"{what}: not within {seconds:g} s")
        if self.program.code is not None:
            raise Broken(f"the run ended with {self.program.code} before: {what}. {self.program.error()[:300]}")
        return time.monotonic() - begin

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end, "time", 2 * seconds)

    def finish(self) -> tuple[Games, list[str]]:
        """Let it go on to a target; what it left, and what was wrong with its end."""
        rows = (self.runs / "run" / "metrics.jsonl").read_text().splitlines()
        target = json.loads(rows[-1])["learner_steps"] + LAST_STEPS
        draft = self.runs / f"{TARGET}.tmp"
        draft.write_text(str(target))
        draft.rename(self.runs / TARGET)
        code = self.program.wait(300)
        problems = [] if code == 0 else [f"the run ended with {code}: {self.program.error()[:300]}"]
        try:
            checkpoint = load_checkpoint(self.runs / "run")
        except CheckpointError as error:
            return Games(0, 0, 0, 0, 0), [*problems, str(error)]
        if checkpoint.step < target:
            problems.append(f"the last checkpoint is of step {checkpoint.step}, the target was {target}")
        index = safetensors.numpy.load(checkpoint.files[ARRAYS_FILE])["index"]
        there = [GameId(*row) for row in index[:, :3].tolist()]
        chunks = json.loads(checkpoint.files[INDEX_FILE])["chunks"]
        arrived = [GameId(*one) for chunk in chunks for one in chunk["ids"]]
        return compare(acknowledged(self.runs), refused(self.runs), there, arrived), problems


@dataclass
class Run(WitnessedRun):
    """workers: the hosts that joined the head."""

    cluster: Cluster
    workers: list[Host]

    def answers(self, host: Host, since: float) -> list[Note]:
        """The games of its actors that were acknowledged after that moment."""
        return [note for note in notes(self.runs) if note.host == host.name and note.at > since]

    def busiest(self) -> Host:
        """Which of those that joined has most actors that play."""
        since = time.monotonic() - RECENT
        return max(self.workers, key=lambda host: len({note.id.actor for note in self.answers(host, since)}))

    def replaced(self) -> int:
        """How many processes the run has said that it lost."""
        return self.program.printed().count(" lost (")

    def refused(self, actors: set[tuple[int, int]]) -> int:
        """How many games of these (actor, incarnation) replay did not take."""
        return sum((game.actor, game.incarnation) in actors for game in refused(self.runs))

    def succeeded(self, actors: set[tuple[int, int]]) -> bool:
        """Whether a later incarnation of one of these (actor, incarnation) has an acknowledged game."""
        newest: Counter[int] = Counter()
        for note in notes(self.runs):
            newest[note.id.actor] = max(newest[note.id.actor], note.id.incarnation)
        return any(newest[actor] > incarnation for actor, incarnation in actors)
