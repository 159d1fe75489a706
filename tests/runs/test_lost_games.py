"""A run whose replay lost chunks: what is said, and what it goes on with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from muzero_ray.config.schema import Config
from muzero_ray.errors import CheckpointError
from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.runs.checkpoint import Checkpoint
from muzero_ray.runs.lost_games import check_games
from muzero_ray.runs.replay_archive import (
    ARRAYS_FILE,
    GAMES_PER_CHUNK,
    INDEX_FILE,
    ReplayArchive,
    join_shards,
    shard_folder,
)
from muzero_ray.types import WeightsVersion
from tests.replay.games import ACTIONS, make_buffer, make_game
from tests.small_runs import small_config

REMEDY = "Run this with that option"
MIN_SIZE = 300


@pytest.fixture
def config() -> Config:
    return small_config(replay={"min_size": MIN_SIZE, "capacity": 2_000})


def fill(buffer: ReplayBuffer, archive: ReplayArchive, games: int, rng: np.random.Generator) -> None:
    """Games of 3 to 9 steps, more than replay holds: the ring has come round. A third of them is searched again."""
    for seq in range(games):
        assert archive.add(buffer, make_game(rng, int(rng.integers(3, 10)), seq=seq, frame=(1, 4, 4), dtype=np.uint8))
    keys = buffer.sample(200, 0.4).keys
    buffer.update_priorities(keys, rng.uniform(0.0, 3.0, 200).astype(np.float32))
    for stale in buffer.stale_games(buffer.games // 3):
        steps = len(stale.observations)
        policies, values = rng.dirichlet(np.ones(ACTIONS), steps), rng.normal(size=steps)
        assert buffer.replace_targets(
            stale.game, policies.astype(np.float32), values.astype(np.float32), WeightsVersion(0, 7)
        )


def as_checkpoint(files: dict[str, bytes], inserted: int = 5_000) -> Checkpoint:
    state = {"book": {"limiter": {"inserted": inserted, "sampled": 8_000}}}
    return Checkpoint(Path("checkpoints/5"), 5, None, {}, {}, state, files)


def contents(buffer: ReplayBuffer) -> dict[tuple[int, ...], tuple[Any, ...]]:
    """By id: rows, frames, the version of the targets, and the priorities."""
    return {
        tuple(game.id): (
            game.data,
            game.target_version,
            game.reanalyzed,
            buffer._tree.get(buffer._store.leaves(game)).tolist(),
        )
        for game in buffer._store.games.values()
    }


def chunk(folder: Path, files: dict[str, bytes], number: int) -> tuple[Path, set[tuple[int, ...]]]:
    """A chunk that the index names, and the ids of its games."""
    entry = json.loads(files[INDEX_FILE])["chunks"][number]
    return folder / entry["name"], {tuple(one) for one in entry["ids"]}


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "gone": lambda path: path.unlink(),
    "cut": cut,
    "flipped": flip,
    "pipe": pipe,
    "endless": endless,
    "1 TB": lambda path: os.truncate(path, 1 << 40),
}


@pytest.mark.parametrize(
    ("kind", "lost"), [*((kind, [1]) for kind in DAMAGE), *(("gone", lost) for lost in ([0], [2, 3], [-1], [0, 2, -1]))]
)
def test_a_run_goes_on_without_lost_games_if_told_to(
    kind: str, lost: list[int], config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(3)
    buffer, archive = make_buffer(capacity=2_000), ReplayArchive(tmp_path)
    fill(buffer, archive, 6 * GAMES_PER_CHUNK + 20, rng)
    files = archive.save(buffer)
    assert buffer.games < 6 * GAMES_PER_CHUNK
    before = contents(buffer)
    gone: set[tuple[int, ...]] = set()
    for number in lost:
        path, ids = chunk(tmp_path, files, number)
        DAMAGE[kind](path)
        gone |= ids & before.keys()
    checkpoint = as_checkpoint(files)
    transitions = sum(len(before[one][3]) for one in gone)
    more = f" (and {len(lost) - 1} more replay chunks)" if len(lost) > 1 else ""
    first = min(chunk(tmp_path, files, number)[0].name for number in lost)
    with pytest.raises(CheckpointError) as caught:
        check_games(checkpoint, tmp_path, config, go_on=False, remedy=REMEDY)
    message = str(caught.value)
    assert str(tmp_path / first) in message
    assert f"{more}. {len(gone)} games with {transitions} of {buffer.size} transitions of replay are lost" in message
    assert message.endswith(REMEDY)
    # Nothing was changed by asking, and what goes on is the replay without those games.
    reduced = check_games(checkpoint, tmp_path, config, go_on=True, remedy=REMEDY)
    assert checkpoint.files == files
    assert "The run goes on without them" in caplog.text
    restored, again = make_buffer(capacity=2_000, seed=9), ReplayArchive(tmp_path)
    again.load(restored, reduced.files)
    assert contents(restored) == {one: value for one, value in before.items() if one not in gone}
    assert restored.size == buffer.size - transitions
    assert restored.sample(64, 0.5).weights.shape == (64,)
    for one in gone:
        assert not restored.add(make_game(rng, 5, seq=one[2], frame=(1, 4, 4), dtype=np.uint8))
    # It can be saved and loaded as any other.
    last = make_buffer(capacity=2_000)
    saved = again.save(restored)
    ReplayArchive(tmp_path).load(last, saved)
    assert contents(last) == contents(restored)
    assert check_games(as_checkpoint(saved), tmp_path, config, go_on=False, remedy=REMEDY).files == saved


def test_the_learner_waits_until_replay_is_as_large_as_at_the_start(config: Config, tmp_path: Path) -> None:
    buffer, archive = make_buffer(capacity=2_000), ReplayArchive(tmp_path)
    fill(buffer, archive, GAMES_PER_CHUNK, np.random.default_rng(0))
    files, size = archive.save(buffer), buffer.size
    assert size > MIN_SIZE
    chunk(tmp_path, files, 0)[0].unlink()
    reduced = check_games(as_checkpoint(files), tmp_path, config, go_on=True, remedy=REMEDY)
    assert reduced.state["book"]["limiter"] == {"inserted": 5_000 - MIN_SIZE, "sampled": 8_000}
    restored = make_buffer(capacity=2_000)
    ReplayArchive(tmp_path).load(restored, reduced.files)
    assert (restored.games, restored.size) == (0, 0)
    assert restored.add(make_game(np.random.default_rng(0), 5, seq=10_000, frame=(1, 4, 4), dtype=np.uint8))
    # In the warm-up the learner has waited for exactly those.
    early = check_games(as_checkpoint(files, inserted=size), tmp_path, config, go_on=True, remedy=REMEDY)
    assert early.state["book"]["limiter"]["inserted"] == size - MIN_SIZE


def test_each_shard_loses_its_own(config: Config, tmp_path: Path) -> None:
    buffers = [make_buffer(capacity=2_000, seed=shard) for shard in range(2)]
    archives = [ReplayArchive(shard_folder(tmp_path, shard)) for shard in range(2)]
    for shard in range(2):
        fill(buffers[shard], archives[shard], 2 * GAMES_PER_CHUNK, np.random.default_rng(shard))
    files = join_shards([archive.save(buffer) for archive, buffer in zip(archives, buffers, strict=True)])
    shard_files = {INDEX_FILE: files[f"shard-1.{INDEX_FILE}"]}
    path, ids = chunk(shard_folder(tmp_path, 1), shard_files, 0)
    path.unlink()
    config = config.overridden(replay=config.replay.model_copy(update={"shards": 2}))
    reduced = check_games(as_checkpoint(files), tmp_path, config, go_on=True, remedy=REMEDY)
    for name in (INDEX_FILE, ARRAYS_FILE):
        assert reduced.files[name] == files[name]
    restored = make_buffer(capacity=2_000)
    part = {name: reduced.files[f"shard-1.{name}"] for name in (INDEX_FILE, ARRAYS_FILE)}
    ReplayArchive(shard_folder(tmp_path, 1)).load(restored, part)
    assert contents(restored) == {one: value for one, value in contents(buffers[1]).items() if one not in ids}


def test_of_an_older_program_the_targets_are_those_that_games_came_in_with(config: Config, tmp_path: Path) -> None:
    """It did not say how long its games are."""
    rng = np.random.default_rng(3)
    buffer, archive = make_buffer(capacity=2_000), ReplayArchive(tmp_path)
    fill(buffer, archive, 3 * GAMES_PER_CHUNK, rng)
    files = archive.save(buffer)
    arrays = safetensors.numpy.load(files[ARRAYS_FILE])
    del arrays["lengths"]
    old = {**files, ARRAYS_FILE: safetensors.numpy.save(arrays)}
    whole = make_buffer(capacity=2_000)
    ReplayArchive(tmp_path).load(whole, old)
    assert contents(whole) == contents(buffer)
    path, ids = chunk(tmp_path, files, 1)
    path.unlink()
    reduced = check_games(as_checkpoint(old), tmp_path, config, go_on=True, remedy=REMEDY)
    restored = make_buffer(capacity=2_000)
    ReplayArchive(tmp_path).load(restored, reduced.files)
    found = contents(restored)
    assert found.keys() == contents(buffer).keys() - ids
    assert not any(game.reanalyzed for game in restored._store.games.values())
    for one, (data, version, reanalyzed, priorities) in contents(buffer).items():
        if one in found:
            assert found[one][3] == priorities
            assert reanalyzed or found[one][:2] == (data, version)


@pytest.mark.parametrize("name", [INDEX_FILE, ARRAYS_FILE])
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"chunks": 5}', b'{"chunks": [{"ids": 3}]}', b"\0" * 99])
def test_forged_files_are_refused(name: str, content: bytes, config: Config, tmp_path: Path) -> None:
    buffer, archive = make_buffer(capacity=2_000), ReplayArchive(tmp_path)
    fill(buffer, archive, GAMES_PER_CHUNK, np.random.default_rng(0))
    files = archive.save(buffer)
    chunk(tmp_path, files, 0)[0].unlink()
    with pytest.raises(CheckpointError):
        check_games(as_checkpoint({**files, name: content}), tmp_path, config, go_on=True, remedy=REMEDY)
