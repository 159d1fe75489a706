"""Whether a row of metrics, or a checkpoint, costs replay more CPU time with many games than with few."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.measure import Effort, Row, make_row, take_turns
from muzero_ray.config.files import load_preset
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.replay.build import build_buffer
from muzero_ray.replay.encoding import encode_game
from muzero_ray.replay.metrics import replay_metrics
from muzero_ray.runs.replay_archive import ARRAYS_FILE, ReplayArchive
from muzero_ray.types import GameHistory, GameId

BATCH = 256
"""Positions of held-out games drawn for a row of metrics."""


class FullReplay:
    """A full replay of `games` games, all copies of `game`, that are also on disk in `folder`."""

    def __init__(self, game: GameHistory, games: int, folder: Path) -> None:
        config = load_preset("cartpole").to_dict()
        size = games * game.owned
        config["replay"] |= {"capacity": size, "min_size": min(size, 128), "capacity_bytes": 1 << 40, "holdout": 0.05}
        checked = Config.model_validate(config)
        self.games = games
        self._buffer, self._archive = build_buffer(checked, probe(checked)), ReplayArchive(folder)
        encoded = encode_game(game)  # under another id than those below, but it is never read
        for seq in range(games + 1):
            self._archive.add(self._buffer, replace(game, id=GameId(0, 0, seq)), encoded)
        self._arrays = self._archive.save(self._buffer)[ARRAYS_FILE]

    def trial(self, seconds: float) -> dict[str, float]:
        """CPU ms of what a row of metrics needs, of a save for a checkpoint, and of copying the saved arrays."""

        def row() -> None:
            replay_metrics(self._buffer, 1)
            self._buffer.draw_held_out(BATCH)

        calls: dict[str, Callable[[], object]] = {
            "row": row,
            "save": lambda: self._archive.save(self._buffer),
            "copy": lambda: bytearray(self._arrays),
        }
        return {f"{name} {self.games}": cpu_milliseconds(call, seconds) for name, call in calls.items()}


def cpu_milliseconds(call: Callable[[], object], seconds: float) -> float:
    """Mean CPU ms of `call`, which is repeated until it has used so many seconds of CPU time."""
    calls, begin = 0, time.process_time()
    while (used := time.process_time() - begin) < seconds:
        call()
        calls += 1
    return 1e3 * used / calls


def replay_growth(game: GameHistory, effort: Effort) -> Iterator[Row]:
    """Rows that compare the largest of `effort.replay_sizes` with the smallest, in games like `game`."""
    few, many = (size // game.owned for size in (effort.replay_sizes[0], effort.replay_sizes[-1]))
    with tempfile.TemporaryDirectory() as folder:
        replays = [FullReplay(game, games, Path(folder, str(games))) for games in (few, many)]
        samples = take_turns([partial(one.trial, effort.seconds) for one in replays], effort.repeats)
    yield make_row(f"replay/row/{many}-games", "CPU ms", samples, f"row {many}", f"row {few}", f"the same at {few}")
    name = f"replay/save/{many}-games"
    yield make_row(name, "CPU ms", samples, f"save {many}", f"copy {many}", "a copy of its arrays")
    samples["per game few"] = [1e3 * value / few for value in samples[f"save {few}"]]
    samples["per game many"] = [1e3 * value / many for value in samples[f"save {many}"]]
    name = f"replay/save-per-game/{many}-games"
    yield make_row(name, "CPU us", samples, "per game many", "per game few", f"the same at {few}")
