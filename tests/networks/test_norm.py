"""Our BatchNorm against torch's, and what it remembers."""

import pytest
import torch
from torch import nn

from muzero_ray.networks.norm import BatchNorm, batch_norms, make_norm
from tests.networks.test_model import RESNET, build


def images(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Channels of different sizes, away from 0.
    return torch.randn(6, 3, 4, 5, generator=generator) * torch.tensor([0.1, 1.0, 7.0]).view(3, 1, 1) + 2.0


def pair() -> tuple[BatchNorm, nn.BatchNorm2d]:
    """Ours and torch's, with the same scales; torch's running numbers become the mean over the passes."""
    ours, theirs = BatchNorm(3), nn.BatchNorm2d(3, momentum=None)
    for norm in (ours, theirs):
        norm.weight.data = torch.tensor([0.5, 1.0, 2.0])
        norm.bias.data = torch.tensor([0.0, 1.0, -1.0])
    return ours, theirs


def test_trains_like_torchs_and_answers_like_it_afterwards() -> None:
    ours, theirs = pair()
    for seed in range(3):
        torch.testing.assert_close(ours(images(seed)), theirs(images(seed)))
    ours.commit(1.0)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(images(9)), theirs(images(9)))


def test_running_numbers_move_only_when_told() -> None:
    norm, _ = pair()
    norm.mean.data.fill_(4.0)
    norm.variance.data.fill_(9.0)
    first, second = images(0), images(1)
    norm(first)
    norm(second)
    assert torch.equal(norm.mean, torch.full((3,), 4.0))
    norm.commit(0.25)
    over = (0, 2, 3)
    torch.testing.assert_close(norm.mean.data, 3.0 + 0.25 * (first.mean(over) + second.mean(over)) / 2)
    torch.testing.assert_close(norm.variance.data, 6.75 + 0.25 * (first.var(over) + second.var(over)) / 2)
    assert norm.batch_statistics() == []
    moved = norm.mean.clone()
    norm.commit(0.25)  # nothing was seen since
    assert torch.equal(norm.mean, moved)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_is_forgotten_leaves_no_trace(poison: float) -> None:
    norm, _ = pair()
    broken = images(0)
    broken[1, 2, 3, 4] = poison
    norm(broken)
    norm.discard()
    assert torch.equal(norm.mean, torch.zeros(3))
    norm(images(1))
    norm.commit(1.0)
    torch.testing.assert_close(norm.mean.data, images(1).mean((0, 2, 3)))


def test_search_sees_each_image_by_itself() -> None:
    net = build(RESNET.model_copy(update={"norm": "batch"}), (2, 32, 32)).eval()
    looks = torch.randint(0, 256, (4, 2, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(net.represent(looks)[:1], net.represent(looks[:1]))
    assert all(norm.batch_statistics() == [] for norm in batch_norms(net))


def test_the_setting_decides() -> None:
    for kind, expected in (("group", nn.GroupNorm), ("batch", BatchNorm)):
        assert type(make_norm(kind, 8)) is expected  # type: ignore[arg-type]
        net = build(RESNET.model_copy(update={"norm": kind}), (2, 32, 32))
        # h: three strided convolutions and a block, g: a convolution and a block.
        assert sum(type(part) is expected for part in net.modules()) == 3 + 2 + 1 + 2
