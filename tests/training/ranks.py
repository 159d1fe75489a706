"""Ranks of a `DataParallelGroup` in processes of their own. What they are given and what they leave are files."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing

from muzero_ray.errors import PeerLost
from muzero_ray.training.data_parallel import DataParallelGroup, find, listen_at, serve
from muzero_ray.training.learner import Learner
from muzero_ray.types import Array, Batch, ItemKeys
from tests.patience import PATIENCE

HOST = "127.0.0.1"


def together(
    size: int, folder: Path, timeout: float, work: Callable[[DataParallelGroup, int], Any], *, hangs: int | None = None
) -> list[Any]:
    """What `work(group, rank)` returns, by rank; None for a process that left nothing. work: of a module.

    hangs: a rank that never ends; it is killed when the others have.
    """
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=_rank, args=(rank, size, folder, timeout, work)) for rank in range(size)]
    for process in processes:
        process.start()
    try:
        for rank, process in enumerate(processes):
            if rank != hangs:
                process.join(PATIENCE)
    finally:
        for process in processes:
            process.kill()
    files = [folder / f"rank-{rank}" for rank in range(size)]
    return [pickle.loads(file.read_bytes()) if file.exists() else None for file in files]


def _rank(rank: int, size: int, folder: Path, timeout: float, work: Callable[[DataParallelGroup, int], Any]) -> None:
    torch.set_num_threads(1)
    listen_at(HOST)
    place = folder / "port"
    if rank == 0:
        store, port = serve(HOST, PATIENCE)
        (folder / "new").write_text(str(port))
        (folder / "new").rename(place)
    else:
        while not place.exists():
            time.sleep(0.01)
        store = find(HOST, int(place.read_text()), PATIENCE)
    left = work(DataParallelGroup(store, rank, size, device=torch.device("cpu"), timeout=timeout), rank)
    (folder / f"rank-{rank}").write_bytes(pickle.dumps(left))
    os._exit(0)  # as a killed process: nobody waits for anybody


def outcome(call: Callable[[], Any]) -> Any:
    """What it returns, or the message of its PeerLost."""
    try:
        return call()
    except PeerLost as error:
        return str(error)


def part(batch: Batch, rank: int, size: int) -> Batch:
    """Every `size`-th row of `batch`, from `rank` on."""
    arrays: dict[str, Array] = {
        field.name: getattr(batch, field.name)[rank::size].copy()
        for field in fields(Batch)
        if field.name not in ("stack", "keys")
    }
    return replace(batch, **arrays, keys=ItemKeys(batch.keys.game[rank::size], batch.keys.position[rank::size]))


def trained(learner: Learner, batches: list[Batch]) -> dict[str, Any]:
    """Train on `batches`; what came out, after the first update and after the last."""
    results = []
    first: dict[str, Array] = {}
    for batch in batches:
        results.append(learner.train_step(batch))
        if not first:
            first = {name: p.grad.numpy().copy() for name, p in learner._parameters.items() if p.grad is not None}
    arrays, info = learner.state()
    return {
        "gradients": first,
        "arrays": {name: np.array(array) for name, array in arrays.items()},
        "info": info,
        "losses": [result.losses for result in results],
        "priorities": [result.priorities for result in results],
        "skipped": [result.skipped for result in results],
    }
