"""Replay on disk: a buffer comes back exactly, from chunks that are written once and deleted when nobody needs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from muzero_ray.errors import CheckpointError
from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.runtime.checkpoint import save_checkpoint
from muzero_ray.runtime.replay_archive import ARRAYS_FILE, GAMES_PER_CHUNK, INDEX_FILE, ReplayArchive, prune_chunks
from muzero_ray.types import ItemKeys, WeightsVersion
from tests.replay.games import ACTIONS, make_buffer, make_game


def fill(buffer: ReplayBuffer, archive: ReplayArchive, games: int, rng: np.random.Generator, first: int = 0) -> None:
    """Add games of 5 steps, as the runners do."""
    for seq in range(first, first + games):
        game = make_game(rng, 5, seq=seq, frame=(1, 4, 4), dtype=np.uint8)
        assert buffer.add(game)
        archive.record(game)


def assert_equal(one: ReplayBuffer, other: ReplayBuffer) -> None:
    """In everything that is kept, and in what they draw next."""
    (arrays, meta), (other_arrays, other_meta) = one.state(), other.state()
    assert meta == other_meta
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], other_arrays[name], err_msg=name)
    draw, other_draw = one.sample(16, 0.5), other.sample(16, 0.5)
    np.testing.assert_array_equal(draw.keys.game, other_draw.keys.game)
    np.testing.assert_array_equal(draw.observations, other_draw.observations)
    np.testing.assert_array_equal(draw.target_value, other_draw.target_value)
    np.testing.assert_array_equal(draw.weights, other_draw.weights)


def chunks(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_saved_buffer_comes_back_exactly(tmp_path: Path) -> None:
    """After eviction, new priorities and reanalyzed targets, over several saves."""
    rng = np.random.default_rng(0)
    buffer, archive = make_buffer(capacity=200), ReplayArchive(tmp_path)
    files: dict[str, bytes] = {}
    for part in range(3):
        fill(buffer, archive, 25, rng, first=25 * part)
        keys = buffer.sample(32, 0.4).keys
        buffer.update_priorities(keys, rng.uniform(0.0, 3.0, 32).astype(np.float32))
        for stale in buffer.stale_games(4):
            policies = rng.dirichlet(np.ones(ACTIONS), 5).astype(np.float32)
            values = rng.normal(size=len(stale.observations)).astype(np.float32)
            assert buffer.replace_targets(stale.game, policies, values, WeightsVersion(0, part + 1))
        files = archive.save(buffer)
    assert buffer.games == 40
    restored, again = make_buffer(capacity=200, seed=99), ReplayArchive(tmp_path)
    again.load(restored, files)
    assert_equal(buffer, restored)
    # The restored pair goes on as the first one does, and what it saves later can be loaded too.
    for b, a in ((buffer, archive), (restored, again)):
        fill(b, a, 30, np.random.default_rng(5), first=75)
    assert_equal(buffer, restored)
    last = make_buffer(capacity=200)
    ReplayArchive(tmp_path).load(last, again.save(restored))
    assert_equal(restored, last)


def test_an_empty_buffer_comes_back_empty(tmp_path: Path) -> None:
    buffer = make_buffer()
    files = ReplayArchive(tmp_path).save(buffer)
    restored = make_buffer(seed=4)
    ReplayArchive(tmp_path).load(restored, files)
    assert (restored.size, restored.games) == (0, 0)
    for b in (buffer, restored):
        b.add(make_game(np.random.default_rng(1), 9))
    assert_equal(buffer, restored)


def test_games_are_written_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    buffer, archive = make_buffer(capacity=10_000), ReplayArchive(tmp_path)
    fill(buffer, archive, GAMES_PER_CHUNK + 1, rng)
    archive.save(buffer)
    first = {name: (tmp_path / name).stat().st_mtime_ns for name in chunks(tmp_path)}
    assert len(first) == 2
    archive.save(buffer)
    assert chunks(tmp_path) == set(first)
    fill(buffer, archive, 1, rng, first=500)
    archive.save(buffer)
    assert len(chunks(tmp_path)) == 3
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in first} == first


def test_chunks_go_when_no_checkpoint_needs_them(tmp_path: Path) -> None:
    folder, root = tmp_path / "replay", tmp_path / "checkpoints"
    rng = np.random.default_rng(0)
    buffer, archive = make_buffer(capacity=50), ReplayArchive(folder)  # ten games of five steps
    written: list[set[str]] = []
    for step in range(4):
        fill(buffer, archive, 5, rng, first=5 * step)
        before = chunks(folder) if folder.exists() else set()
        files = archive.save(buffer)
        written.append(chunks(folder) - before)
        save_checkpoint(root, step, model={}, optimizer={}, state={}, extra_files=files, keep=2)
        prune_chunks(folder, root)
    # Steps 2 and 3 are kept. Step 2 holds the games of its own save and of step 1's, step 3 of 2's and its own.
    assert chunks(folder) == written[1] | written[2] | written[3]


def test_nothing_is_deleted_while_a_checkpoint_can_not_be_read(tmp_path: Path) -> None:
    folder, root = tmp_path / "replay", tmp_path / "checkpoints"
    buffer, archive = make_buffer(capacity=25), ReplayArchive(folder)
    fill(buffer, archive, 5, np.random.default_rng(0))
    path = save_checkpoint(root, 0, model={}, optimizer={}, state={}, extra_files=archive.save(buffer))
    (path / INDEX_FILE).write_bytes(b"{}")
    fill(buffer, archive, 5, np.random.default_rng(1), first=5)
    save_checkpoint(root, 1, model={}, optimizer={}, state={}, extra_files=archive.save(buffer))
    prune_chunks(folder, root)
    assert len(chunks(folder)) == 2


@pytest.mark.parametrize("damage", ["gone", "cut", "other game", "no index", "no arrays"])
def test_a_damaged_archive_is_refused(damage: str, tmp_path: Path) -> None:
    buffer, archive = make_buffer(), ReplayArchive(tmp_path)
    fill(buffer, archive, 5, np.random.default_rng(0))
    files = archive.save(buffer)
    (name,) = chunks(tmp_path)
    chunk = tmp_path / name
    if damage == "gone":
        chunk.unlink()
    elif damage == "cut":
        chunk.write_bytes(chunk.read_bytes()[:-7])
    elif damage == "other game":
        content = bytearray(chunk.read_bytes())
        content[-1] ^= 1
        chunk.write_bytes(content)
    else:
        del files[INDEX_FILE if damage == "no index" else ARRAYS_FILE]
    with pytest.raises(CheckpointError):
        ReplayArchive(tmp_path).load(make_buffer(), files)


def test_another_replay_setting_is_refused(tmp_path: Path) -> None:
    buffer, archive = make_buffer(), ReplayArchive(tmp_path)
    fill(buffer, archive, 2, np.random.default_rng(0))
    files = archive.save(buffer)
    with pytest.raises(CheckpointError, match="Resume with the same config"):
        ReplayArchive(tmp_path).load(make_buffer(td_steps=2), files)


def test_the_same_id_is_refused_after_a_restart(tmp_path: Path) -> None:
    """An actor that was not told that its push arrived may send it again to a replay that was restored meanwhile."""
    buffer, archive = make_buffer(), ReplayArchive(tmp_path)
    fill(buffer, archive, 3, np.random.default_rng(0))
    restored = make_buffer()
    ReplayArchive(tmp_path).load(restored, archive.save(buffer))
    keys: ItemKeys = restored.sample(8, 0.0).keys
    assert set(keys.game.tolist()) <= {0, 1, 2}
    assert not restored.add(make_game(np.random.default_rng(7), 5, seq=2, frame=(1, 4, 4), dtype=np.uint8))
    assert restored.add(make_game(np.random.default_rng(7), 5, seq=3, frame=(1, 4, 4), dtype=np.uint8))
