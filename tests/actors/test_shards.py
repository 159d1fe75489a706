"""A run whose replay is in two processes: one is killed on the way, and another part of the run goes on from both."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray
import safetensors.numpy

from muzero_ray.config.schema import Config
from muzero_ray.control.run_state import RunState
from muzero_ray.runs.checkpoint import Checkpoint, load_checkpoint
from muzero_ray.runs.replay_archive import ARRAYS_FILE, INDEX_FILE, split_shards
from tests.actors.programs import messages, on_progress, pid_of, ray_config, running
from tests.patience import PATIENCE
from tests.small_runs import rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

STEPS, KILL_AT = 60, 25
STEPS_RESUMED = 600  # 60 take a second: one actor may finish no game in that


def two_shards(steps: int) -> Config:
    return ray_config(
        run={"learner_steps": steps, "checkpoint_steps": 20},
        actors={"count": 2},
        replay={"capacity": 20_000, "shards": 2},
    )


def ids(checkpoint: Checkpoint) -> list[list[tuple[int, ...]]]:
    """The ids of the games that each shard holds; what is on disk is the same."""
    found = []
    for files in split_shards(checkpoint.files, 2):
        index = safetensors.numpy.load(files[ARRAYS_FILE])["index"]
        found.append([tuple(row) for row in index[:, :3].tolist()])
        written = [tuple(i) for chunk in json.loads(files[INDEX_FILE])["chunks"] for i in chunk["ids"]]
        assert sorted(written) == sorted(found[-1])
    return found


def test_a_killed_shard_comes_back_with_its_games_and_the_run_can_be_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with running(two_shards(STEPS), folder) as (supervisor, workers, _, output):
        said, shards = messages(output), workers.of("replay")
        assert [worker.name for worker in shards] == ["replay 0", "replay 1"]
        victim: list[int] = []

        def kill(run_state: RunState) -> None:
            if run_state.learner_steps >= KILL_AT and not victim:
                victim.append(pid_of(shards[1]))
                os.kill(victim[0], signal.SIGKILL)

        on_progress(output, kill)
        assert supervisor.run()
        assert pid_of(shards[1]) != victim[0]
        assert [worker.restarts for worker in shards] == [0, 1]
        assert workers.restarts == 1
        assert "replay 1 was lost and is back" in said
        sizes = [ray.get(worker.actor.metrics.remote(0), timeout=PATIENCE)["replay/size"] for worker in shards]
    assert all(size > 0 for size in sizes)
    assert rows(folder)[-1]["replay/size"] <= sum(sizes)  # more may have come in since
    first = load_checkpoint(folder)
    assert first.step == STEPS
    # Nothing was evicted, so every acknowledged game is in the shard of its actor, once.
    assert first.state["book"]["limiter"]["inserted"] <= sum(sizes)
    assert first.state["book"]["limiter"]["sampled"] == STEPS * 16
    held = ids(first)
    for shard, games in enumerate(held):
        assert {actor for actor, _, _ in games} == {shard}
        assert len(set(games)) == len(games)
        assert sorted(seq for _, _, seq in games) == list(range(1, len(games) + 1))
    # Reanalyze went to both.
    for files in split_shards(first.files, 2):
        assert safetensors.numpy.load(files[ARRAYS_FILE])["index"][:, 6].any()

    with running(two_shards(STEPS_RESUMED), folder) as (supervisor, workers, _, output):
        for worker in workers.of("self_play"):
            pid_of(worker)  # is up: one that starts a second later than the other would miss the whole run
        resumed: list[Any] = []
        write = output.checkpoint

        def note(run_state: RunState, learner: Any, replay: dict[str, bytes]) -> None:
            resumed.append(replay)
            write(run_state, learner, replay)

        output.checkpoint = note  # type: ignore[method-assign,assignment]
        assert supervisor.run()
    for before, after in zip(split_shards(first.files, 2), split_shards(resumed[0], 2), strict=True):
        assert before[ARRAYS_FILE] == after[ARRAYS_FILE]
    last = load_checkpoint(folder)
    assert last.step == STEPS_RESUMED
    for before_ids, after_ids in zip(held, ids(last), strict=True):
        assert set(before_ids) < set(after_ids)
