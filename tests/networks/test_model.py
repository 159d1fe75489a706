"""Shapes, ranges, initial outputs, determinism and refusals of the built networks."""

import pytest
import torch

from muzero_ray.config.schema import MlpConfig, NetworkConfig, ResnetConfig, SupportConfig
from muzero_ray.errors import ConfigError
from muzero_ray.networks.build import make_network
from muzero_ray.networks.flat import flatten_state
from muzero_ray.networks.model import MuZeroNetwork, scale_to_unit
from muzero_ray.networks.resnet import ImageDynamics

SMALL = SupportConfig(max=10, bins=21)
MLP = MlpConfig(hidden=8, layers=(16, 16), head_layers=(16,), value=SMALL, reward=SMALL, projection=16)
RESNET = ResnetConfig(channels=8, head_channels=2, value=SMALL, reward=SMALL, projection=16)

CASES = [
    pytest.param(MLP, (4,), torch.float32, (8,), id="vector"),
    pytest.param(MLP, (3, 3, 3), torch.float32, (8,), id="flattened board"),
    pytest.param(RESNET, (4, 32, 48), torch.uint8, (8, 2, 3), id="downsample 16"),
    pytest.param(RESNET.model_copy(update={"downsample": 4}), (1, 16, 16), torch.uint8, (8, 4, 4), id="downsample 4"),
    pytest.param(RESNET.model_copy(update={"downsample": 1}), (3, 6, 7), torch.float32, (8, 6, 7), id="board"),
]


def observations(shape: tuple[int, ...], dtype: torch.dtype, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    if dtype == torch.uint8:
        return torch.randint(0, 256, (batch, *shape), dtype=dtype, generator=generator)
    return torch.randn(batch, *shape, generator=generator)


def build(cfg: NetworkConfig, shape: tuple[int, ...], *, actions: int = 4, seed: int = 0) -> MuZeroNetwork:
    return make_network(cfg, observation_shape=shape, num_actions=actions, consistency=True, seed=seed)


@pytest.mark.parametrize(("cfg", "shape", "dtype", "hidden_shape"), CASES)
def test_shapes_and_ranges(
    cfg: NetworkConfig, shape: tuple[int, ...], dtype: torch.dtype, hidden_shape: tuple[int, ...]
) -> None:
    net = build(cfg, shape)
    hidden = net.represent(observations(shape, dtype))
    after, reward = net.dynamics(hidden, torch.tensor([0, 3, 1], dtype=torch.int32))
    policy, value = net.predict(after)
    assert net.hidden_shape == hidden_shape
    assert reward.shape == value.shape == (3, 21)
    assert policy.shape == (3, 4)
    for latent in (hidden, after):
        assert latent.shape == (3, *hidden_shape)
        assert torch.equal(latent.flatten(1).amin(1), torch.zeros(3))
        torch.testing.assert_close(latent.flatten(1).amax(1), torch.ones(3))
    for with_predictor in (False, True):
        assert net.project(hidden, with_predictor).shape == (3, 16)


@pytest.mark.parametrize(("cfg", "shape", "dtype", "hidden_shape"), CASES)
def test_untrained_heads_say_nothing(
    cfg: NetworkConfig, shape: tuple[int, ...], dtype: torch.dtype, hidden_shape: tuple[int, ...]
) -> None:
    net = build(cfg, shape)
    hidden, reward = net.dynamics(net.represent(observations(shape, dtype)), torch.zeros(3, dtype=torch.int32))
    policy, value = net.predict(hidden)
    assert hidden.shape[1:] == hidden_shape
    assert not policy.any()
    torch.testing.assert_close(net.value_support.decode(value), torch.zeros(3), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(net.reward_support.decode(reward), torch.zeros(3), atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(("cfg", "shape", "dtype", "hidden_shape"), CASES)
def test_rows_are_independent_and_actions_matter(
    cfg: NetworkConfig, shape: tuple[int, ...], dtype: torch.dtype, hidden_shape: tuple[int, ...]
) -> None:
    net = build(cfg, shape)
    images = observations(shape, dtype)
    together = net.represent(images)
    assert together.shape[1:] == hidden_shape
    torch.testing.assert_close(torch.cat([net.represent(row[None]) for row in images]), together)
    states = together[:1].expand(4, *hidden_shape)
    after, _ = net.dynamics(states, torch.arange(4))
    gaps = torch.pdist(after.flatten(1))
    assert gaps.min() > 1e-2


def test_atari_preset_has_the_shapes_of_the_overview() -> None:
    cfg = ResnetConfig(channels=256, downsample=4, blocks=1)
    net = make_network(cfg, observation_shape=(3, 96, 96), num_actions=18, consistency=False, seed=0)
    with torch.inference_mode():
        hidden = net.represent(torch.zeros(1, 3, 96, 96, dtype=torch.uint8))
        after, reward = net.dynamics(hidden, torch.zeros(1, dtype=torch.int32))
        policy, value = net.predict(after)
    assert hidden.shape == after.shape == (1, 256, 24, 24)
    assert reward.shape == value.shape == (1, 601)
    assert policy.shape == (1, 18)


def test_uint8_images_are_read_as_fractions_of_255() -> None:
    net = build(RESNET, (1, 16, 16))
    images = observations((1, 16, 16), torch.uint8)
    torch.testing.assert_close(net.represent(images), net.represent(images.double() / 255))


def test_scale_to_unit_by_hand_and_on_constants() -> None:
    x = torch.tensor([[[1.0, 3.0], [5.0, 2.0]], [[7.0, 7.0], [7.0, 7.0]]], requires_grad=True)
    scaled = scale_to_unit(x)
    assert scaled.tolist() == [[[0.0, 0.5], [1.0, 0.25]], [[0.0, 0.0], [0.0, 0.0]]]
    scaled[1].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("actions", [9, 10])
def test_board_actions_start_as_stones_on_their_cells(actions: int) -> None:
    planes = ImageDynamics((8, 3, 3), 1, actions, "group", board=True).planes.detach()[..., 0].flatten(1)
    assert torch.equal(planes[:9], torch.eye(9))
    assert not planes[9:].any()


def test_board_actions_start_as_their_columns() -> None:
    planes = ImageDynamics((8, 2, 3), 1, 3, "group", board=True).planes.detach()[..., 0]
    assert planes.tolist() == [[[1, 0, 0]] * 2, [[0, 1, 0]] * 2, [[0, 0, 1]] * 2]


@pytest.mark.parametrize(("actions", "board"), [(3, False), (9, False), (4, True)])
def test_actions_without_a_place_start_constant_over_the_image(actions: int, board: bool) -> None:
    planes = ImageDynamics((8, 3, 3), 1, actions, "group", board=board).planes.detach()
    assert torch.equal(planes, planes[:, :1, :1].expand_as(planes))


def test_the_seed_decides_the_parameters_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first, again, other = (flatten_state(build(MLP, (4,), seed=s)) for s in (1, 1, 2))
    assert torch.equal(torch.rand(4), expected)
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("cfg", "shape", "actions", "message"),
    [
        (RESNET, (4,), 2, "network.kind=mlp"),
        (RESNET, (4, 40, 32), 2, "network.downsample=16 does not divide observations of 40x32"),
        (MLP, (4, 4), 2, "images"),
        (MLP, (4,), 0, "at least one action"),
        (MLP.model_copy(update={"layers": ()}), (4,), 2, "network.layers is empty"),
    ],
)
def test_impossible_networks_are_refused(
    cfg: NetworkConfig, shape: tuple[int, ...], actions: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(cfg, shape, actions=actions)


def test_projection_is_only_there_when_asked_for() -> None:
    net = make_network(MLP, observation_shape=(4,), num_actions=2, consistency=False, seed=0)
    with pytest.raises(ValueError, match="without a projection"):
        net.project(torch.zeros(2, 8), with_predictor=True)
