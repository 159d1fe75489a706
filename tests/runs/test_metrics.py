"""Metric names and how rows are put together."""

from __future__ import annotations

import math

import pytest

from muzero_ray.runs.metrics import AXES, MACHINE_METRICS, METRICS, MetricsAccumulator, check_row, make_row


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_names_are_the_published_ones() -> None:
    # Written out by hand: renaming a metric breaks dashboards and must be a decision.
    groups = {
        "eval": "return_mean return_std length_mean episodes simulations",
        "train": "return_mean length_mean",
        "loss": "total policy value reward consistency",
        "learner": "steps_per_s grad_norm lr skipped reward_clamped reward_largest value_clamped value_largest",
        "replay": "size bytes games samples_per_insert target_age priority_max",
        "model": "value_error_first value_error_last value_explained_first value_explained_last value_bias "
        "reward_error_first reward_error_last reward_explained_first reward_explained_last policy_kl policy_entropy",
        "search": "sims_per_s depth root_entropy kl_prior",
        "actors": "alive restarts environment_faults env_steps_per_s weights_lag",
        "system": "rss_mb object_store_mb",
    }
    assert set(METRICS) == {f"{group}/{name}" for group, names in groups.items() for name in names.split()}
    assert AXES == ("env_steps", "learner_steps", "episodes", "wall_s")


def test_row_starts_with_the_axes_and_keeps_one_order() -> None:
    row = make_row({"search/depth": 2.0, "loss/total": 1.0}, env_steps=5, learner_steps=6, episodes=7, wall_s=8)
    assert list(row.items()) == [
        ("env_steps", 5),
        ("learner_steps", 6),
        ("episodes", 7),
        ("wall_s", 8.0),
        ("loss/total", 1.0),
        ("search/depth", 2.0),
    ]
    check_row(row)


def test_unknown_name_is_refused_and_the_nearest_named() -> None:
    with pytest.raises(ValueError, match=r"'loss/totl'.*'loss/total'"):
        make_row({"loss/totl": 1.0}, env_steps=0, learner_steps=0, episodes=0, wall_s=0.0)
    with pytest.raises(ValueError, match="loss/totl"):
        MetricsAccumulator().add("loss/totl", 1.0)


@pytest.mark.parametrize("axis", AXES)
def test_row_without_an_axis_is_refused(axis: str) -> None:
    row = make_row({}, env_steps=0, learner_steps=0, episodes=0, wall_s=0.0)
    del row[axis]
    with pytest.raises(ValueError, match=axis):
        check_row(row)


def test_accumulator_combines_each_kind() -> None:
    clock = FakeClock()
    metrics = MetricsAccumulator(clock)
    for value in (1.0, 2.0, 6.0):
        metrics.add("loss/total", value)  # mean
        metrics.add("replay/size", value)  # last
        metrics.add("learner/skipped", value)  # sum
        metrics.add("learner/steps_per_s", value)  # rate
    clock.now += 4.5
    assert metrics.flush() == {
        "loss/total": 3.0,
        "replay/size": 6.0,
        "learner/skipped": 9.0,
        "learner/steps_per_s": 2.0,
    }


def test_flush_starts_afresh() -> None:
    clock = FakeClock()
    metrics = MetricsAccumulator(clock)
    metrics.update({"loss/total": 10.0, "learner/steps_per_s": 10.0})
    clock.now += 1.0
    metrics.flush()
    clock.now += 2.0
    metrics.add("learner/steps_per_s", 10.0)
    assert metrics.flush() == {"learner/steps_per_s": 5.0}
    assert metrics.flush() == {}


def test_nan_is_not_hidden_by_a_mean() -> None:
    metrics = MetricsAccumulator()
    metrics.add("loss/total", 1.0)
    metrics.add("loss/total", math.nan)
    assert math.isnan(metrics.flush()["loss/total"])


def test_machine_metrics_are_clocks_and_memory() -> None:
    assert set(MACHINE_METRICS) == {
        "wall_s",
        "learner/steps_per_s",
        "search/sims_per_s",
        "actors/env_steps_per_s",
        "system/rss_mb",
        "system/object_store_mb",
    }
