"""A worker that does nothing but die, hang, wait and answer.

In a module of its own: each of its many processes imports what stands here, and torch alone would cost it two seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import ray
from ray.actor import ActorHandle

from muzero_ray.actors.calls import call
from muzero_ray.errors import CheckpointError, NumericsError, PeerLost
from tests.patience import PATIENCE


class Worker:
    """Does as it is told."""

    def __init__(self, incarnation: int = 0, broken: bool = False) -> None:
        if broken:
            raise KeyError("no such game")
        self.incarnation = incarnation

    def work(self) -> int:
        return self.incarnation

    def die(self) -> None:
        os._exit(1)

    def hang(self) -> None:
        time.sleep(600)

    def diverge(self) -> None:
        raise NumericsError("the weights are not finite")

    def lose_peer(self) -> None:
        raise PeerLost("a worker of the learner is gone")

    def refuse(self) -> None:
        raise CheckpointError("the disk is full")

    def ask(self, other: ActorHandle[Worker], method: Callable[[Worker], object]) -> object:
        return ray.get(call(other, method), timeout=1 if method == Worker.hang else PATIENCE)
