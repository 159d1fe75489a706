"""The replay buffer behind Ray."""

from __future__ import annotations

from pathlib import Path

from muzero_ray.config import Config
from muzero_ray.replay.buffer import ReplayBuffer, StaleGame
from muzero_ray.runtime.build import TaskShape, build_buffer
from muzero_ray.runtime.replay_archive import ReplayArchive
from muzero_ray.runtime.run_book import replay_metrics
from muzero_ray.types import Batch, FloatArray, GameHistory, ItemKeys, WeightsVersion


class ReplayWorker:
    """Shell of `ReplayBuffer`; holds no handle. What to store or draw is the buffer's business.

    The supervisor hands out budgets so that no caller ever has to wait in here.
    """

    def __init__(self, config: Config, shape: TaskShape, archive: Path) -> None:
        self._buffer: ReplayBuffer = build_buffer(config, shape)
        self._archive = ReplayArchive(archive)

    def add(self, game: GameHistory) -> bool:
        """Store a copy; False if that id is here already."""
        added = self._buffer.add(game)
        if added:
            self._archive.record(game)
        return added

    def sample(self, batch_size: int, beta: float) -> Batch:
        return self._buffer.sample(batch_size, beta)

    def update_priorities(self, keys: ItemKeys, priorities: FloatArray) -> None:
        self._buffer.update_priorities(keys, priorities)

    def stale_games(self, count: int) -> list[StaleGame]:
        return self._buffer.stale_games(count)

    def replace_targets(
        self, game: int, policies: FloatArray, root_values: FloatArray, version: WeightsVersion
    ) -> None:
        self._buffer.replace_targets(game, policies, root_values, version)

    def metrics(self, learner_step: int) -> dict[str, float]:
        """The `replay/` group of a metrics row."""
        return replay_metrics(self._buffer, learner_step)

    def save(self) -> dict[str, bytes]:
        """Write new games to disk; returns the checkpoint's replay files."""
        return self._archive.save(self._buffer)

    def load(self, files: dict[str, bytes]) -> int:
        """Inverse of `save`; returns the number of games."""
        self._archive.load(self._buffer, files)
        return self._buffer.games
