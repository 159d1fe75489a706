"""Rewards and values beyond the supports: counted in every update, and said once, with a setting that fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from muzero_ray.config.schema import MlpConfig, NetworkConfig, SupportConfig
from muzero_ray.control.train_tally import TrainTally
from muzero_ray.networks.supports import Support
from muzero_ray.runs.metrics import MetricsAccumulator
from muzero_ray.runs.output import RunOutput
from muzero_ray.training.clamp_report import ClampReport
from muzero_ray.training.clamping import clamped_targets
from muzero_ray.training.results import TrainResult
from muzero_ray.types import Batch
from tests.small_runs import rows, run_serial, small_config
from tests.training.test_learner import learner, make_batch


def with_targets(reward: Any, value: Any, known: Any) -> Batch:
    """A batch of two positions and two unrolled steps."""
    batch = make_batch("mlp")
    targets = [np.asarray(x, np.float32) for x in (reward, value, known)]
    return replace(batch, target_reward=targets[0], target_value=targets[1], value_mask=targets[2])


def test_the_share_of_known_targets_beyond_a_support_is_counted() -> None:
    batch = with_targets(
        reward=[[0, 5, -1], [0, -9, 0]],
        value=[[3, 10, 10.5], [0, -12, 0]],
        known=[[1, 1, 1], [1, 1, 0]],  # the second was truncated
    )
    found = clamped_targets(batch, value_support=Support(10, 21, False), reward_support=Support(4, 9, False))
    assert found == {
        "learner/value_clamped": 2 / 5,
        "learner/value_largest": 12.0,
        "learner/reward_clamped": 2 / 3,
        "learner/reward_largest": 9.0,
    }


@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize("maximum", [0.5, 30.0, 300.0])
def test_what_is_counted_is_what_the_encoding_loses(maximum: float, transform: bool) -> None:
    support = Support(maximum, 21, transform)
    targets = np.geomspace(0.01, 2e5, 60, dtype=np.float32).reshape(3, 20)
    # Read back from its two-hot encoding, a scalar is itself unless it was clamped.
    back = support.decode(support.encode(torch.from_numpy(targets)).clamp_min(1e-30).log()).numpy()
    lost = np.abs(back - targets) > 1e-3 * targets
    batch = with_targets(np.zeros((3, 20)), targets, np.ones((3, 20)))
    found = clamped_targets(batch, value_support=support, reward_support=support)
    assert found["learner/value_clamped"] == pytest.approx(lost.mean())
    assert 0 < lost.mean() < 1
    # The end of the support itself, read back, is not beyond it.
    end = support.decode(torch.tensor([[-1e9] * 20 + [0.0]])).numpy()
    batch = with_targets(np.zeros((1, 2)), [[end[0], -end[0]]], np.ones((1, 2)))
    assert not clamped_targets(batch, value_support=support, reward_support=support)["learner/value_clamped"]


def test_every_update_tells() -> None:
    batch = make_batch("mlp")
    batch = replace(batch, target_reward=np.full_like(batch.target_reward, 1e6))
    result = learner("mlp").train_step(batch)
    assert result.clamped["learner/reward_clamped"] > 0
    assert result.clamped["learner/reward_largest"] == 1e6


def test_shares_are_averaged_and_the_largest_is_kept() -> None:
    tally, metrics = TrainTally(), MetricsAccumulator()
    for share, largest in ((0.5, 9.0), (0.0, 2.0)):
        clamped = {"learner/reward_clamped": share, "learner/reward_largest": largest}
        tally.add(TrainResult({}, np.zeros(1, np.float32), skipped=False, clamped=clamped))
    metrics.update(tally.stats(2, {}).losses)
    again = MetricsAccumulator()
    again.load_state(metrics.state())
    again.add("learner/reward_largest", 3.0)
    assert again.flush() == {"learner/reward_clamped": 0.25, "learner/reward_largest": 9.0}
    again.add("learner/reward_largest", -1.0)
    assert again.flush() == {"learner/reward_largest": -1.0}


def network(**supports: Any) -> NetworkConfig:
    return MlpConfig(**{name: SupportConfig(**values) for name, values in supports.items()})


def row(kind: str, share: float, largest: float) -> dict[str, float]:
    return {f"learner/{kind}_clamped": share, f"learner/{kind}_largest": largest}


@pytest.mark.parametrize(
    ("kind", "support", "share", "largest", "message"),
    [
        (
            "reward",
            {"max": 1, "transform": False},
            0.31,
            9.2,
            "network.reward.max=1 is below 31 % of the rewards trained on (largest 9.2): they are learned as 1. "
            "Set --network.reward.max 10",
        ),
        (
            "reward",
            {"max": 2, "transform": False},
            0.0004,
            24.3,
            "network.reward.max=2 is below 0.04 % of the rewards trained on (largest 24.3): they are learned as 2. "
            "Set --network.reward.max 30",
        ),
        (
            "value",
            {"max": 10, "transform": False},
            1.0,
            40.0,
            "network.value.max=10 is below 100 % of the values trained on (largest 40): they are learned as 10. "
            "Set --network.value.max 80",
        ),
        (
            "value",
            {"max": 5},
            0.2,
            100.0,  # h(200) = sqrt(201) - 1 + 0.2 = 13.38
            "network.value.max=5, which is h(34.59), is below 20 % of the values trained on (largest 100): they "
            "are learned as 34.59. Set --network.value.max 15",
        ),
    ],
)
def test_the_message_names_the_setting_and_a_value_that_fits(
    kind: str, support: dict[str, Any], share: float, largest: float, message: str
) -> None:
    assert ClampReport(network(**{kind: support}), {}).messages(row(kind, share, largest)) == [message]


@pytest.mark.parametrize("largest", [1.001, 3.3, 9.9, 10.0, 11.0, 0.02, 12345.0])
@pytest.mark.parametrize("transform", [False, True])
def test_what_is_advised_is_enough(largest: float, transform: bool) -> None:
    settings = network(reward={"max": 0.001, "transform": transform})
    (message,) = ClampReport(settings, {}).messages(row("reward", 1.0, largest))
    advised = float(message.rpartition(" ")[2])
    assert largest <= Support(advised, 21, transform).limit * (1 + 1e-6)


def test_each_kind_is_said_once() -> None:
    report = ClampReport(network(reward={"max": 1}), {})
    assert report.messages(row("reward", 0.0, 1.0)) == []
    both = row("reward", 0.1, 5.0) | row("value", 0.1, 1e6)
    assert [message.split("=")[0] for message in report.messages(row("reward", 0.1, 5.0))] == ["network.reward.max"]
    assert [message.split("=")[0] for message in report.messages(both)] == ["network.value.max"]
    assert report.messages(both) == []
    assert report.messages({"env_steps": 3}) == []
    # Nor by the next part of a run, if the last row tells that an earlier part has said it.
    assert ClampReport(network(), row("value", 0.1, 1e6)).messages(both)[0].startswith("network.reward.max")


def test_a_run_says_it_and_its_rows_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(RunOutput, "message", lambda _, text: said.append(text))
    heads = {"value": {"max": 10.0, "bins": 11}, "reward": {"max": 0.5, "bins": 5, "transform": False}}
    config = small_config(network={"kind": "mlp", "hidden": 16, "layers": (16,), "head_layers": (16,), **heads})
    run_serial(config, tmp_path / "run")
    told = [text for text in said if text.startswith("network.")]
    assert len(told) == 1
    assert told[0].endswith("(largest 1): they are learned as 0.5. Set --network.reward.max 1")
    trained = [one for one in rows(tmp_path / "run") if "learner/reward_clamped" in one]
    assert trained
    for one in trained:  # CartPole pays 1 a move, and nothing past its end
        assert 0.3 < one["learner/reward_clamped"] <= 1.0
        assert one["learner/reward_largest"] == 1.0
        assert one["learner/value_clamped"] == 0.0
