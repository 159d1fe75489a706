"""Workers that also write down what happened to them, so that it can be compared with what is there in the end.

They add nothing to what the program does: each calls the method that it stands for. `run.runs_dir` is where they write.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from actors.self_play import SelfPlayWorker
from learner.learner import LearnerWorker
from muzero_ray.config import Config
from muzero_ray.runtime.run_output import LearnerState
from muzero_ray.types import GameHistory, GameId

ACKNOWLEDGED = "acknowledged-{}-{}.txt"
RESTORED = "restored-{}.json"


class WitnessedSelfPlay(SelfPlayWorker):
    """Notes the id of each game when its acknowledgement is here."""

    def __init__(self, config: Config, shape: Any, actor: int, incarnation: int, *handles: Any) -> None:
        super().__init__(config, shape, actor, incarnation, *handles)
        self._sent: deque[GameId] = deque()
        self._notes = (Path(config.run.runs_dir) / ACKNOWLEDGED.format(actor, incarnation)).open("a", buffering=1)

    def _push(self, game: GameHistory) -> None:
        super()._push(game)
        self._sent.append(game.id)

    def _settle(self, pending: int) -> None:
        while len(self._pushes) > pending:
            super()._settle(len(self._pushes) - 1)
            self._notes.write(json.dumps(self._sent.popleft()) + "\n")


class WitnessedLearner(LearnerWorker):
    """Notes the hash of what it holds when it was restored."""

    def __init__(self, config: Config, shape: Any, incarnation: int, *handles: Any) -> None:
        super().__init__(config, shape, incarnation, *handles)
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


def acknowledged(folder: Path) -> set[GameId]:
    """Ids of all games that an actor was told replay has. A torn last line was not read by anybody."""
    ids: set[GameId] = set()
    for path in folder.glob(ACKNOWLEDGED.format("*", "*")):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                ids.add(GameId(*json.loads(line)))
    return ids


@contextlib.contextmanager
def witnessed() -> Iterator[None]:
    """`launch.build_program` makes these workers meanwhile."""
    with (
        mock.patch("actors.self_play.SelfPlayWorker", WitnessedSelfPlay),
        mock.patch("learner.learner.LearnerWorker", WitnessedLearner),
    ):
        yield
