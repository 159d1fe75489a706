"""Replay on disk: a buffer comes back exactly, from chunks that are written once and deleted when nobody needs them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from muzero_ray.errors import CheckpointError, ConfigError
from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.runs.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from muzero_ray.runs.replay_archive import (
    ARRAYS_FILE,
    GAMES_PER_CHUNK,
    INDEX_FILE,
    SNAPSHOT_FILE,
    ReplayArchive,
    join_shards,
    prune_chunks,
    shard_folder,
    split_shards,
)
from muzero_ray.types import ItemKeys, WeightsVersion
from tests.replay.games import ACTIONS, make_buffer, make_game, stored


def fill(buffer: ReplayBuffer, archive: ReplayArchive, games: int, rng: np.random.Generator, first: int = 0) -> None:
    """Add games of 5 steps, as the runners do."""
    for seq in range(first, first + games):
        game = make_game(rng, 5, seq=seq, frame=(1, 4, 4), dtype=np.uint8)
        assert archive.add(buffer, game)


def assert_equal(one: ReplayBuffer, other: ReplayBuffer, *, priorities: bool = True) -> None:
    """In all that is kept, and in what they draw next; without `priorities`: in the games and their places."""
    (arrays, meta), (other_arrays, other_meta) = one.state(), other.state()
    assert stored(one) == stored(other)
    if not priorities:
        assert meta["next_game"] == other_meta["next_game"]
        return
    assert meta == other_meta
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], other_arrays[name], err_msg=name)
    draw, other_draw = one.sample(16, 0.5), other.sample(16, 0.5)
    np.testing.assert_array_equal(draw.keys.game, other_draw.keys.game)
    np.testing.assert_array_equal(draw.observations, other_draw.observations)
    np.testing.assert_array_equal(draw.target_value, other_draw.target_value)
    np.testing.assert_array_equal(draw.weights, other_draw.weights)


def chunks(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.games")}


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
    for step in range(4):
        fill(buffer, archive, 5, rng, first=10 * step)
        files = archive.save(buffer)
        fill(buffer, archive, 5, rng, first=10 * step + 5)  # while the checkpoint is written
        save_checkpoint(root, step, model={}, optimizer={}, state={}, extra_files=files, keep=2)
        prune_chunks(folder, root)
    # Steps 2 and 3 are kept, each with the ten games of one chunk; the five games after step 3 are in another.
    assert sorted(int(name[:10]) for name in chunks(folder)) == [2, 3, 4]
    restored = make_buffer(capacity=50)
    ReplayArchive(folder).recover(restored)
    assert_equal(buffer, restored, priorities=False)
    for path in list_checkpoints(root):
        ReplayArchive(folder).load(make_buffer(capacity=50), load_checkpoint(path).files)


def test_a_process_that_died_loses_no_game_and_adds_none_twice(tmp_path: Path) -> None:
    """At every stage: nothing saved yet, just saved, saved and games since, and after a first recovery."""
    rng = np.random.default_rng(3)
    buffer, archive = make_buffer(capacity=400), ReplayArchive(tmp_path)
    for stage, count in enumerate([3, 70, 0, 50]):
        fill(buffer, archive, count, rng, first=100 * stage)
        recovered, successor = make_buffer(capacity=400), ReplayArchive(tmp_path)
        successor.recover(recovered)
        assert recovered.game_ids() == buffer.game_ids()
        assert_equal(buffer, recovered, priorities=False)
        again = make_game(np.random.default_rng(9), 5, seq=100 * stage, frame=(1, 4, 4), dtype=np.uint8)
        if count:
            assert not successor.add(recovered, again)  # pushed again: it was never told
        # The successor takes over, saves every second time, and dies in its turn.
        buffer, archive = recovered, successor
        if stage % 2:
            keys = buffer.sample(32, 0.4).keys
            buffer.update_priorities(keys, rng.uniform(0.0, 3.0, 32).astype(np.float32))
            archive.save(buffer)
            recovered = make_buffer(capacity=400)
            ReplayArchive(tmp_path).recover(recovered)
            assert_equal(buffer, recovered)


def test_games_of_a_run_that_was_given_up_do_not_come_back(tmp_path: Path) -> None:
    """A resumed run goes on from its checkpoint, and may use the same ids again for other games."""
    rng = np.random.default_rng(3)
    buffer, archive = make_buffer(), ReplayArchive(tmp_path)
    fill(buffer, archive, 5, rng)
    files = archive.save(buffer)
    fill(buffer, archive, 20, rng, first=5)
    buffer, archive = make_buffer(), ReplayArchive(tmp_path)
    archive.load(buffer, files)
    assert buffer.games == 5
    fill(buffer, archive, 2, rng, first=5)
    recovered = make_buffer()
    ReplayArchive(tmp_path).recover(recovered)
    assert_equal(buffer, recovered, priorities=False)
    assert recovered.games == 7


def test_what_is_added_after_loading_is_recovered(tmp_path: Path) -> None:
    """Even where the process had games of its own before: Ray restarts one that the run then loads into."""
    rng = np.random.default_rng(3)
    buffer, archive = make_buffer(), ReplayArchive(tmp_path)
    fill(buffer, archive, 5, rng)
    files = archive.save(buffer)
    fill(buffer, archive, 5, rng, first=5)
    archive.load(buffer, files)
    fill(buffer, archive, 2, rng, first=20)
    recovered = make_buffer()
    ReplayArchive(tmp_path).recover(recovered)
    assert_equal(buffer, recovered, priorities=False)
    assert recovered.games == 7


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (INDEX_FILE, lambda _: b"[]"),
        (INDEX_FILE, lambda _: b"{}"),
        (INDEX_FILE, lambda data: data.replace(b'"ids"', b'"id"')),
        (INDEX_FILE, lambda data: data.replace(b"[[0, 0, 0]", b"[[0, 0]")),
        (INDEX_FILE, lambda data: data.replace(b"[[0, 0, 0]", b"[[0, 0, 0], 7")),
        (INDEX_FILE, lambda data: data.replace(b'"next_game": 5', b'"next_game": "x"')),
        (INDEX_FILE, lambda data: data.replace(b'"bit_generator"', b'"bits"')),
        (INDEX_FILE, lambda data: data.replace(b'"seen": [[', b'"seen": [[], [')),
        (ARRAYS_FILE, lambda data: data[:-1]),
        (ARRAYS_FILE, lambda data: data.replace(b'"index"', b'"other"')),
        (ARRAYS_FILE, lambda data: data.replace(b'"priorities"', b'"precedence"')),
        (ARRAYS_FILE, lambda data: data.replace(b"[5,7]", b"[7,5]")),
        (ARRAYS_FILE, lambda data: data.replace(b"[5,7]", b"[35] ")),
    ],
)
def test_a_forged_index_is_refused(name: str, change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    buffer, archive = make_buffer(), ReplayArchive(tmp_path)
    fill(buffer, archive, 5, np.random.default_rng(0))
    files = archive.save(buffer)
    forged = change(files[name])
    assert forged != files[name]
    with pytest.raises(CheckpointError):
        ReplayArchive(tmp_path).load(make_buffer(), {**files, name: forged})


def test_kill_9_at_random_instants(tmp_path: Path) -> None:
    """A real process that saves now and then. What it said it has is there afterwards, and all it has is whole."""
    rng = np.random.default_rng(0)
    acknowledged: list[int] = []
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.runs.replay_process", str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(int(rng.integers(1, 150))):
                acknowledged.append(int(process.stdout.readline()))
            process.kill()
            acknowledged += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line[-1] == "\n"]
    buffer = make_buffer(capacity=100_000)
    ReplayArchive(tmp_path).recover(buffer)
    found = [game_id.seq for game_id in buffer.game_ids()]
    assert found == list(range(len(found)))
    # Each death may leave one that nobody was told of.
    assert set(acknowledged) <= set(found)
    assert len(acknowledged) <= len(found) <= len(acknowledged) + 4


def test_a_damaged_snapshot_is_refused(tmp_path: Path) -> None:
    buffer, archive = make_buffer(), ReplayArchive(tmp_path)
    fill(buffer, archive, 5, np.random.default_rng(0))
    archive.save(buffer)
    path = tmp_path / SNAPSHOT_FILE
    content = path.read_bytes()
    for damaged in (content[:-1], content[:100], b"", content[:-5] + b"x" + content[-4:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="Resume the run"):
            ReplayArchive(tmp_path).recover(make_buffer())


def test_a_game_that_the_buffer_refuses_is_not_on_disk_either(tmp_path: Path) -> None:
    buffer, archive = make_buffer(), ReplayArchive(tmp_path)
    fill(buffer, archive, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="replay holds"):
        archive.add(buffer, make_game(np.random.default_rng(0), 5, seq=2, frame=(7,)))
    fill(buffer, archive, 1, np.random.default_rng(0), first=2)
    recovered = make_buffer()
    ReplayArchive(tmp_path).recover(recovered)
    assert_equal(buffer, recovered, priorities=False)


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


def test_shards_share_a_checkpoint_and_each_has_its_own_chunks(tmp_path: Path) -> None:
    folder, root = tmp_path / "replay", tmp_path / "checkpoints"
    buffers = [make_buffer(capacity=25, seed=shard) for shard in range(2)]
    archives = [ReplayArchive(shard_folder(folder, shard)) for shard in range(2)]
    for step in range(3):
        for shard in range(2):
            fill(buffers[shard], archives[shard], 5 - shard, np.random.default_rng(shard), first=5 * step)
        files = join_shards([archive.save(buffer) for archive, buffer in zip(archives, buffers, strict=True)])
        save_checkpoint(root, step, model={}, optimizer={}, state={}, extra_files=files, keep=1)
        prune_chunks(folder, root, shards=2)
    # Of five games the newest five are in one chunk; four games leave the last of the four before.
    assert [len(chunks(shard_folder(folder, shard))) for shard in range(2)] == [1, 2]
    assert {INDEX_FILE, ARRAYS_FILE} <= files.keys()  # a single shard's names are those of the first
    saved = load_checkpoint(root).files
    for shard, part in enumerate(split_shards(saved, 2)):
        loaded, recovered = (make_buffer(capacity=25, seed=9) for _ in range(2))
        ReplayArchive(shard_folder(folder, shard)).load(loaded, part)
        ReplayArchive(shard_folder(folder, shard)).recover(recovered)
        assert stored(loaded) == stored(recovered)
        assert_equal(buffers[shard], loaded)
    for shards in (1, 3):
        with pytest.raises(ConfigError, match=rf"replay.shards={shards}, .* replay of 2: .* replay.shards=2$"):
            split_shards(saved, shards)


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
