"""Foresight against a corridor whose every outcome is known, and models that are right, wrong or know nothing."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.diagnose import Player
from benchmarks.foresight import DRAWS, MOVES, collect, foresight
from muzero_ray.types import Array, FloatArray, IntArray, NetworkOutput
from tests.benchmarks.test_diagnose import LENGTH, player

__all__ = ["player"]  # the fixture


class Corridor:
    """An engine that knows the corridor, and thinks that a place is worth `sign` times how far it is to the right."""

    def __init__(self, sign: float, *, moves_right: int = 1) -> None:
        self.sign, self.right = sign, moves_right

    def initial(self, observations: Array) -> NetworkOutput:
        place = observations[:, :1].astype(np.float32) * LENGTH
        return self._answer(place, np.zeros(len(place), np.float32))

    def _answer(self, place: FloatArray, reward: FloatArray) -> NetworkOutput:
        return NetworkOutput(place, reward, self._value(place), np.zeros((len(place), 2), np.float32))

    def _value(self, place: FloatArray) -> FloatArray:
        inside = (place[:, 0] >= 0) & (place[:, 0] < LENGTH)
        return np.where(inside, self.sign * place[:, 0], np.float32(0.0)).astype(np.float32)

    def recurrent(self, hidden: Array, actions: IntArray, out: NetworkOutput) -> None:
        place = hidden[:, 0]
        inside = (place >= 0) & (place < LENGTH)
        after = np.where(inside, np.where(actions == self.right, place + 1, -1), place)
        out.hidden[:, 0] = after
        out.reward[...] = inside & (after == LENGTH)
        out.value[...] = self._value(out.hidden)


def test_the_true_game_is_gone_on_with_from_each_position(player: Player) -> None:
    found = collect(player.config, player.task, player.engine, 12)
    places = np.rint(found.observations[:, 0] * LENGTH).astype(int)
    discount = player.config.learner.discount
    assert found.over[:, 0].all()  # to the left: the end
    assert not found.rewards[:, 0].any()
    for place, rewards, over in zip(places, found.rewards[:, 1], found.over[:, 1], strict=True):
        left = LENGTH - place  # moves to the end, the last of which is paid
        expected = [discount ** (left - 1) if moves >= left else 0.0 for moves in MOVES]
        assert rewards == pytest.approx(np.tile(expected, (DRAWS, 1)))
        assert over.tolist() == [[moves >= left for moves in MOVES]] * DRAWS


@pytest.mark.parametrize(("right", "agreement"), [(1, 1.0), (0, -1.0)])
def test_a_right_model_agrees_and_one_with_the_actions_changed_round_does_not(
    player: Player, right: int, agreement: float
) -> None:
    positions = collect(player.config, player.task, player.engine, 12)
    for found in foresight(player.config, Corridor(1.0, moves_right=right), positions):  # type: ignore[arg-type]
        assert found.agreement == pytest.approx(agreement)
        assert found.max_agreement == pytest.approx(1.0)
        assert found.spread == pytest.approx(found.true_spread)


def test_a_network_that_knows_nothing_tells_no_actions_apart(player: Player) -> None:
    """Fresh weights: every value is 0, so that only the rewards of the true game differ."""
    positions = collect(player.config, player.task, player.engine, 12)
    found = list(foresight(player.config, player.engine, positions))
    assert [line.moves for line in found] == list(MOVES)
    assert all(line.spread == pytest.approx(0.0, abs=1e-6) for line in found)
    assert found[-1].true_spread > 0.1
