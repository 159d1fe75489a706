"""Workers that also write down what happened to them, so that it can be compared with what is there in the end.

They add nothing to what the program does: each calls the method that it stands for. `run.runs_dir` is where they write.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from muzero_ray.actors.replay import ReplayWorker
from muzero_ray.actors.self_play import SelfPlayWorker
from muzero_ray.config.schema import Config
from muzero_ray.learner.learner import LearnerWorker
from muzero_ray.replay.encoding import decode_game
from muzero_ray.training.results import LearnerState
from muzero_ray.types import GameHistory, GameId

ACKNOWLEDGED = "acknowledged-{}-{}.txt"
REFUSED = "refused-{}.txt"
RESTORED = "restored-{}.json"

TARGET = "target"
"""A file beside these that says when the run shall end (`witnessed_launch`)."""


class Note(NamedTuple):
    """A game that replay acknowledged. host: where its actor is. at: monotonic time, the same on one machine."""

    id: GameId
    host: str
    at: float


class WitnessedSelfPlay(SelfPlayWorker):
    """Notes the id of each game when its acknowledgement is here."""

    def __init__(self, config: Config, task: Any, actor: int, incarnation: int, *handles: Any) -> None:
        super().__init__(config, task, actor, incarnation, *handles)
        self._sent: deque[GameId] = deque()
        self._notes = (Path(config.run.runs_dir) / ACKNOWLEDGED.format(actor, incarnation)).open("a", buffering=1)

    def _push(self, game: GameHistory) -> None:
        super()._push(game)
        self._sent.append(game.id)

    def _settle(self, pending: int) -> None:
        while len(self._pushes) > pending:
            super()._settle(len(self._pushes) - 1)
            note = Note(self._sent.popleft(), socket.gethostname(), time.monotonic())
            self._notes.write(json.dumps(note) + "\n")


class WitnessedReplay(ReplayWorker):
    """Notes the id of each game that it does not take: whoever sent it may not be there for the answer."""

    def __init__(self, config: Config, task: Any, shard: int, folder: Path) -> None:
        super().__init__(config, task, shard, folder)
        self._notes = (Path(config.run.runs_dir) / REFUSED.format(shard)).open("a", buffering=1)

    def add(self, encoded: bytes) -> bool:
        taken = super().add(encoded)
        if not taken:
            self._notes.write(json.dumps(decode_game(encoded).id) + "\n")
        return taken


class WitnessedLearner(LearnerWorker):
    """Notes the hash of what it holds when it was restored."""

    def __init__(self, config: Config, task: Any, incarnation: int, *handles: Any) -> None:
        super().__init__(config, task, incarnation, *handles)
        self._notes = Path(config.run.runs_dir) / RESTORED.format(incarnation)

    def load(self, state: LearnerState) -> int:
        step = super().load(state)
        self._notes.write_text(json.dumps([step, digest(self.save())]))
        return step


def digest(state: LearnerState) -> str:
    """SHA-256 over every array (name, type, shape, bytes) and number of a learner's state."""
    arrays, info = state
    hashed = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        hashed.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return hashed.hexdigest()


def _lines(folder: Path, pattern: str) -> Iterator[Any]:
    """What was noted, each file in its order. A torn last line was not read by anybody."""
    for path in sorted(folder.glob(pattern)):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def notes(folder: Path) -> list[Note]:
    """The notes of all actors."""
    return [Note(GameId(*game), *rest) for game, *rest in _lines(folder, ACKNOWLEDGED.format("*", "*"))]


def acknowledged(folder: Path) -> set[GameId]:
    """Ids of all games that an actor was told replay has."""
    return {note.id for note in notes(folder)}


def refused(folder: Path) -> list[GameId]:
    """Ids of the games that replay did not take: it had them already, or their actors were replaced."""
    return [GameId(*game) for game in _lines(folder, REFUSED.format("*"))]


@contextlib.contextmanager
def witnessed() -> Iterator[None]:
    """`launch.build_program` makes these workers meanwhile."""
    with (
        mock.patch("muzero_ray.actors.self_play.SelfPlayWorker", WitnessedSelfPlay),
        mock.patch("muzero_ray.actors.replay.ReplayWorker", WitnessedReplay),
        mock.patch("muzero_ray.learner.learner.LearnerWorker", WitnessedLearner),
    ):
        yield
