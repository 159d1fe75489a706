"""What is asked of replay for a row of metrics or a checkpoint does not visit every game. Instructions are counted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.replay.encoding import encode_game
from muzero_ray.replay.fifo_table import FifoTable
from muzero_ray.replay.metrics import replay_metrics
from muzero_ray.runs.checkpoint import save_checkpoint
from muzero_ray.runs.replay_archive import GAMES_PER_CHUNK, ReplayArchive, prune_chunks
from muzero_ray.types import GameId, WeightsVersion
from tests.replay.games import ACTIONS, make_buffer, make_game

STEPS = 4
FEW, MANY = 200, 1_600


def instructions(call: Callable[[], object]) -> int:
    """Bytecode instructions that Python runs for it."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def filled(games: int, folder: Path) -> tuple[ReplayBuffer, ReplayArchive]:
    """Full, so that the ring has come round; every tenth game is held out."""
    buffer, archive = make_buffer(capacity=games * STEPS, holdout=0.1), ReplayArchive(folder / "replay")
    game = make_game(np.random.default_rng(0), STEPS)
    encoded = encode_game(game)
    for seq in range(games + 64):
        assert archive.add(buffer, replace(game, id=GameId(0, 0, seq)), encoded)
    assert buffer.games == games
    for step in range(2):
        save_checkpoint(
            folder / "checkpoints", step, model={}, optimizer={}, state={}, extra_files=archive.save(buffer)
        )
    return buffer, archive


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[ReplayBuffer, ReplayArchive, Path]]:
    folders = [tmp_path_factory.mktemp(str(games)) for games in (FEW, MANY)]
    return [(*filled(games, folder), folder) for games, folder in zip((FEW, MANY), folders, strict=True)]


ASKED: dict[str, Callable[[ReplayBuffer, ReplayArchive, Path], object]] = {
    "metrics": lambda buffer, *_: replay_metrics(buffer, 100),
    "held out": lambda buffer, *_: buffer.draw_held_out(32),
    "state": lambda buffer, *_: buffer.state(),
    "save": lambda buffer, archive, _: archive.save(buffer),
    "prune": lambda _, __, folder: prune_chunks(folder / "replay", folder / "checkpoints"),
}


@pytest.mark.parametrize("name", ASKED)
def test_no_game_is_visited(name: str, sizes: list[tuple[ReplayBuffer, ReplayArchive, Path]]) -> None:
    """Listing chunks takes some 110 instructions for each 64 games. Visits to the games would take 500 and more."""
    for size in sizes:
        ASKED[name](*size)  # what is done once only
    few, many = (instructions(lambda size=size: ASKED[name](*size)) for size in sizes)  # type: ignore[misc]
    assert many - few < 150 * (MANY - FEW) / GAMES_PER_CHUNK


def test_the_sums_are_those_of_the_games() -> None:
    """After games have left, were searched again, and were read back."""
    rng = np.random.default_rng(2)
    buffer = make_buffer(capacity=150, holdout=0.2)
    for seq in range(60):
        game = make_game(rng, int(rng.integers(2, 9)), seq=seq, step=seq // 4)
        buffer.add(game)
        for stale in buffer.stale_games(1 if seq % 3 else 0):
            positions = len(stale.observations)
            policies = rng.dirichlet(np.ones(ACTIONS), positions).astype(np.float32)
            values = rng.normal(size=positions).astype(np.float32)
            assert buffer.replace_targets(stale.game, policies, values, WeightsVersion(0, seq // 2))
        if seq % 20 == 19:
            restored = make_buffer(capacity=150, holdout=0.2, seed=1)
            arrays, meta = buffer.state()
            games = [_as_played(buffer, number) for number in buffer.game_numbers]
            restored.load_state(arrays, meta, games)
            _check_sums(restored)
        _check_sums(buffer)


def _as_played(buffer: ReplayBuffer, number: int) -> Any:
    """A game of the right size under the right id: what it holds does not matter here."""
    game = buffer._store.games[number]
    return replace(make_game(np.random.default_rng(number), len(game)), id=game.id, version=game.version)


def _check_sums(buffer: ReplayBuffer) -> None:
    games = list(buffer._store.games.values())
    total = sum(game.owned * (100 - game.target_version.step) for game in games)
    assert buffer.target_age(100) == total / buffer.size
    index = buffer.state()[0]["index"]
    assert index.tolist() == [[*g.id, *g.target_version, g.first_leaf, int(g.reanalyzed)] for g in games]
    held_out = {n for n, g in buffer._store.games.items() if buffer._tree.get(buffer._store.leaves(g)).max() == 0.0}
    batch = buffer.draw_held_out(400)
    assert (set(batch.keys.game.tolist()) if batch is not None else set()) == held_out


def test_a_table_is_a_queue() -> None:
    rng = np.random.default_rng(0)
    table, expected = FifoTable(2), list[list[int]]()
    for value in range(3_000):
        if expected and rng.random() < 0.49:
            table.drop_first()
            expected.pop(0)
        else:
            table.append((value, -value))
            expected.append([value, -value])
        if value % 50 == 0:
            assert table.columns.T.tolist() == expected
            assert len(table) == len(expected)
    assert table._data.shape[1] <= 4 * max(len(expected), 64)
