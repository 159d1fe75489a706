"""Several processes that train together against one that trains alone on the whole batches."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muzero_ray.errors import NumericsError
from muzero_ray.training.data_parallel import DataParallelGroup
from muzero_ray.types import Batch
from tests.patience import PATIENCE
from tests.training.ranks import outcome, part, together, trained
from tests.training.test_learner import learner, make_batch

SIZE, UPDATES = 2, 6

SGD = {"optimizer": "sgd", "lr": 0.05, "lr_schedule": "constant"}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "vectors": ("mlp", SGD),
    "images": ("resnet", SGD),
    "clipped": ("resnet", {**SGD, "max_grad_norm": 0.1}),
    "adamw": ("resnet", {"optimizer": "adamw", "lr": 1e-3}),
}
"""Networks that see images have a running mean of them."""

POISONED = {"frames": np.nan, "target_value": np.inf, "weights": np.nan}
"""Goes into a row of rank 1: into the loss and the gradient, into the priority only, into everything."""


def batches(kind: str) -> list[Batch]:
    return [make_batch(kind, seed) for seed in range(UPDATES)]


def poisoned(field: str) -> list[Batch]:
    """Good, bad, good."""
    first, bad, last = (make_batch("mlp", seed) for seed in range(3))
    array = getattr(bad, field).copy()
    array[1] = POISONED[field]
    return [first, replace(bad, **{field: array}), last]


def train_together(group: DataParallelGroup, rank: int) -> dict[str, Any]:
    """Everything that two ranks do right, one thing after the other: a process takes long to start."""

    def run(kind: str, given: list[Batch], **settings: Any) -> dict[str, Any]:
        return trained(learner(kind, group=group, **settings), [part(batch, rank, SIZE) for batch in given])

    left = {name: run(kind, batches(kind), **settings) for name, (kind, settings) in RUNS.items()}
    left |= {field: run("mlp", poisoned(field), **SGD) for field in POISONED}
    left["consistency"] = run("resnet", batches("resnet"), **SGD, consistency_weight=2.0)
    left["batch norm"] = run("batch norm", batches("batch norm"), **SGD)
    left["batch norm, one update"] = run("batch norm", batches("batch norm")[:1], **SGD)
    last = learner("mlp", group=group, max_skipped=2)
    with pytest.raises(NumericsError, match="last 2 learner steps"):
        trained(last, [part(poisoned("frames")[1], rank, SIZE)] * 2)
    left["largest"] = group.largest(rank, -rank, 0.1)
    left["equal"] = outcome(lambda: group.check_equal("numbers", 2**52 + 1))
    left["unequal"] = outcome(lambda: group.check_equal("numbers", 2**52 + rank))
    return left


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    left = together(SIZE, tmp_path_factory.mktemp("ranks"), 60, train_together)
    assert None not in left
    return left


def assert_close(ours: dict[str, Any], alone: dict[str, Any], tolerance: float) -> None:
    assert ours.keys() == alone.keys()
    for name, array in alone.items():
        np.testing.assert_allclose(ours[name], array, rtol=0, atol=tolerance * max(1.0, np.abs(array).max()))


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["arrays"].keys() == other["arrays"].keys()
    for part_of_state in ("gradients", "arrays"):
        for name, array in one[part_of_state].items():
            assert array.tobytes() == other[part_of_state][name].tobytes(), name
    assert (one["info"], one["losses"], one["skipped"]) == (other["info"], other["losses"], other["skipped"])


@pytest.mark.parametrize("name", RUNS)
def test_parts_train_like_the_whole(name: str, ranks: list[dict[str, Any]]) -> None:
    """Gradients of the first update, and weights, averages, momenta and input means after several."""
    kind, settings = RUNS[name]
    alone = trained(learner(kind, **settings), batches(kind))
    one, other = (rank[name] for rank in ranks)
    assert_same(one, other)
    assert one["info"] == {"step": UPDATES, "skipped_in_row": 0}
    assert_close(one["gradients"], alone["gradients"], 1e-6)
    # AdamW divides by the size of the gradient, so it makes much of what rounds off in a small one.
    assert_close(one["arrays"], alone["arrays"], 1e-4 if name == "adamw" else 2e-6)
    if kind == "resnet":
        assert alone["arrays"]["model.input_mean"].any()
    for ours, theirs in zip(one["losses"], alone["losses"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    if name == "clipped":
        assert all(losses["learner/grad_norm"] > 0.2 for losses in one["losses"])
    for update, priorities in enumerate(alone["priorities"]):
        joined = np.empty_like(priorities)
        for rank, left in enumerate(ranks):
            joined[rank::SIZE] = left[name]["priorities"][update]
        np.testing.assert_allclose(joined, priorities, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("field", POISONED)
def test_what_is_not_finite_on_one_rank_is_skipped_by_all(field: str, ranks: list[dict[str, Any]]) -> None:
    alone = trained(learner("mlp", **SGD), poisoned(field))
    one, other = (rank[field] for rank in ranks)
    assert_same(one, other)
    assert one["skipped"] == alone["skipped"] == [False, True, False]
    assert one["info"] == alone["info"] == {"step": 2, "skipped_in_row": 0}
    assert_close(one["arrays"], alone["arrays"], 2e-6)
    assert all(np.isfinite(priorities).all() for rank in ranks for priorities in rank[field]["priorities"])


def test_consistency_normalises_within_a_part_and_ranks_stay_equal(ranks: list[dict[str, Any]]) -> None:
    """BatchNorm sees a rank's part only: the gradient is the mean of what the parts give apart."""
    one, other = (rank["consistency"] for rank in ranks)
    assert_same(one, other)
    whole = make_batch("resnet", 0)
    settings = {**SGD, "consistency_weight": 2.0, "max_grad_norm": 1e9}
    apart = [trained(learner("resnet", **settings), [part(whole, rank, SIZE)])["gradients"] for rank in range(SIZE)]
    mean = {name: (apart[0][name] + apart[1][name]) / 2 for name in apart[0]}
    norm = np.sqrt(sum(np.square(gradient, dtype=np.float64).sum() for gradient in mean.values()))
    clip = min(10.0 / norm, 1.0)
    assert_close(one["gradients"], {name: gradient * clip for name, gradient in mean.items()}, 1e-5)


def test_running_numbers_are_the_mean_of_what_the_ranks_saw(ranks: list[dict[str, Any]]) -> None:
    """BatchNorm's, which normalises within a part. After one update, from equal weights."""
    one, other = (rank["batch norm"] for rank in ranks)
    assert_same(one, other)
    assert one["info"] == {"step": UPDATES, "skipped_in_row": 0}
    whole = make_batch("batch norm", 0)
    first = [trained(learner("batch norm", **SGD), [part(whole, rank, SIZE)])["arrays"] for rank in range(SIZE)]
    together_first = ranks[0]["batch norm, one update"]["arrays"]
    name = "model.representation_part.body.1"
    for number in ("mean", "variance"):
        mean = (first[0][f"{name}.{number}"] + first[1][f"{name}.{number}"]) / 2
        np.testing.assert_allclose(together_first[f"{name}.{number}"], mean, rtol=1e-5)


def test_ranks_compare_numbers(ranks: list[dict[str, Any]]) -> None:
    for left in ranks:
        assert left["largest"] == [SIZE - 1, 0, 0.1]
        assert left["equal"] is None
        assert left["unequal"] == "numbers differ between the learner's workers, which should compute the same"


LOST = 1
"""The rank that does not go on."""


def lose_one(group: DataParallelGroup, rank: int) -> str | None:
    """It dies in the middle of training."""
    trainer = learner("mlp", group=group)
    for update in range(1000):
        if update == 3 and rank == LOST:
            os.kill(os.getpid(), signal.SIGKILL)
        if said := outcome(lambda: trainer.train_step(part(make_batch("mlp"), rank % 2, 2)) and None):
            return said
    return None


def wait_for_one(group: DataParallelGroup, rank: int) -> str | None:
    """It never comes back."""
    group.largest(rank)
    if rank == LOST:
        time.sleep(3600)
    return outcome(lambda: str(group.largest(rank)))


def test_the_death_of_a_rank_is_noticed(tmp_path: Path) -> None:
    first, dead, last = together(3, tmp_path, PATIENCE, lose_one)
    assert dead is None
    for said in (first, last):
        assert said.startswith("a worker of the learner is gone or hangs: ")


def test_a_rank_that_hangs_is_given_up(tmp_path: Path) -> None:
    first, _ = together(2, tmp_path, 20, wait_for_one, hangs=LOST)
    assert first.startswith("a worker of the learner is gone or hangs: ")
