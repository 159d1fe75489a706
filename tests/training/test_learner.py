"""The learner on small random batches: it fits them, resumes to the bit, and survives broken ones."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from muzero_ray.config.schema import Config, LearnerConfig, ReplayConfig, RunConfig
from muzero_ray.errors import CheckpointError, ConfigError, NumericsError
from muzero_ray.inference.torch_engine import TorchEngine
from muzero_ray.networks.build import make_network
from muzero_ray.training.build import make_learner
from muzero_ray.training.data_parallel import DataParallelGroup
from muzero_ray.training.learner import Learner
from muzero_ray.training.schedules import learning_rate
from muzero_ray.types import Batch, FloatArray, ItemKeys
from tests.children import child_of
from tests.networks.test_model import MLP, RESNET

B, K, A = 8, 3, 4
SHAPES = {"mlp": (4,), "resnet": (2, 32, 32), "batch norm": (2, 32, 32)}
NETWORKS = {"mlp": MLP, "resnet": RESNET, "batch norm": RESNET.model_copy(update={"norm": "batch"})}


def make_batch(kind: str, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)

    def look(*lead: int) -> Any:
        shape = (*lead, *SHAPES[kind])
        return rng.normal(size=shape).astype(np.float32) if kind == "mlp" else rng.integers(0, 256, shape, np.uint8)

    def floats(x: Any) -> FloatArray:
        return np.asarray(x, np.float32)

    return Batch(
        frames=look(B, 1 + K),
        stack=1,
        actions=rng.integers(0, A, (B, K)).astype(np.int32),
        target_value=floats(rng.normal(0, 5, (B, K + 1))),
        target_reward=floats(rng.normal(0, 2, (B, K + 1))),
        target_policy=floats(rng.dirichlet(np.ones(A), (B, K + 1))),
        policy_mask=floats(rng.random((B, K + 1)) < 0.8),
        value_mask=floats(rng.random((B, K + 1)) < 0.8),
        observation_mask=floats(rng.random((B, K)) < 0.8),
        weights=floats(rng.uniform(0.2, 1, B)),
        keys=ItemKeys(np.arange(B), np.zeros(B, np.int32)),
    )


def learner(
    kind: str = "mlp", *, total: int = 1000, group: DataParallelGroup | None = None, **settings: Any
) -> Learner:
    cfg = Config(
        run=RunConfig(learner_steps=total),
        network=NETWORKS[kind],
        replay=ReplayConfig(min_size=500),
        learner=LearnerConfig(batch_size=B, unroll_steps=K, **{"device": "cpu", "warmup_steps": 0, **settings}),
    )
    return make_learner(cfg, observation_shape=SHAPES[kind], num_actions=A, group=group)


@pytest.mark.parametrize(
    ("kind", "optimizer", "updates"), [("mlp", "adamw", 400), ("resnet", "adamw", 200), ("mlp", "sgd", 600)]
)
def test_one_small_batch_is_learned_by_heart(kind: str, optimizer: str, updates: int) -> None:
    """The loss falls to the entropy of the targets, the lowest a cross-entropy can be; values come out right."""
    batch = make_batch(kind)
    ones = np.ones((B, K + 1), np.float32)
    batch = replace(batch, policy_mask=ones, value_mask=ones, weights=np.ones(B, np.float32))
    lr = 0.01 if optimizer == "adamw" else 0.05
    trained = learner(kind, optimizer=optimizer, lr=lr, lr_schedule="constant", weight_decay=0.0, value_weight=1.0)
    first = trained.train_step(batch)
    for _ in range(updates):
        last = trained.train_step(batch)

    def entropy(p: Any) -> Any:
        return -np.where(p > 0, p * np.log(np.maximum(p, 1e-30)), 0).sum(-1)

    net = make_network(
        MLP if kind == "mlp" else RESNET, observation_shape=SHAPES[kind], num_actions=A, consistency=False, seed=0
    )
    value_floor = entropy(net.value_support.encode(torch.from_numpy(batch.target_value)).numpy())
    reward_floor = entropy(net.reward_support.encode(torch.from_numpy(batch.target_reward)).numpy())[:, 1:]
    policy_floor = entropy(batch.target_policy)
    steps = [x[:, 0] + x[:, 1:].mean(1) for x in (policy_floor, value_floor)]
    floor = float(np.mean(steps[0] + steps[1] + reward_floor.mean(1)))
    gap_before, gap_after = first.losses["loss/total"] - floor, last.losses["loss/total"] - floor
    assert -1e-3 < gap_after < 0.03 * gap_before

    engine = TorchEngine(net)
    engine.load(trained.weights())
    root = engine.initial(batch.observations)
    np.testing.assert_allclose(root.value, batch.target_value[:, 0], atol=0.5)
    child = child_of(engine, root, batch.actions[:, 0])
    np.testing.assert_allclose(child.reward, batch.target_reward[:, 1], atol=0.5)
    np.testing.assert_allclose(child.value, batch.target_value[:, 1], atol=0.5)
    assert last.priorities.max() < 0.5


def test_priorities_are_the_root_value_errors_before_the_update() -> None:
    trained = learner()
    batch = make_batch("mlp")
    for _ in range(20):
        trained.train_step(batch)
    engine = TorchEngine(make_network(MLP, observation_shape=(4,), num_actions=A, consistency=False, seed=0))
    engine.load(trained.weights())
    result = trained.train_step(batch)
    expected = np.abs(engine.initial(batch.observations).value - batch.target_value[:, 0])
    assert result.priorities.dtype == np.float32
    np.testing.assert_allclose(result.priorities, expected, rtol=1e-4, atol=1e-5)


def test_importance_weights_scale_each_sample() -> None:
    """Items with weights (1, ..., 1, 0, ..., 0) train like the first half alone, at half the loss."""
    batch = make_batch("mlp")
    weights = np.repeat(np.array([1, 0], np.float32), B // 2)
    twice: dict[str, Any] = {
        name: np.concatenate([x[: B // 2]] * 2)
        for name, x in vars(batch).items()
        if isinstance(x, np.ndarray) and name != "weights"
    }
    one = learner().train_step(replace(batch, weights=weights)).losses
    two = learner().train_step(replace(batch, **twice, weights=np.full(B, 0.5, np.float32))).losses
    assert one == pytest.approx(two, rel=1e-4)
    assert one["loss/total"] > 0.1


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd"}, {"precision": "bf16", "consistency_weight": 2.0}])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_restored_learner_continues_to_the_bit(kind: str, settings: dict[str, Any]) -> None:
    batches = [make_batch(kind, seed) for seed in range(6)]
    straight = learner(kind, warmup_steps=4, total=8, **settings)
    for batch in batches[:3]:
        straight.train_step(batch)
    arrays, info = straight.state()
    arrays = {key: value.copy() for key, value in arrays.items()}
    resumed = learner(kind, warmup_steps=4, total=8, **settings)
    resumed.train_step(batches[5])  # some other past, to be overwritten
    resumed.load_state(arrays, info)
    assert resumed.step == 3
    for batch in batches[3:]:
        assert straight.train_step(batch).losses == resumed.train_step(batch).losses
    assert np.array_equal(straight.weights(), resumed.weights())
    assert np.array_equal(straight.target_weights(), resumed.target_weights())
    for one, two in zip(straight.state(), resumed.state(), strict=True):
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[key], two[key]) for key in one)


def test_state_of_a_fresh_learner_resets_a_trained_one() -> None:
    fresh, used = learner(), learner()
    used.train_step(make_batch("mlp", 1))
    used.load_state(*fresh.state())
    batch = make_batch("mlp", 2)
    assert fresh.train_step(batch).losses == used.train_step(batch).losses
    assert np.array_equal(fresh.weights(), used.weights())


def test_foreign_states_are_refused_before_anything_changes() -> None:
    trained = learner()
    trained.train_step(make_batch("mlp"))
    arrays, info = trained.state()
    before = trained.weights()
    name = next(key for key in arrays if key.startswith("model."))
    slot = next(key for key in arrays if key.startswith("optimizer.exp_avg."))
    zeros = {key: np.zeros_like(value) for key, value in arrays.items()}
    for wrong in (
        {key: value for key, value in zeros.items() if key != name},
        {**zeros, name: np.zeros((1, 2, 3), np.float32)},
        {**zeros, slot: np.zeros(3, np.float32)},
        {**zeros, "optimizer.exp_avg.nobody": np.zeros(3, np.float32)},
        {**zeros, "other.thing": np.zeros(3, np.float32)},
    ):
        with pytest.raises(CheckpointError):
            trained.load_state(wrong, info)
        assert np.array_equal(trained.weights(), before)


def test_target_weights_are_the_moving_average() -> None:
    trained = learner(ema_decay=0.7)
    average = trained.weights().astype(np.float64)
    np.testing.assert_array_equal(trained.target_weights(), average.astype(np.float32))
    for seed in range(5):
        trained.train_step(make_batch("mlp", seed))
        average = 0.7 * average + 0.3 * trained.weights()
    np.testing.assert_allclose(trained.target_weights(), average, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "poison"),
    [("frames", np.nan), ("target_value", np.nan), ("target_value", np.inf), ("target_reward", np.nan)],
)
def test_broken_batches_are_skipped_then_stop_the_run(field: str, poison: float) -> None:
    trained = learner(max_skipped=3)
    good = make_batch("mlp")
    good = replace(good, value_mask=np.ones((B, K + 1), np.float32))
    trained.train_step(good)
    poisoned = getattr(good, field).copy()
    poisoned[2, ...] = poison
    bad = replace(good, **{field: poisoned})
    before, average = trained.weights(), trained.target_weights()
    for _ in range(2):
        result = trained.train_step(bad)
        assert result.skipped
        assert not result.losses
        assert np.isfinite(result.priorities).all()
    assert trained.step == 1
    assert np.array_equal(trained.weights(), before)
    assert np.array_equal(trained.target_weights(), average)
    assert not trained.train_step(good).skipped  # the count starts again
    before = trained.weights()
    trained.train_step(bad)
    trained.train_step(bad)
    with pytest.raises(NumericsError, match=r"last 3 learner steps after step 2 .*learner\.max_skipped=3"):
        trained.train_step(bad)
    assert np.array_equal(trained.weights(), before)


def test_a_broken_batch_leaves_no_trace_in_the_running_numbers() -> None:
    """BatchNorm's, which has seen it before the loss is known."""
    good = make_batch("batch norm")
    weights = np.full(B, np.nan, np.float32)
    once, twice = learner("batch norm"), learner("batch norm")
    assert twice.train_step(replace(good, weights=weights, frames=255 - good.frames)).skipped
    for trained in (once, twice):
        trained.train_step(good)
    assert np.array_equal(once.weights(), twice.weights())
    variances = [array for name, array in once.state()[0].items() if name.endswith("norm.variance")]
    assert variances
    assert all((array != 1).all() for array in variances)


def test_validating_changes_nothing() -> None:
    trained = learner("batch norm")
    trained.train_step(make_batch("batch norm", 0))
    before = trained.weights()
    first = trained.validate(make_batch("batch norm", 1))
    assert trained.validate(make_batch("batch norm", 1)) == first
    assert np.array_equal(trained.weights(), before)
    once = learner("batch norm")
    for seed in (0, 2):
        once.train_step(make_batch("batch norm", seed))
    trained.train_step(make_batch("batch norm", 2))
    assert np.array_equal(trained.weights(), once.weights())


def test_read_only_batches_train_and_next_observations_are_demanded() -> None:
    batch = make_batch("mlp")
    for array in vars(batch).values():
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    losses = learner(consistency_weight=2.0).train_step(batch).losses
    assert losses["loss/consistency"] < 0 or losses["loss/consistency"] > 0
    parts = 0.25 * losses["loss/value"] + losses["loss/policy"] + losses["loss/reward"]
    assert losses["loss/total"] == pytest.approx(parts + 2.0 * losses["loss/consistency"], rel=1e-5)
    with pytest.raises(ValueError, match="next_observations"):
        learner(consistency_weight=2.0).train_step(replace(batch, frames=batch.frames[:, :1]))
    without = learner().train_step(replace(batch, frames=batch.frames[:, :1])).losses
    assert "loss/consistency" not in without


def test_gradients_are_clipped() -> None:
    """SGD without momentum moves the weights by lr times the clipped gradient."""
    trained = learner(
        optimizer="sgd", momentum=0.0, lr=1.0, lr_schedule="constant", weight_decay=0.0, max_grad_norm=0.1
    )
    before = trained.weights()
    result = trained.train_step(make_batch("mlp"))
    assert result.losses["learner/grad_norm"] > 0.2
    assert np.linalg.norm(trained.weights() - before) == pytest.approx(0.1, rel=1e-3)


def test_the_consistency_loss_uses_the_casts_of_weights_that_are_there() -> None:
    trained = learner("resnet", precision="bf16", consistency_weight=2.0)
    weight = next(trained._network.representation_part.parameters())
    shape = list(weight.shape)
    assert [list(p.shape) for p in trained._network.parameters()].count(shape) == 1
    with torch.profiler.profile(record_shapes=True) as profile:
        trained.train_step(make_batch("resnet"))
    copies = [e for e in profile.events() if e.name == "aten::_to_copy" and e.input_shapes[0] == shape]
    assert len(copies) == 2  # the weight to bf16, its gradient to float32


def test_learning_rate_closed_form() -> None:
    shape: dict[str, Any] = {"base": 0.2, "final": 0.1, "warmup": 4, "total": 101}
    for step, expected in [(0, 0.05), (1, 0.1), (3, 0.2), (4, 0.2), (100, 0.2), (900, 0.2)]:
        assert learning_rate(step, schedule="constant", **shape) == pytest.approx(expected)
    for step, factor in [(25, 0.1 + 0.45 * (1 + math.sqrt(0.5))), (50, 0.55), (100, 0.1), (500, 0.1)]:
        assert learning_rate(step, schedule="cosine", **shape) == pytest.approx(0.2 * factor)
    assert learning_rate(0, schedule="cosine", **{**shape, "warmup": 0}) == 0.2
    assert learning_rate(0, schedule="cosine", **{**shape, "warmup": 0, "total": 1}) == 0.2


def test_the_schedule_reaches_the_optimizer() -> None:
    trained = learner(lr=0.01, warmup_steps=2, total=5)
    rates = [trained.train_step(make_batch("mlp")).losses["learner/lr"] for _ in range(5)]
    assert rates == pytest.approx(
        [0.005, 0.01 * (0.1 + 0.45 * (1 + math.sqrt(0.5))), 0.0055, 0.01 * (0.1 + 0.45 * (1 - math.sqrt(0.5))), 0.001]
    )


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"learner\.device=cuda:99"):
        learner(device="cuda:99")
    cfg = Config(network=MLP, learner=LearnerConfig(batch_size=1, unroll_steps=1, consistency_weight=1.0))
    with pytest.raises(ConfigError, match="at least two latents"):
        make_learner(cfg, observation_shape=(4,), num_actions=A)
