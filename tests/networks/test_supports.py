"""h-transform and two-hot supports against slow formulas in float64."""

import math

import numpy as np
import pytest
import torch

from muzero_ray.networks.supports import Support, h_inverse, h_transform


def slow_h(x: float) -> float:
    return math.copysign(math.sqrt(abs(x) + 1) - 1, x) + 0.001 * x


def slow_two_hot(x: float, top: float, bins: int, transform: bool) -> list[float]:
    y = slow_h(x) if transform else x
    y = min(max(y, -top), top)
    spots = [-top + 2 * top * i / (bins - 1) for i in range(bins)]
    return [max(0.0, 1 - abs(y - spot) / (spots[1] - spots[0])) for spot in spots]


SCALARS = [0.0, 1e-6, -1e-3, 0.5, -1.0, 3.7, 20.0, -150.0, 499.0, -864.0, 9_000.0, -60_000.0]


def test_h_is_the_published_formula_and_its_inverse_undoes_it() -> None:
    x = np.array(SCALARS)
    np.testing.assert_allclose(h_transform(x), [slow_h(v) for v in SCALARS], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(h_inverse(h_transform(x)), x, rtol=1e-12, atol=1e-15)


def test_h_in_float32_is_accurate_near_zero_and_keeps_the_dtype() -> None:
    x = torch.tensor(SCALARS, dtype=torch.float32)
    there = h_transform(x)
    assert there.dtype == torch.float32
    torch.testing.assert_close(h_inverse(there), x, rtol=2e-6, atol=0.0)
    array = h_inverse(there.numpy())
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, SCALARS, rtol=2e-6)
    assert h_inverse(torch.zeros(1)).item() == 0.0


@pytest.mark.parametrize(("top", "bins", "transform"), [(300.0, 601, True), (10.0, 21, True), (1.0, 5, False)])
def test_two_hot_equals_the_slow_loop_and_round_trips(top: float, bins: int, transform: bool) -> None:
    support = Support(top, bins, transform)
    scalars = torch.tensor([*SCALARS, 1e9, -1e9], dtype=torch.float64).reshape(2, -1)
    coded = support.encode(scalars)
    slow = [slow_two_hot(x, top, bins, transform) for x in scalars.flatten().tolist()]
    np.testing.assert_allclose(coded.reshape(-1, bins).numpy(), slow, atol=1e-9)
    limit = h_inverse(torch.tensor(top)).item() if transform else top
    # log turns probabilities into logits that decode must read as the same distribution.
    torch.testing.assert_close(support.decode(coded.log()), scalars.float().clamp(-limit, limit), rtol=1e-5, atol=1e-4)


def test_points_are_symmetric_with_an_exact_zero() -> None:
    points = Support(7.3, 21, True).points()
    assert points[10].item() == 0.0
    assert torch.equal(points, -points.flip(0))
    assert points[-1].item() == pytest.approx(7.3)


def test_cross_entropy_equals_the_dense_one() -> None:
    support = Support(20.0, 41, True)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 4, 41, generator=generator)
    scalars = torch.randn(3, 4, generator=generator) * 50
    dense = -(support.encode(scalars) * torch.log_softmax(logits, -1)).sum(-1)
    torch.testing.assert_close(support.cross_entropy(logits, scalars), dense)


def test_nan_targets_give_a_nan_loss_not_an_index_error() -> None:
    support = Support(20.0, 41, True)
    loss = support.cross_entropy(torch.zeros(2, 41), torch.tensor([math.nan, 1.0]))
    assert loss.isnan().tolist() == [True, False]


@pytest.mark.parametrize(("top", "bins"), [(10.0, 20), (10.0, 1), (0.0, 21)])
def test_impossible_supports_are_refused(top: float, bins: int) -> None:
    with pytest.raises(ValueError, match="odd number of bins"):
        Support(top, bins, True)
