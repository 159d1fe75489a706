"""The losses against slow numpy formulas and closed forms."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from muzero_ray.config.learning import LearnerConfig
from muzero_ray.networks.flat import load_flat
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.networks.supports import Support
from muzero_ray.training.losses import (
    LossInput,
    Targets,
    UnrolledOutput,
    loss_terms,
    negative_similarity,
    project_unrolled,
    total_loss,
    unroll,
)
from tests.inference.test_flat_engine import KINDS, some_observations, trained_like
from tests.networks.test_model import build
from tests.networks.test_supports import slow_two_hot

B, K, A = 3, 4, 5
VALUE, REWARD = Support(10.0, 21, True), Support(2.0, 5, False)


def random_case(steps: int = K, seed: int = 0) -> tuple[UnrolledOutput, Targets]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(0, 2, shape).astype(np.float32))

    def mask() -> torch.Tensor:
        return torch.from_numpy(rng.integers(0, 2, (B, steps + 1)).astype(np.float32))

    out = UnrolledOutput(normal(B, steps + 1, A), normal(B, steps + 1, 21), normal(B, steps, 5), torch.zeros(0))
    policy = torch.from_numpy(rng.dirichlet(np.ones(A), (B, steps + 1)).astype(np.float32))
    return out, Targets(10 * normal(B, steps + 1), normal(B, steps + 1), policy, mask(), mask())


def loss_of(out: UnrolledOutput, targets: Targets) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The total `[B]`, and the terms."""
    network: Any = SimpleNamespace(value_support=VALUE, reward_support=REWARD)
    terms = loss_terms(LearnerConfig(value_weight=0.25, reward_weight=1.5))
    return total_loss(terms, LossInput(network, out, targets, None, None))


def slow_cross_entropy(target: list[float], logits: torch.Tensor) -> float:
    z = logits.double().numpy()
    log_p = z - np.log(np.exp(z).sum())
    return -sum(t * lp for t, lp in zip(target, log_p, strict=True))


def test_muzero_loss_equals_the_slow_formula() -> None:
    out, targets = random_case()
    total, terms = loss_of(out, targets)
    assert list(terms) == ["policy", "value", "reward"]
    for b in range(B):
        policy = value = reward = 0.0
        for k in range(K + 1):
            share = 1.0 if k == 0 else 1.0 / K
            if targets.policy_mask[b, k]:
                policy += share * slow_cross_entropy(targets.policy[b, k].tolist(), out.policy_logits[b, k])
            if targets.value_mask[b, k]:
                two_hot = slow_two_hot(float(targets.value[b, k]), 10.0, 21, True)
                value += share * slow_cross_entropy(two_hot, out.value_logits[b, k])
                if k > 0:
                    two_hot = slow_two_hot(float(targets.reward[b, k]), 2.0, 5, False)
                    reward += share * slow_cross_entropy(two_hot, out.reward_logits[b, k - 1])
        ours = [float(term[b]) for term in (total, *terms.values())]
        assert ours == pytest.approx([policy + 0.25 * value + 1.5 * reward, policy, value, reward], rel=1e-4)


def test_the_root_reward_is_not_trained() -> None:
    out, targets = random_case()
    reward = targets.reward.clone()
    reward[:, 0] = 1e6
    assert torch.equal(loss_of(out, targets)[0], loss_of(out, targets._replace(reward=reward))[0])


def test_loss_and_gradient_do_not_grow_with_the_number_of_unrolled_steps() -> None:
    """If every unrolled step looks the same, one of them weighs as much as seven."""
    out, targets = random_case(steps=1)
    targets = targets._replace(policy_mask=torch.ones(B, 2), value_mask=torch.ones(B, 2))

    def stretched(x: torch.Tensor, times: int) -> torch.Tensor:
        last = x[:, -1:]
        return torch.cat((x[:, :-1], last.repeat_interleave(times, dim=1)), dim=1)

    sizes, totals = [], []
    for times in (1, 7):
        logits = [t.clone().requires_grad_() for t in out[:3]]
        longer = UnrolledOutput(*(stretched(t, times) for t in logits), out.hidden)
        total = loss_of(longer, Targets(*(stretched(t, times) for t in targets)))[0]
        total.sum().backward()
        totals.append(total.detach())
        sizes.append([t.grad for t in logits])
    torch.testing.assert_close(totals[0], totals[1])
    torch.testing.assert_close(sizes[0], sizes[1])


@pytest.mark.parametrize(("cfg", "shape"), KINDS)
def test_unroll_equals_single_steps(cfg, shape) -> None:  # type: ignore[no-untyped-def]
    net = build(cfg, shape)
    load_flat(net, trained_like(net, 1))
    images = torch.from_numpy(some_observations(shape))
    actions = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (5, 3)).astype(np.int32))
    with torch.no_grad():
        out = unroll(net, images, actions)
        hidden = net.represent(images)
        for k in range(4):
            policy, value = net.predict(hidden)
            torch.testing.assert_close(out.policy_logits[:, k], policy)
            torch.testing.assert_close(out.value_logits[:, k], value)
            if k < 3:
                hidden, reward = net.dynamics(hidden, actions[:, k])
                torch.testing.assert_close(out.reward_logits[:, k], reward)
                torch.testing.assert_close(out.hidden[5 * k : 5 * k + 5], hidden)


def representation_gradient(net: MuZeroNetwork, scalar: torch.Tensor) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(scalar, list(net.representation_part.parameters()))])


@pytest.mark.parametrize(("cfg", "shape"), KINDS)
def test_gradient_is_halved_once_per_dynamics_step(cfg, shape) -> None:  # type: ignore[no-untyped-def]
    """h is reached from step k through k dynamics steps only: its gradient must be 2^-k of the true one."""
    net = build(cfg, shape)
    load_flat(net, trained_like(net, 1))
    net.double()
    images = torch.from_numpy(some_observations(shape))
    actions = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (5, 3)))
    for k in range(4):
        hidden = net.represent(images)
        for step in range(k):
            hidden, _ = net.dynamics(hidden, actions[:, step])
        true = representation_gradient(net, net.predict(hidden)[1].square().sum())
        ours = representation_gradient(net, unroll(net, images, actions).value_logits[:, k].square().sum())
        torch.testing.assert_close(ours, true * 0.5**k, rtol=1e-9, atol=1e-12)
        assert true.abs().max() > 1e-6


def test_consistency_loss_closed_form() -> None:
    east, north = [1.0, 0.0], [0.0, 2.0]
    online = torch.tensor([[east, east, east], [east, north, [3.0, 3.0]]])
    target = torch.tensor([[[5.0, 0.0], [-1.0, 0.0], north], [north, north, east]])
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    expected = [-(1 - 1 + 0) / 3, -(0 + 0.5**0.5) / 3]
    torch.testing.assert_close(negative_similarity(online, target, mask), torch.tensor(expected))


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("cfg", "shape"), KINDS)
def test_consistency_trains_the_online_branch_only(cfg, shape, bf16: bool) -> None:  # type: ignore[no-untyped-def]
    """The gradient must equal that of the loss with the target branch computed apart, as a constant."""
    net = build(cfg, shape)
    load_flat(net, trained_like(net, 1))
    images = torch.from_numpy(some_observations(shape, batch=4))
    later = torch.from_numpy(some_observations(shape, batch=8)).view(4, 2, *shape)
    actions = torch.zeros(4, 2, dtype=torch.int32)

    def gradient(online: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss = negative_similarity(online, target, torch.ones(4, 2)).sum()
        grads = torch.autograd.grad(loss, [p for p in net.parameters() if p.requires_grad], allow_unused=True)
        return torch.cat([g.flatten() for g in grads if g is not None])

    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        ours = gradient(*project_unrolled(net, unroll(net, images, actions), later))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), torch.no_grad():
        constant = torch.stack(
            [net.project(net.represent(later.flatten(0, 1)), False)[i * 2 : i * 2 + 2] for i in range(4)]
        )
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        states = unroll(net, images, actions).hidden
        online = net.project(states, True)
        online = torch.stack([online[[i, 4 + i]] for i in range(4)])  # step-major rows to [B, K]
        alone = gradient(online, constant)
    assert ours.shape == alone.shape
    assert ours.norm() > 1e-3
    torch.testing.assert_close(ours, alone, rtol=1e-3, atol=1e-5 if not bf16 else 1e-3 * float(alone.abs().max()))


def test_replacing_masked_targets_changes_nothing() -> None:
    out, targets = random_case()
    noise = torch.rand(B, K + 1)
    changed = replace_masked(targets, noise)
    assert not torch.equal(changed.value, targets.value)
    torch.testing.assert_close(loss_of(out, changed)[0], loss_of(out, targets)[0], rtol=0.0, atol=0.0)


def replace_masked(targets: Targets, noise: torch.Tensor) -> Targets:
    free = 1 - targets.value_mask
    return targets._replace(
        value=targets.value + free * noise,
        reward=targets.reward + free * noise,
        policy=targets.policy + ((1 - targets.policy_mask) * noise)[..., None],
    )
