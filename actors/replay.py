"""The replay buffer behind Ray."""

from __future__ import annotations

from pathlib import Path

from muzero_ray.actors.process import Service, hide_gpus, restarted_by_ray
from muzero_ray.config.schema import Config
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.replay.buffer import Draw, ReplayBuffer
from muzero_ray.replay.build import build_buffer
from muzero_ray.replay.encoding import decode_game
from muzero_ray.replay.metrics import replay_metrics
from muzero_ray.replay.stored_game import StaleGame
from muzero_ray.runs.replay_archive import ReplayArchive, shard_folder
from muzero_ray.types import Batch, FloatArray, GameId, ItemKeys, WeightsVersion


class ReplayWorker(Service):
    """Shell of `ReplayBuffer`, a shard of the replay; holds no handle. What to store or draw is the buffer's business.

    The supervisor hands out budgets so that no caller ever has to wait in here. Ray restarts it under the same handle,
    and sends again what was not answered: it comes back with every game it ever acknowledged, before it takes a call.
    """

    def __init__(self, config: Config, task: TaskSpec, shard: int, folder: Path) -> None:
        super().__init__()
        hide_gpus()
        self._buffer: ReplayBuffer = build_buffer(config, task, shard)
        self._archive = ReplayArchive(shard_folder(folder, shard))
        self._incarnations: dict[int, int] = {}
        self._recovered = False
        if restarted_by_ray():
            self.recover()

    def add(self, encoded: bytes) -> bool:
        """Store the game that `encode_game` made `encoded` of, on disk too before this returns.

        False, and nothing done, if that id is here already, or if its actor was replaced since (a zombie's game).
        """
        game = decode_game(encoded)
        return self._is_current(game.id) and self._archive.add(self._buffer, game, encoded)

    def _is_current(self, game_id: GameId) -> bool:
        """Whether no later incarnation of that actor was seen."""
        newest = self._incarnations.get(game_id.actor, 0)
        self._incarnations[game_id.actor] = max(newest, game_id.incarnation)
        return game_id.incarnation >= newest

    def draw(self, batch_size: int, beta: float) -> Draw:
        return self._buffer.draw(batch_size, beta)

    def draw_held_out(self, batch_size: int) -> Batch | None:
        return self._buffer.draw_held_out(batch_size)

    def mass(self) -> float:
        return self._buffer.mass

    def update_priorities(self, keys: ItemKeys, priorities: FloatArray) -> float:
        """Returns the `mass` after it."""
        self._buffer.update_priorities(keys, priorities)
        return self._buffer.mass

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
        """Note where `recover` goes on from; returns the checkpoint's replay files."""
        return self._archive.save(self._buffer)

    def recover(self) -> int:
        """Take up, once, all that the processes before this one had acknowledged; returns the number of games."""
        if not self._recovered:
            self._archive.recover(self._buffer)
            self._recovered = True
            for game_id in self._buffer.game_ids():
                self._is_current(game_id)
        return self._buffer.games

    def load(self, files: dict[str, bytes]) -> int:
        """Inverse of `save`; returns the number of games."""
        self._archive.load(self._buffer, files)
        return self._buffer.games
