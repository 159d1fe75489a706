"""The guard of learning: curves are read as they were written, and judged as by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.learning import CURVES, Curve, common_steps, judge, load_curves, main, read_curve
from muzero_ray.config.files import dump_config, load_config, preset_path
from muzero_ray.config.schema import Config
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.protocol import evaluation_protocol

KEPT = [Curve(seed, True, "p", [10, 20], [100, 200], [score - 1, score + 1], [5, 5]) for seed, score in
        enumerate((10.0, 12.0, 14.0))]  # fmt: skip
OLD_PROTOCOL = {"digest": "p"}
"""The protocol of a score from before its parts were written down."""


def run_with(
    folder: Path, scores: list[tuple[str, int, float]], seed: int = 3, protocol: Mapping[str, Any] = OLD_PROTOCOL
) -> Path:
    """A run's folder with these scores: (kind, learner step, mean return)."""
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(Config().overridden(run=Config().run.overridden(seed=seed))))
    lines = [
        {"kind": kind, "learner_step": step, "env_steps": 8 * step, "return_mean": mean, "returns": [mean] * 4,
         "protocol": protocol}
        for kind, step, mean in scores
    ]  # fmt: skip
    (folder / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_interval_is_that_of_one_more_run() -> None:
    """Means 10, 12, 14: s = 2, and t = 4.3027 for two degrees of freedom."""
    half = 4.302653 * 2 * (1 + 1 / 3) ** 0.5
    verdict = judge(replace(KEPT[0], return_mean=[3.0, 2.5]), KEPT)
    assert (verdict.score, verdict.low, verdict.high) == pytest.approx((2.75, 12 - half, 12 + half))
    assert str(verdict) == "mean 2.75, within the interval 2.06 to 21.94 of the kept runs"
    assert "below" in str(judge(replace(KEPT[0], return_mean=[2.0, 2.0]), KEPT))
    assert "above" in str(judge(replace(KEPT[0], return_mean=[22.0, 22.0]), KEPT))


def test_only_steps_that_all_have_count() -> None:
    new = replace(KEPT[0], learner_steps=[5, 20, 40], return_mean=[0.0, 13.0, 99.0])
    assert common_steps([new, *KEPT]) == [20]
    assert judge(new, KEPT).score == 13.0


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ConfigError, match="protocol"):
        judge(replace(KEPT[0], protocol="q"), KEPT)
    with pytest.raises(ConfigError, match="none in common"):
        judge(replace(KEPT[0], learner_steps=[7, 8]), KEPT)


def test_a_curve_holds_the_last_score_of_each_step(tmp_path: Path) -> None:
    """Random play is left out; the final evaluation replaces one of the same step."""
    run = run_with(
        tmp_path / "a", [("evaluation", 10, 1.0), ("evaluation", 20, 2.0), ("final", 20, 2.5), ("random", 20, 0.1)]
    )
    curve = read_curve(run)
    assert curve == Curve(3, False, curve.protocol, [10, 20], [80, 160], [1.0, 2.5], [4, 4])


def test_a_curve_is_compared_by_all_settings_of_play(tmp_path: Path) -> None:
    """Also where the score itself does not name them, which then all have one digest."""

    def protocol(name: str, c_scale: float) -> str:
        run = run_with(tmp_path / name, [("evaluation", 10, 1.0)])
        config = Config().overridden(search=Config().search.overridden(c_scale=c_scale))
        (run / "config.yaml").write_text(dump_config(config))
        return read_curve(run).protocol

    assert protocol("a", 1.0) == protocol("b", 1.0) != protocol("c", 0.1)


def test_the_kept_curves_are_of_the_protocol_that_their_preset_has_now(tmp_path: Path) -> None:
    """And so is what is read of a new run of it: else every comparison would be refused."""
    config = load_config(preset_path("cartpole"))
    protocol = evaluation_protocol(config, make_environment(config.env).spec, precision="float32")
    assert {curve.protocol for curve in load_curves(CURVES / "cartpole.json")} == {protocol.digest}
    run = run_with(tmp_path / "new", [("evaluation", 10, 100.0)], protocol=protocol.as_dict())
    (run / "config.yaml").write_text(dump_config(config))
    assert read_curve(run).protocol == protocol.digest


def test_kept_curves_come_back_and_a_worse_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    curves = tmp_path / "curves" / "cartpole.json"
    runs = [
        run_with(tmp_path / str(seed), [("evaluation", 10, 100.0 + seed), ("final", 20, 200.0 + seed)], seed)
        for seed in range(3)
    ]
    command = ["cartpole", "--curves", str(curves)]
    assert main([*command, "--keep", *map(str, runs)]) == 0
    assert load_curves(curves) == [read_curve(run) for run in runs]
    assert main([*command, "--runs", str(runs[1])]) == 0
    worse = run_with(tmp_path / "worse", [("evaluation", 10, 90.0), ("evaluation", 20, 120.0)])
    assert main([*command, "--runs", str(runs[1]), str(worse)]) == 1
    shown = capsys.readouterr().out
    assert "| 10 | 90.0 | 100.0 | 101.0 | 102.0 |" in shown
    assert f"{worse}: mean 105.00, below the interval" in shown


def test_one_kept_run_is_not_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cartpole", "--curves", str(tmp_path / "none.json"), "--runs", str(tmp_path)]) == 2
    assert "needs two" in capsys.readouterr().err
