"""The validation metrics against formulas written out, for predictions that are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from muzero_ray.networks.supports import Support
from muzero_ray.training.losses import Targets, UnrolledOutput
from muzero_ray.training.validation_metrics import validation_metrics

BATCH, STEPS, ACTIONS = 40, 3, 4
SUPPORT = Support(max=8.0, bins=17, transform=False)
RNG = np.random.default_rng(0)


def logits_of(values: np.ndarray) -> torch.Tensor:
    """The logits of a distribution whose mean is `values`."""
    return torch.log(SUPPORT.encode(torch.tensor(values, dtype=torch.float32)) + 1e-30)


def metrics(values: np.ndarray, rewards: np.ndarray, prior: np.ndarray, **changes: np.ndarray) -> dict[str, float]:
    """Predicted against the targets below."""
    given = {
        "value": VALUES,
        "reward": np.concatenate([np.zeros((BATCH, 1)), REWARDS], axis=1),
        "policy": POLICY,
        "policy_mask": np.ones((BATCH, STEPS + 1)),
        "value_mask": np.ones((BATCH, STEPS + 1)),
    } | changes
    out = UnrolledOutput(
        torch.log(torch.tensor(prior, dtype=torch.float32)), logits_of(values), logits_of(rewards), torch.zeros(1)
    )
    targets = Targets(**{name: torch.tensor(array, dtype=torch.float32) for name, array in given.items()})
    return validation_metrics(out, targets, value_support=SUPPORT, reward_support=SUPPORT)


VALUES = RNG.uniform(-6, 6, (BATCH, STEPS + 1))
REWARDS = RNG.uniform(-6, 6, (BATCH, STEPS))
POLICY = RNG.dirichlet(np.ones(ACTIONS), (BATCH, STEPS + 1))
UNIFORM = np.full((BATCH, STEPS + 1, ACTIONS), 1 / ACTIONS)


def test_a_perfect_model_has_no_error() -> None:
    found = metrics(VALUES, REWARDS, POLICY)
    for name in ("value_error_first", "value_error_last", "reward_error_first", "reward_error_last", "value_bias"):
        assert found[f"model/{name}"] == pytest.approx(0.0, abs=1e-4)
    for name in ("value_explained_first", "value_explained_last", "reward_explained_first", "reward_explained_last"):
        assert found[f"model/{name}"] == pytest.approx(1.0, abs=1e-4)
    assert found["model/policy_kl"] == pytest.approx(0.0, abs=1e-5)


def test_each_figure_is_what_its_formula_says() -> None:
    """Other errors at every step; some positions lie past a truncation, and hold nonsense that must not count."""
    values = VALUES + RNG.normal(size=VALUES.shape) * [0.1, 0.2, 0.3, 1.0] + 0.5
    rewards = REWARDS + RNG.normal(size=REWARDS.shape) * [0.4, 0.8, 0.2]
    mask = np.ones((BATCH, STEPS + 1))
    mask[:10, STEPS] = 0.0
    live = np.ones((BATCH, STEPS + 1))
    live[5:9] = 0.0  # the position itself is terminal: nothing was searched
    nonsense = VALUES.copy()
    nonsense[:10, STEPS] = 1e6
    found = metrics(values, rewards, UNIFORM, value=nonsense, value_mask=mask, policy_mask=live)

    def explained(target: np.ndarray, predicted: np.ndarray) -> float:
        return 1 - float(np.var(target - predicted) / np.var(target))

    searched = np.delete(POLICY[:, 0], range(5, 9), axis=0)
    expected = {
        "value_error_first": np.mean(np.abs(values - VALUES)[:, 0]),
        "value_error_last": np.mean(np.abs(values - VALUES)[10:, -1]),
        "value_explained_first": explained(VALUES[:, 0], values[:, 0]),
        "value_explained_last": explained(VALUES[10:, -1], values[10:, -1]),
        "value_bias": np.mean((values - VALUES)[:, 0]),
        "reward_error_first": np.mean(np.abs(rewards - REWARDS)[:, 0]),
        "reward_error_last": np.mean(np.abs(rewards - REWARDS)[10:, -1]),
        "reward_explained_first": explained(REWARDS[:, 0], rewards[:, 0]),
        "reward_explained_last": explained(REWARDS[10:, -1], rewards[10:, -1]),
        "policy_entropy": np.log(ACTIONS),
        # KL to the uniform policy is what is missing from its entropy.
        "policy_kl": np.mean([np.log(ACTIONS) + np.sum(p * np.log(p)) for p in searched]),
    }
    assert found == pytest.approx({f"model/{name}": value for name, value in expected.items()}, abs=2e-4)
    assert 0.2 < expected["value_bias"] < 0.8


def test_a_constant_explains_nothing_and_equal_targets_can_not_be_explained() -> None:
    found = metrics(np.full_like(VALUES, VALUES[:, 0].mean()), np.ones_like(REWARDS), POLICY)
    assert found["model/value_explained_first"] == pytest.approx(0.0, abs=1e-4)
    rewards = np.concatenate([np.zeros((BATCH, 1)), np.ones((BATCH, STEPS))], axis=1)
    found = metrics(VALUES, np.full_like(REWARDS, 0.9), POLICY, reward=rewards)
    assert found["model/reward_error_first"] == pytest.approx(0.1, abs=1e-4)
    assert "model/reward_explained_first" not in found


def test_where_nothing_is_known_nothing_is_said() -> None:
    nothing = np.zeros((BATCH, STEPS + 1))
    assert metrics(VALUES, REWARDS, POLICY, value_mask=nothing, policy_mask=nothing) == {}
