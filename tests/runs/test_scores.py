"""Aggregates against definitions written out by hand, and what must not be compared."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muzero_ray.cli.parse import parse_args
from muzero_ray.cli.report import report_runs
from muzero_ray.config.files import dump_config
from muzero_ray.config.schema import Config
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.protocol import UNKNOWN, evaluation_protocol
from muzero_ray.runs.human_scores import human_normalised
from muzero_ray.runs.scores import RunScore, aggregate, compare, interquartile_mean, read_score
from muzero_ray.types import EnvSpec

BREAKOUT = Config.model_validate(
    {"env": {"kind": "atari", "id": "Breakout"}, "network": {"kind": "resnet"}, "search": {"simulations": 16}}
)


def score(value: float, config: Config = BREAKOUT, **changes: Any) -> RunScore:
    """changes: of the protocol, by dotted name with `__`."""
    spec = EnvSpec("test", (1, 96, 96), "uint8", 4, max_moves=27_000)
    protocol = copy.deepcopy(vars(evaluation_protocol(config, spec, precision="float32")))
    for name, new in changes.items():
        *path, last = name.split("__")
        place = protocol
        for key in path:
            place = place[key]
        place[last] = new
    return RunScore(Path(f"runs/{value:g}"), 0, value, 0.0, 10, 100, 10, protocol, 0)


@pytest.mark.parametrize("count", [1, 3, 4, 8, 11])
def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    ordered = sorted(values.tolist())
    for _ in range(count // 4):
        ordered.remove(min(ordered))
        ordered.remove(max(ordered))
    assert interquartile_mean(values) == pytest.approx(sum(ordered) / len(ordered))


def test_the_bootstrap_draws_runs_within_each_task() -> None:
    """Against a loop. Between tasks scores differ much, within them little: a pooled bootstrap has a wide interval."""
    rng = np.random.default_rng(0)
    strata = [100.0 * task + rng.normal(size=6) for task in range(4)]
    found = aggregate("x", strata)
    drawn = []
    for _ in range(4_000):
        ordered = np.sort(np.concatenate([rng.choice(stratum, 6) for stratum in strata]))
        drawn.append(ordered[6:18].mean())
    assert found.runs == 24
    assert found.iqm == pytest.approx(np.sort(np.concatenate(strata))[6:18].mean())
    assert found.mean == pytest.approx(np.mean(strata))
    assert found.std == pytest.approx(np.std(strata))
    assert found.low is not None
    assert found.high is not None
    assert found.low == pytest.approx(np.percentile(drawn, 2.5), abs=0.05)
    assert found.high == pytest.approx(np.percentile(drawn, 97.5), abs=0.05)
    assert 0.1 < found.high - found.low < 2.0


def test_one_run_has_no_interval() -> None:
    found = aggregate("x", [np.array([3.0]), np.array([4.0, 5.0])])
    assert (found.low, found.high, found.iqm) == (None, None, 4.0)


def test_human_normalised_scores_are_0_for_random_play_and_1_for_the_human() -> None:
    assert human_normalised("Pong", -20.7) == 0.0
    assert human_normalised("Pong", 14.6) == 1.0
    assert human_normalised("Breakout", 16.1) == pytest.approx(0.5)  # half way from 1.7 to 30.5
    assert human_normalised("Skiing", -17098.1) == 0.0
    assert human_normalised("Adventure", 1.0) is None


def test_games_are_put_together_on_the_human_scale() -> None:
    scores = [score(1.7), score(30.5), score(-20.7, environment__id="Pong"), score(14.6, environment__id="Pong")]
    breakout, pong, together = compare(scores)
    assert (breakout.name, breakout.runs, breakout.mean) == ("Breakout", 2, pytest.approx(16.1))
    assert (pong.name, pong.runs, pong.mean) == ("Pong", 2, pytest.approx(-3.05))
    assert (together.name, together.runs, together.mean) == ("human-normalised, 2 games", 4, pytest.approx(0.5))
    assert together.low == pytest.approx(0.0, abs=0.01)
    assert together.high == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"simulations": 50}, "simulations is 16 in one and 50 in the other"),
        ({"search": "puct"}, "search is gumbel in one and puct in the other"),
        ({"environment__atari__sticky_actions": 0.0}, r"environment\.atari\.sticky_actions is 0\.25 in one and 0\.0"),
        ({"environment__kwargs": {"mode": 1}}, r"environment\.kwargs\.mode is None in one and 1 in the other"),
        ({"opponent": "minimax"}, "opponent is None in one and minimax in the other"),
        ({"search_settings__c_scale": 0.1}, r"search_settings\.c_scale is 1\.0 in one and 0\.1 in the other"),
        ({"search_settings__considered_actions": 4}, r"search_settings\.considered_actions is 16 in one and 4 in"),
        ({"search_settings__min_value_range": 0.5}, r"search_settings\.min_value_range is 0\.0 in one and 0\.5 in"),
        (
            {"search_settings__value_bounds": [-1.0, 1.0]},
            r"search_settings\.value_bounds is None in one and \[-1\.0, 1\.0\] in",
        ),
        ({"discount": 0.9}, r"discount is 0\.997 in one and 0\.9 in the other"),
        ({"precision": "bf16"}, "precision is float32 in one and bf16 in the other"),
    ],
)
@pytest.mark.parametrize("game", ["Breakout", "Pong"])
def test_scores_of_different_protocols_are_refused(game: str, changes: dict[str, Any], difference: str) -> None:
    """Within a task, and over Atari games."""
    with pytest.raises(ConfigError, match=f"runs runs/1 and runs/2 were evaluated .*: {difference}"):
        compare([score(1.0), score(2.0, environment__id=game, **changes)])


def test_tasks_that_are_not_put_together_may_have_different_protocols() -> None:
    cartpole = score(1.0, Config.model_validate({"env": {"id": "CartPole-v1"}, "search": {"simulations": 25}}))
    assert [one.name for one in compare([score(2.0), cartpole])] == [
        "Breakout",
        "CartPole-v1",
        "human-normalised, 1 game",
    ]


def test_a_runs_score_is_its_newest_final_evaluation(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(BREAKOUT))
    entry = {"learner_step": 9, "env_steps": 90, "returns": [1.0, 3.0], "protocol": {"digest": "x", **PUCT}}
    kinds = [("evaluation", 7.0), ("final", 1.0), ("random", 0.5)]
    lines = [json.dumps({**entry, "kind": kind, "return_mean": mean}) for kind, mean in kinds]
    path = tmp_path / "scores.jsonl"
    (tmp_path / "checkpoints" / "9").mkdir(parents=True)
    for unfinished in ([], lines[:1], lines[:2]):
        path.write_text("\n".join(unfinished))
        with pytest.raises(ConfigError, match=r"no final evaluation yet.*launch\.py resume"):
            read_score(tmp_path)
    newest = {**entry, "kind": "final", "return_mean": 2.0, "learner_step": 18}
    path.write_text("\n".join([*lines, json.dumps(newest)]) + "\n")
    read = read_score(tmp_path)
    assert (read.score, read.random, read.learner_steps, read.episodes, read.seed) == (2.0, 0.5, 18, 2, 0)
    # The score is of puct and the config of Gumbel: nothing that the score does not say can be taken from there.
    own = ("pb_c_base", "pb_c_init", "unvisited", "value_bounds", "min_value_range")
    added = {"discount": UNKNOWN, "precision": UNKNOWN, "search_settings": dict.fromkeys(own, UNKNOWN)}
    assert read.protocol == PUCT | added


PROTOCOL = {"search": "gumbel", "environment": {"id": "Breakout", "kind": "atari"}}
PUCT = {**PROTOCOL, "search": "puct"}
FINAL = {
    "kind": "final",
    "learner_step": 9,
    "env_steps": 90,
    "return_mean": 2.0,
    "returns": [2.0],
    "protocol": PROTOCOL,
}


def make_run(folder: Path, *entries: object) -> Path:
    """A run with these lines of scores, after a good final score and one of random play; text as it is."""
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(BREAKOUT))
    lines = [FINAL, {**FINAL, "kind": "random"}, *entries]
    text = "".join(entry if isinstance(entry, str) else json.dumps(entry) + "\n" for entry in lines)
    (folder / "scores.jsonl").write_text(text)
    return folder


def report(*arguments: object) -> tuple[int, str]:
    """Exit code, and what is an error; nothing else may come out but a report."""
    try:
        report_runs(parse_args(["report", *map(str, arguments)]))  # type: ignore[arg-type]
    except ConfigError as error:
        return error.exit_code, str(error)
    return 0, ""


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("\x1b[2J\n", "is not valid JSON"),
        ('{"kind": "fin', "is cut off"),
        ("[1]\n", "is not a JSON object"),
        ({}, "has no kind"),
        ({"kind": "evaluation", "learner_step": -1}, "has no whole number as learner_step"),
        ({**FINAL, "return_mean": float("nan")}, "is not valid JSON"),
        ({**FINAL, "return_mean": None}, "has no number as return_mean"),
        ({**FINAL, "return_mean": "2.0"}, "has no number as return_mean"),
        ({**FINAL, "return_mean": 1e300}, "has no number as return_mean"),
        ({**FINAL, "returns": 5}, "has no list of numbers as returns"),
        ({**FINAL, "returns": [None]}, "has no list of numbers as returns"),
        ({**FINAL, "env_steps": 1.5}, "has no whole number as env_steps"),
        ({**FINAL, "learner_step": 10**30}, "has no whole number as learner_step"),
        ({**FINAL, "protocol": None}, "does not say which environment"),
        ({**FINAL, "protocol": {"environment": {"id": 3, "kind": "atari"}}}, "does not say which environment"),
    ],
)
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_run_with_a_damaged_score_is_left_out(
    line: object, problem: str, option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = make_run(tmp_path / "bad", line), make_run(tmp_path / "good")
    code, error = report(bad, *option)
    assert code == 2
    assert error.startswith(f"{bad / 'scores.jsonl'} is damaged: line 3 {problem}")
    assert error.endswith(f"python launch.py evaluate {bad}")
    assert capsys.readouterr().out == ""
    code, error = report(bad, good, tmp_path / "good", *option)
    assert code == 2
    assert error.startswith("1 of 3 runs are left out of the report:\n")
    assert f"line 3 {problem}" in error
    out = capsys.readouterr().out
    assert str(bad) not in out
    assert out.count(str(good)) == 2


@pytest.mark.parametrize("kind", ["gone", "empty", "folder", "pipe", "endless", "6 GB"])
def test_a_run_whose_scores_are_no_file_is_left_out(kind: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    path = run / "scores.jsonl"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind != "gone":
        path.touch()
        os.truncate(path, 6 << 30 if kind == "6 GB" else 0)
    code, error = report(run)
    assert code == 2
    assert str(path) in error or "no final evaluation yet" in error


def test_a_report_gives_no_orders_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def named(name: str) -> dict[str, Any]:
        return {**FINAL, "protocol": {**PROTOCOL, "environment": {"id": name, "kind": "gymnasium"}}}

    one, other = make_run(tmp_path / "one", named("\x1b[2J")), make_run(tmp_path / "other", named("\x1b[2J\ud800"))
    assert report(one, other) == (0, "")
    out = capsys.readouterr().out
    assert "\\x1b[2J\\ud800" in out
    assert all(char.isprintable() or char == "\n" for char in out)
    changed = named("\x1b[2J")
    changed["protocol"]["opponent"] = "\x1b]0;title\x07"
    code, error = report(one, make_run(tmp_path / "third", changed))
    assert code == 2
    assert "\\x1b]0;title\\x07" in error
    assert error.isprintable()


@pytest.mark.parametrize("mean", [3e38, -3e38, 0, 1e-300])
def test_json_holds_no_number_that_is_not_finite(
    mean: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / str(seed), {**FINAL, "return_mean": mean * (1 - 2 * (seed % 2))}) for seed in range(3)]
    assert report(*runs, "--json") == (0, "")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    told = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert [one["score"] for one in told["runs"]] == [mean, -mean, mean]
