"""Replay chunks that a checkpoint names and that are missing or damaged: what is lost, and how to go on without it."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from muzero_ray.config.schema import Config
from muzero_ray.errors import CheckpointError, as_checkpoint_error
from muzero_ray.replay import checkpoint_arrays
from muzero_ray.runs.checkpoint import Checkpoint, load_checkpoint
from muzero_ray.runs.files import parse_object, verify
from muzero_ray.runs.replay_archive import ARRAYS_FILE, INDEX_FILE, join_shards, parse_chunk, shard_folder, split_shards
from muzero_ray.runs.tensors import load_tensors

logger = logging.getLogger(__name__)


class _Shard(NamedTuple):
    """A shard of replay without its lost games. files: what it is restored from. kept: transitions that are left."""

    files: Mapping[str, bytes]
    problems: list[str]
    games: int = 0
    transitions: int = 0
    kept: int = 0


def load_resumed(path: Path) -> Checkpoint:
    """As `load_checkpoint`. If no checkpoint is good, that of the newest good weights, without its replay files."""
    try:
        return load_checkpoint(path)
    except CheckpointError:
        return load_checkpoint(path, read="learner")


def check_games(checkpoint: Checkpoint, replay_folder: Path, config: Config, *, go_on: bool, remedy: str) -> Checkpoint:
    """`checkpoint`, once every replay chunk that it names was found whole.

    Lost games change what is learned. Without `go_on` they raise a CheckpointError, which says how many they are and
    ends with `remedy`. With it, this returns the checkpoint without them, as if they had left replay, and warns; the
    learner waits until replay has `replay.min_size` transitions again.
    """
    if not checkpoint.files:
        loss = f"the replay files of checkpoint {checkpoint.path} cannot be used: all games are lost"
        return _gone_on(checkpoint, loss, {}, config, kept=0, go_on=go_on, remedy=remedy)
    parts = split_shards(checkpoint.files, config.replay.shards)
    shards = [_without_lost(part, shard_folder(replay_folder, shard)) for shard, part in enumerate(parts)]
    problems = [problem for shard in shards for problem in shard.problems]
    if not problems:
        return checkpoint
    games, transitions, kept = (sum(column) for column in zip(*(shard[2:] for shard in shards), strict=True))
    more = f" (and {len(problems) - 1} more replay chunks)" if len(problems) > 1 else ""
    loss = (
        f"{problems[0]}{more}. {games} games with {transitions} of {transitions + kept} transitions of replay are lost"
    )
    files = {**checkpoint.files, **join_shards([shard.files for shard in shards])}
    return _gone_on(checkpoint, loss, files, config, kept=kept, go_on=go_on, remedy=remedy)


def _gone_on(
    checkpoint: Checkpoint, loss: str, files: dict[str, bytes], config: Config, *, kept: int, go_on: bool, remedy: str
) -> Checkpoint:
    """`checkpoint` with these files, and with a limiter that knows that replay holds `kept` transitions."""
    if not go_on:
        raise CheckpointError(f"{loss}. {remedy}")
    logger.warning("%s. The run goes on without them", loss)
    state = copy.deepcopy(checkpoint.state)
    with as_checkpoint_error("the checkpoint's state.json"):
        limiter = state["book"]["limiter"]
        # What replay must hold before the learner may train counts as not inserted yet.
        limiter["inserted"] -= max(0, min(config.replay.min_size, limiter["inserted"]) - kept)
    return replace(checkpoint, state=state, files=files)


def _without_lost(files: Mapping[str, bytes], folder: Path) -> _Shard:
    if not {INDEX_FILE, ARRAYS_FILE} <= files.keys():
        return _Shard(files, [])  # refused where it is loaded
    with as_checkpoint_error(f"{INDEX_FILE} and {ARRAYS_FILE}"):
        index = parse_object(files[INDEX_FILE], Path(INDEX_FILE))
        problems, whole, found = [], [], set()
        for entry in index["chunks"]:
            ref, ids = parse_chunk(entry)
            try:
                verify(folder / ref.name, ref.bytes, ref.sha256)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            whole.append(entry)
            found.update(ids)
        if not problems:
            return _Shard(files, [])
        arrays = load_tensors(files[ARRAYS_FILE], Path(ARRAYS_FILE))
        capacity = int(index["buffer"]["settings"]["capacity"])
        keep = np.array([tuple(row[:3]) in found for row in arrays["index"].tolist()], np.bool_)
        kept, owned = checkpoint_arrays.select(arrays, keep, capacity)
        changed = {
            INDEX_FILE: json.dumps({**index, "chunks": whole}).encode(),
            ARRAYS_FILE: safetensors.numpy.save(kept),
        }
        return _Shard(changed, problems, *_counts(keep, owned))


def _counts(keep: Any, owned: Any) -> tuple[int, int, int]:
    """Games lost, transitions lost, transitions kept."""
    return int((~keep).sum()), int(owned[~keep].sum()), int(owned[keep].sum())
