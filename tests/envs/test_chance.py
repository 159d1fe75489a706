"""Environments that draw from Python's and NumPy's global generators: runs repeat, and a stopped one goes on."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.chance import OwnChance, seed_generators
from muzero_ray.evaluation.evaluator import Evaluator
from muzero_ray.training.build import build_learner
from tests.small_runs import assert_same_run, rows, run_serial, small_config


def drawing(**sections: Any) -> Config:
    """A game whose every frame is drawn from the global generators, in spite of the seed that reset gets."""
    return small_config(env={"id": "tests.odd_environments:GlobalRandom-v0", "max_moves": None}, **sections)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002 - these very generators


def test_a_key_decides_all_three_generators() -> None:
    seed_generators(5, "self_play", 0, 1)
    first = [draws() for _ in range(3)]
    seed_generators(5, "self_play", 0, 1)
    assert [draws() for _ in range(3)] == first
    for other in ((6, "self_play", 0, 1), (5, "evaluator", 0, 1), (5, "self_play", 1, 1), (5, "self_play", 0, 2)):
        seed_generators(*other)
        assert all(one != two for one, two in zip(draws(), first[0], strict=True))


def test_own_chance_goes_on_by_itself_and_leaves_the_rest_alone() -> None:
    seed_generators(7)
    outside = [draws() for _ in range(4)]
    seed_generators("inside")
    inside = [draws() for _ in range(4)]
    seed_generators(7)
    own = OwnChance("inside")
    mixed = []
    for _ in range(2):
        mixed.append(draws())
        with own:
            mixed += [draws(), draws()]
        mixed.append(draws())
    assert mixed == [outside[0], *inside[:2], outside[1], outside[2], *inside[2:], outside[3]]


def test_two_serial_runs_of_one_seed_are_equal(tmp_path: Path) -> None:
    for name in ("one", "other"):
        draws()  # what was drawn before does not matter
        assert run_serial(drawing(), tmp_path / name)
    assert_same_run(drawing(), tmp_path / "one", tmp_path / "other")


def test_evaluations_repeat_whatever_was_drawn_before() -> None:
    config = drawing()
    evaluator = Evaluator(config, probe(config))
    evaluator.load(build_learner(config, probe(config)).weights())
    first = evaluator.evaluate(episodes=9, seed=1).returns.tolist()
    draws()
    before = random.getstate()
    assert evaluator.evaluate(episodes=9, seed=1).returns.tolist() == first
    assert random.getstate() == before
    assert evaluator.evaluate(episodes=9, seed=2).returns.tolist() != first
    games = evaluator.begin(episodes=9, seed=1)  # in slices of one round, as under Ray
    with games:
        over = False
        while not over:
            draws()
            rounds = iter([True])
            over = games.play(lambda rounds=rounds: next(rounds, False))
        assert games.returns.tolist() == first


def test_games_that_cannot_be_replayed_begin_anew_and_it_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = drawing()
    assert not run_serial(config, tmp_path / "run", stop_at=17)
    capsys.readouterr()
    assert run_serial(config, tmp_path / "run")
    said = capsys.readouterr().out
    (told,) = re.findall(r"(\d) games in flight begin anew, because replaying them failed", said)
    assert 1 <= int(told) <= 4
    assert "does not draw all its chance from the seed of reset" in said
    assert "environment tests.odd_environments:GlobalRandom-v0 (seed " in said
    steps = [row["learner_steps"] for row in rows(tmp_path / "run")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 40
    assert all(row.get("actors/environment_faults", 0) == 0 for row in rows(tmp_path / "run"))
