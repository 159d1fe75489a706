"""The ablation's variants are settings that exist, and its table tells the runs' own scores."""

from __future__ import annotations

import pytest

from benchmarks.ablation import VARIANTS, options_of
from muzero_ray.cli import parse_args
from muzero_ray.cli_commands import TrainCommand


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_changes_something_and_no_more_than_it_says(name: str) -> None:
    preset, changed = (
        parse_args(["train", "breakout", *options]) for options in ([], options_of(name, samples_per_insert=1.0))
    )
    assert isinstance(preset, TrainCommand)
    assert isinstance(changed, TrainCommand)
    assert (preset.config == changed.config) == (name == "preset")
    if name == "fewer-updates":
        assert changed.config.replay.samples_per_insert == 0.5
