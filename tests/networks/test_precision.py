"""`auto` takes bf16 where the hardware has instructions for it; asking for it elsewhere is said once."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from muzero_ray.networks.notes import say_once
from muzero_ray.networks.precision import use_bf16
from tests.training.test_learner import learner, make_batch

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["with bf16", "without"])
def hardware(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A CPU with instructions for bf16, or without."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    say_once.cache_clear()
    return bool(request.param)


def test_auto_is_what_the_hardware_can(hardware: bool) -> None:
    assert use_bf16("auto", CPU, "learner.precision") is hardware
    assert use_bf16("float32", CPU, "learner.precision") is False


def test_bf16_without_instructions_for_it_is_said_once(hardware: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert use_bf16("bf16", CPU, "learner.precision")
        assert use_bf16("bf16", CPU, "learner.precision")
    said = [record.message for record in caplog.records]
    assert len(said) == (0 if hardware else 1)
    assert all(text.startswith("learner.precision=bf16: this cpu has no instructions") for text in said)


def test_a_learner_with_auto_trains_as_one_that_was_told(hardware: bool) -> None:
    """To the bit; and the two precisions do differ."""
    weights = {}
    for precision in ("auto", "float32", "bf16"):
        trained = learner("resnet", precision=precision)
        trained.train_step(make_batch("resnet"))
        weights[precision] = trained.weights()
    assert np.array_equal(weights["auto"], weights["bf16" if hardware else "float32"])
    assert not np.array_equal(weights["bf16"], weights["float32"])
