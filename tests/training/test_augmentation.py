"""Images that are trained on: moved as a slow loop moves them, one move for all frames of an item."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyspiel
import pytest

from muzero_ray.control.probe import probe
from muzero_ray.errors import ConfigError
from muzero_ray.training.augmentation import augment
from muzero_ray.training.build import build_learner
from muzero_ray.types import Array, Batch
from tests.replay.games import make_buffer, make_game
from tests.small_runs import small_config

SIZE, MOST = 48, 2


def image_batch(items: int = 60) -> Batch:
    buffer = make_buffer(frame_stack=2, num_players=1, with_next_observations=True)
    buffer.add(make_game(np.random.default_rng(0), 12, frame=(1, SIZE, SIZE), dtype=np.uint8))
    return buffer.sample(items, 0.5)


def board_batch(items: int) -> Batch:
    buffer = make_buffer(num_players=2, with_next_observations=True)
    buffer.add(make_game(np.random.default_rng(0), 12, frame=(3, 6, 7), actions=7))
    return buffer.sample(items, 0.5)


def moved(image: Array, down: int, right: int) -> Array:
    out = np.empty_like(image)
    for row in range(SIZE):
        for column in range(SIZE):
            out[row, column] = image[min(max(row - down, 0), SIZE - 1), min(max(column - right, 0), SIZE - 1)]
    return out


def test_each_item_is_moved_as_a_whole() -> None:
    batch = image_batch()
    changed = augment(batch, ("shift",), np.random.default_rng(0)).frames
    assert changed.dtype == np.uint8
    seen = set()
    for before, after in zip(batch.frames, changed, strict=True):
        fits = [
            (down, right)
            for down in range(-MOST, MOST + 1)
            for right in range(-MOST, MOST + 1)
            if all(
                np.array_equal(moved(image, down, right), other)
                for image, other in zip(before[:, 0], after[:, 0], strict=True)
                if image.any()
            )
        ]
        assert len(fits) == 1
        seen.add(fits[0])
    assert {down for down, _ in seen} == {right for _, right in seen} == set(range(-MOST, MOST + 1))


def test_intensity_is_one_factor_per_item() -> None:
    batch = image_batch()
    changed = augment(batch, ("intensity",), np.random.default_rng(0)).frames
    assert changed.dtype == np.float32
    factors = []
    for before, after in zip(batch.frames / 255, changed, strict=True):
        factor = after.sum() / before.sum()
        np.testing.assert_allclose(after, before * factor, rtol=1e-5)
        factors.append(factor)
    assert 0.9 - 1e-5 <= min(factors) < 0.96 < 1.04 < max(factors) <= 1.1 + 1e-5
    assert abs(np.mean(factors) - 1.0) < 5 * 0.05 / np.sqrt(len(factors))


def test_a_mirrored_game_is_another_game_of_connect_four() -> None:
    """What the rules say of the mirrored moves from the mirrored position is what the batch says of them."""
    game = pyspiel.load_game("connect_four(egocentric_obs_tensor=true)")
    rng = np.random.default_rng(0)

    def board(state: Any) -> Array:
        planes = state.observation_tensor(state.current_player())
        return np.reshape(np.asarray(planes, np.float32), game.observation_tensor_shape())

    opening, moves = [3, 3, 4, 1, 0], [0, 2, 6, 4, 4]
    state = game.new_initial_state()
    for move in opening:
        state.apply_action(move)
    frames = [board(state)]
    for move in moves:
        state.apply_action(move)
        frames.append(board(state))
    items = 40
    policies = rng.dirichlet(np.ones(7), (items, 6)).astype(np.float32)
    batch = replace(
        board_batch(items),
        frames=np.stack([frames] * items),
        actions=np.array([moves] * items, np.int32),
        target_policy=policies,
    )
    changed = augment(batch, ("mirror",), np.random.default_rng(0))

    mirrored = 0
    for item in range(items):
        turned = not np.array_equal(changed.frames[item], batch.frames[item])
        mirrored += turned
        state = game.new_initial_state()
        for move in opening:
            state.apply_action(6 - move if turned else move)
        for step, move in enumerate([*changed.actions[item].tolist(), None]):
            np.testing.assert_array_equal(changed.frames[item, step], board(state))
            if move is not None:
                state.apply_action(move)
        for column in range(7):
            np.testing.assert_array_equal(
                changed.target_policy[item, :, column], policies[item, :, 6 - column if turned else column]
            )
    assert 5 <= mirrored <= items - 5
    np.testing.assert_array_equal(changed.target_value, batch.target_value)


def test_a_learner_trains_on_other_images_at_each_step_and_on_the_same_ones_again() -> None:
    base = small_config("breakout")
    config = small_config("breakout", learner=base.learner.model_dump() | {"augmentation": ("shift", "intensity")})
    task = probe(config)
    buffer = make_buffer(frame_stack=3, num_players=1, with_next_observations=True)
    actions = task.spec.num_actions
    buffer.add(make_game(np.random.default_rng(0), 12, frame=(1, 32, 32), dtype=np.uint8, actions=actions))
    batch = buffer.sample(8, 0.5)
    augmented, again, plain = build_learner(config, task), build_learner(config, task), build_learner(base, task)
    losses = [
        [learner.train_step(batch).losses["loss/total"] for _ in range(3)] for learner in (augmented, again, plain)
    ]
    assert losses[0] == losses[1] != losses[2]
    assert np.isfinite(losses[0]).all()
    np.testing.assert_array_equal(augmented.weights(), again.weights())


def test_vectors_can_not_be_augmented() -> None:
    config = small_config(learner={"batch_size": 16, "augmentation": ("shift",)})
    with pytest.raises(ConfigError, match=r"learner\.augmentation=\['shift'\] changes images"):
        build_learner(config, probe(config))


def test_boards_are_mirrored_where_actions_are_columns_only() -> None:
    base = small_config("tictactoe")
    network = base.network.model_dump() | {"kind": "resnet", "downsample": 1}
    config = small_config(
        "tictactoe", network=network, learner=base.learner.model_dump() | {"augmentation": ("mirror",)}
    )
    with pytest.raises(ConfigError, match="there are 9 actions for 3 columns"):
        build_learner(config, probe(config))
