"""Replay and the parameter server: each gets what it should hold, and is asked whether it is still the same process."""

from __future__ import annotations

from typing import Any

from muzero_ray.actors.parameter_server import ParameterServer
from muzero_ray.actors.process import Service
from muzero_ray.actors.replay import ReplayWorker
from muzero_ray.actors.worker_handle import WorkerHandle
from muzero_ray.actors.workers import Workers
from muzero_ray.runs.output import RunOutput
from muzero_ray.runs.replay_archive import split_shards

PING_SECONDS = 2.0
"""Between two questions to a worker whether it is still there."""


class Services:
    """The two that Ray restarts. replay_files, recover: as of `Supervisor`."""

    def __init__(
        self,
        workers: Workers,
        output: RunOutput,
        replay_files: dict[str, bytes] | None,
        *,
        recover: bool,
    ) -> None:
        self._workers = workers
        self._output = output
        self.replays: list[WorkerHandle[ReplayWorker]] = workers.of("replay")
        self.params: WorkerHandle[ParameterServer] = workers.one("params")
        self._all: list[WorkerHandle[Any]] = [*self.replays, self.params]
        self._to_load: dict[int, dict[str, bytes] | None] = {}
        """What shards of replay have still to be given: their files of the checkpoint; None if they recover."""
        if recover:
            self._to_load = dict.fromkeys(range(len(self.replays)))
        elif replay_files is not None:
            self._to_load = dict(enumerate(split_shards(replay_files, len(self.replays))))

    @property
    def are_loaded(self) -> bool:
        """Replay holds what it was to begin with, and perhaps more."""
        return not self._to_load

    @property
    def are_ready(self) -> bool:
        return self.are_loaded and all(worker.ready is None for worker in self._all)

    def tend(self, now: float) -> None:
        """Give shards what they should hold; ask all, every so often, whether they are still who they were."""
        for worker in self.replays:
            if worker.index in self._to_load and worker.is_free(now):
                if (files := self._to_load[worker.index]) is None:
                    worker.send(ReplayWorker.recover)
                else:
                    worker.send(ReplayWorker.load, files)
        for service in self._all:
            if service.is_free(now) and (service.identity is None or now - service.started > PING_SECONDS):
                service.send(Service.identity)

    def take(self, worker: WorkerHandle[Any], result: Any) -> bool:
        """An answer of one of them. Returns whether it shows that the parameter server holds no weights."""
        if worker.method is not Service.identity:
            del self._to_load[worker.index]  # it has them
            return False
        before, worker.identity = worker.identity, result
        if result == before:
            return False
        # Ray has restarted it since it answered last: replay has read itself back, weights are gone.
        if before is not None:
            worker.restarts += 1
            self._workers.count_failure(worker, "its process died")
            self._output.message(f"{worker.name} was lost and is back")
        return worker is self.params
