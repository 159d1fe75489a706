"""What the networks read of an observation: the same numbers, whatever type and layout they have."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from muzero_ray.config.schema import EnvConfig
from muzero_ray.envs.environment import BrokenContract, CheckedEnvironment
from muzero_ray.envs.observations import ObservationReader
from muzero_ray.envs.registry import make_environment
from muzero_ray.networks.build import make_network
from muzero_ray.types import Array
from tests.networks.test_model import RESNET


def read_by_networks(reader: ObservationReader, raw: Array) -> Array:
    """Through the frame in replay, to what h gets."""
    frame = reader.read(raw)
    assert (frame.shape, str(frame.dtype)) == (reader.shape, reader.dtype)
    return frame / np.float32(255) if frame.dtype == np.uint8 else frame


def box(low: Any, high: Any, shape: tuple[int, ...], dtype: Any) -> Box:
    return Box(np.full(shape, low, dtype), np.full(shape, high, dtype), dtype=dtype)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "raw", "expected"),
    [
        (0, 1, np.uint8, [0, 1, 1], [0, 1, 1]),
        (0, 1, np.int64, [0, 1, 1], [0, 1, 1]),
        (0, 255, np.uint8, [0, 51, 255], [0, 0.2, 1]),
        (0, 20, np.int32, [0, 5, 20], [0, 0.25, 1]),
        (-10, 10, np.int8, [-10, 0, 5], [-1, 0, 0.5]),
        (-128, 127, np.int8, [-128, 0, 64], [-1, 0, 0.5]),
        (1000, 1010, np.int64, [1000, 1001, 1010], [0, 0.1, 1]),
        (-30, -20, np.int16, [-30, -20, -25], [-1, 0, -0.5]),
        (0, 5000, np.int32, [0, 7, 5000], [0, 7, 5000]),  # logarithms are taken of it
        (np.iinfo(np.int64).min, np.iinfo(np.int64).max, np.int64, [-3, 0, 9], [-3, 0, 9]),
        (0, np.iinfo(np.uint32).max, np.uint32, [0, 7, 9], [0, 7, 9]),
        (7, 7, np.uint8, [7, 7, 7], [7, 7, 7]),
        (0, 1, np.float32, [0, 0.5, 1], [0, 0.5, 1]),
        (-1000, 1000, np.float64, [0, 0.5, 1], [0, 0.5, 1]),
        (0, 1, np.bool_, [0, 1, 1], [0, 1, 1]),
    ],
)
def test_vectors_of_integers_are_scaled_by_their_bounds(
    low: Any, high: Any, dtype: Any, raw: list[float], expected: list[float]
) -> None:
    reader = ObservationReader(box(low, high, (3,), dtype))
    np.testing.assert_allclose(reader.read(np.array(raw, dtype)), np.array(expected, np.float32), rtol=1e-6)
    assert reader.dtype == "float32"


def test_each_number_of_a_vector_has_bounds_of_its_own() -> None:
    reader = ObservationReader(Box(np.array([0, 0, -2]), np.array([1, 200, 9_999]), dtype=np.int64))
    np.testing.assert_allclose(reader.read(np.array([1, 100, 77])), [1, 0.5, 77])
    assert reader.note == "int64 -2..9999, scaled by its bounds"


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 255, np.uint8),
        (0, 1, np.uint8),
        (0, 10, np.uint8),
        (50, 60, np.uint8),
        (0, 1, np.int8),
        (-100, 100, np.int8),
        (0, 1000, np.int16),
        (0, 65_535, np.uint16),
        (1000, 3000, np.int64),
        (0, 1, np.bool_),
    ],
)
def test_the_lightest_and_the_darkest_of_an_image_are_the_same_for_every_type(low: int, high: int, dtype: Any) -> None:
    reader = ObservationReader(box(low, high, (4, 4, 2), dtype))
    raw = np.full((4, 4, 2), low, dtype)
    raw[0, 0, 0], raw[1, 2, 1] = high, (low + high) // 2
    seen = read_by_networks(reader, raw)
    assert seen.shape == (2, 4, 4)
    darkest = -1.0 if low < 0 else 0.0
    assert (seen[0, 0, 0], seen[0, 3, 3]) == (1.0, darkest)
    share = ((low + high) // 2 - max(low, 0)) / (high - max(low, 0))
    assert seen[1, 1, 2] == pytest.approx(share, abs=0.51 / 255)


def test_bytes_of_0_to_255_come_through_untouched() -> None:
    raw = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    frame = ObservationReader(box(0, 255, (8, 8, 3), np.uint8)).read(raw)
    np.testing.assert_array_equal(frame, np.transpose(raw, (2, 0, 1)))
    assert frame.flags.c_contiguous
    assert not np.shares_memory(frame, raw)


def test_an_unbounded_image_is_left_as_it_is() -> None:
    space = Box(0, np.inf, (4, 4, 1), np.int16)
    raw = np.full((4, 4, 1), 300, np.int16)
    assert (ObservationReader(space).read(raw) == 300.0).all()


def test_a_byte_beyond_the_bounds_is_an_error_and_not_another_shade() -> None:
    reader = ObservationReader(box(0, 1, (4, 4, 1), np.uint8))
    with pytest.raises(BrokenContract, match=r"numbers from 0 to 1 as its space says .*env\.scaling=bytes.*got 0 to 9"):
        reader.read(np.array([9] + 15 * [0], np.uint8).reshape(4, 4, 1))


def test_a_network_is_lit_by_an_image_of_zeros_and_ones_as_by_one_of_255s() -> None:
    net = make_network(RESNET, observation_shape=(4, 32, 32), num_actions=3, consistency=False, seed=0)
    lit = np.random.default_rng(0).integers(0, 2, (4, 32, 32))
    latents = []
    for high, dtype in ((1, np.uint8), (255, np.uint8), (500, np.int32)):
        frame = ObservationReader(box(0, high, (4, 32, 32), dtype)).read((lit * high).astype(dtype))
        with torch.no_grad():
            latents.append(net.represent(torch.from_numpy(frame[None])))
    torch.testing.assert_close(latents[0], latents[1], rtol=0, atol=0)
    torch.testing.assert_close(latents[0], latents[2])


@pytest.mark.parametrize(
    ("low", "high", "shape", "dtype", "raw", "expected"),
    [
        (0, 1, (3,), np.uint8, 1, np.float32(1) / np.float32(255)),
        (0, 20, (3,), np.int64, 5, 5.0),
        (0, 1, (4, 4, 1), np.uint8, 1, 1),
        (0, 1000, (4, 4, 1), np.int16, 500, 500.0),
    ],
)
def test_runs_of_before_see_what_they_saw(
    low: int, high: int, shape: tuple[int, ...], dtype: Any, raw: int, expected: float
) -> None:
    reader = ObservationReader(box(low, high, shape, dtype), scaling="bytes")
    frame = reader.read(np.full(shape, raw, dtype))
    assert (frame == expected).all()
    assert frame.dtype == (np.uint8 if expected == 1 else np.float32)


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((3, 8, 8), "auto", (3, 8, 8)),
        ((8, 8, 3), "auto", (3, 8, 8)),
        ((16, 8, 8), "auto", (8, 16, 8)),  # as it has always been
        ((16, 8, 8), "first", (16, 8, 8)),
        ((16, 8, 8), "last", (8, 16, 8)),
        ((3, 8, 8), "last", (8, 3, 8)),
        ((8, 8, 3), "first", (8, 8, 3)),
        ((6, 7), "first", (1, 6, 7)),
        ((6, 7), "auto", (1, 6, 7)),
        ((5,), "first", (5,)),
    ],
)
def test_channels_are_where_the_setting_says(shape: tuple[int, ...], channels: Any, expected: tuple[int, ...]) -> None:
    reader = ObservationReader(box(0, 255, shape, np.uint8), channels=channels)
    assert reader.shape == expected
    raw = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    seen = reader.read(raw)
    assert sorted(seen.ravel()) == (sorted(raw.ravel()) if len(shape) > 1 else sorted((raw / 255).astype(np.float32)))


@pytest.mark.parametrize(
    ("shape", "channels", "said"),
    [
        ((16, 8, 8), "auto", True),
        ((8, 8, 16), "auto", True),
        ((8, 8, 8), "auto", True),
        ((3, 8, 8), "auto", False),
        ((8, 8, 3), "auto", False),
        ((16, 8, 8), "first", False),
        ((8, 8, 16), "last", False),
        ((8, 8), "auto", False),
    ],
)
def test_a_shape_that_can_be_read_in_two_ways_says_so(shape: tuple[int, ...], channels: Any, said: bool) -> None:
    note = ObservationReader(box(0, 255, shape, np.uint8), channels=channels).note
    assert ("set --env.channels first" in note) == said


def odd(name: str, **settings: Any) -> CheckedEnvironment:
    return make_environment(EnvConfig(id=f"tests.odd_environments:{name}-v0", **settings))


@pytest.mark.parametrize(
    ("name", "settings", "seen"),
    [
        (
            "Image",
            {"kwargs": {"c": 16}, "channels": "first"},
            "image, 16 channels of 8 x 8, uint8 0..255, scaled by 255; 4 actions",
        ),
        ("Image", {"kwargs": {"layout": "hw"}}, "image, 1 channel of 8 x 8, uint8 0..255, scaled by 255; 4 actions"),
        ("Bandit", {"kwargs": {"dtype": "uint8", "scale": 10}}, "vector of 3, uint8 0..10, scaled by 10; 3 actions"),
        ("Bandit", {"kwargs": {"dtype": "int64"}}, "vector of 3, int64 0..1, not scaled; 3 actions"),
        (
            "Bandit",
            {"kwargs": {"dtype": "int64", "low": 90, "shift": 90}},
            "vector of 3, int64 90..91, less 90; 3 actions",
        ),
        ("Bandit", {}, "vector of 3, float32 0..1, not scaled; 3 actions"),
    ],
)
def test_what_is_seen_is_said_in_one_line(name: str, settings: dict[str, Any], seen: str) -> None:
    assert odd(name, **settings).spec.seen == seen


def test_the_other_kinds_say_what_is_seen() -> None:
    game = make_environment(EnvConfig(kind="atari", id="Pong"))
    assert game.spec.seen == "image, 1 channel of 96 x 96, uint8 0..255, scaled by 255; 6 actions"
    game.close()
    board = make_environment(EnvConfig(kind="openspiel", id="tic_tac_toe"))
    assert board.spec.seen == "image, 4 channels of 3 x 3, float32; 9 actions"


@pytest.mark.parametrize("kind", ["int8", "bool", "list"])
def test_masks_are_honoured(kind: str) -> None:
    env = odd("Masked", kwargs={"kind": kind})
    env.reset(1)
    for _ in range(7):
        env.step(int(np.flatnonzero(env.legal_actions())[0]))


def test_nothing_need_be_legal_where_a_game_is_truncated() -> None:
    env = odd("MaskedTrunc")
    env.reset(1)
    for _ in range(8):
        step = env.step(int(np.flatnonzero(env.legal_actions())[0]))
    assert (step.terminated, step.truncated, env.legal_actions().any()) == (False, True, False)
    again = odd("MaskedTrunc")
    np.testing.assert_array_equal(again.restore(env.save()), step.observation)
    assert not again.legal_actions().any()
    env.reset(2)
    assert env.legal_actions().any()


def test_a_list_of_action_numbers_is_not_taken_for_a_mask() -> None:
    class Indices(gymnasium.Env[Any, Any]):
        observation_space, action_space = Box(0, 1, (2,), np.float32), gymnasium.spaces.Discrete(3)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Array, dict[str, Any]]:
            del seed, options
            return np.zeros(2, np.float32), {"action_mask": np.array([0, 1, 2])}

    gymnasium.register("Indices-v0", entry_point=Indices)
    try:
        with pytest.raises(Exception, match=r"action_mask'\]: expected 0 and 1 alone, got \[0, 1, 2\]"):
            make_environment(EnvConfig(id="Indices-v0")).reset(0)
    finally:
        gymnasium.registry.pop("Indices-v0")
