"""The ablation's variants are settings that exist, and its table tells the runs' own scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ablation import ROOT, VARIANTS, options_of
from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import parse_args
from tests.patience import PATIENCE

OF_CARTPOLE = ("gumbel-16", "same-temperature")
"""Variants of presets that search with PUCT."""


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_changes_something_and_no_more_than_it_says(name: str) -> None:
    of = "cartpole" if name in OF_CARTPOLE else "breakout"
    changes = options_of(name, samples_per_insert=1.0)
    preset, changed = (parse_args(["train", of, *options]) for options in ([], changes))
    assert isinstance(preset, TrainCommand)
    assert isinstance(changed, TrainCommand)
    assert (preset.config == changed.config) == (name == "preset")
    if name == "fewer-updates":
        assert changed.config.replay.samples_per_insert == 0.5


def test_a_table_is_made_in_parts(tmp_path: Path) -> None:
    options = (
        "--iterations 10 --max-moves 40 --simulations 3 --network.hidden 16 --replay.min-size 64 --replay.capacity 500 "
        "--replay.segment-length 10 --learner.batch-size 16 --learner.td-steps 4 --actors.envs-per-actor 4 "
        "--actors.rollout-steps 40 --evaluation.final-episodes 4"
    )
    command = [
        sys.executable,
        "-m",
        "benchmarks.ablation",
        "cartpole",
        "--runs-dir",
        str(tmp_path),
        "--options",
        options,
    ]
    for variants, trained in ((["preset"], 2), (["preset", "uniform-replay"], 2)):
        asked = [*command, "--seeds", "0", "1", "--variants", *variants]
        result = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        assert result.returncode == 0, result.stderr
        lines = result.stdout.splitlines()
        assert sum(line.startswith("training ") for line in lines) == trained
        assert all(float(line.split("|")[-2].replace(",", "")) > 50 for line in lines if line.startswith("| preset"))
        table = {line.split("|")[1].strip(): line.split("|")[2:] for line in lines if line.startswith("| ")}
        assert list(table) == ["variant", *variants]
        for name in variants:
            scores = []
            for seed in (0, 1):
                entries = (tmp_path / f"{name}-s{seed}" / "scores.jsonl").read_text().splitlines()
                scores.append(next(e["return_mean"] for e in map(json.loads, entries) if e["kind"] == "final"))
            assert [float(word) for word in table[name][1].split()] == pytest.approx(scores, abs=0.051)
            assert float(table[name][2]) == pytest.approx(np.mean(scores), abs=0.051)
