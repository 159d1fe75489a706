"""`launch.py report`: what finished runs score together, as tables or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from muzero_ray.cli.commands import ReportCommand
from muzero_ray.cli.tables import table
from muzero_ray.errors import ConfigError
from muzero_ray.runs.scores import CONFIDENCE, RESAMPLES, Aggregate, RunScore, compare, read_score, unknown_precision
from muzero_ray.standard_streams import print_result, printable


def report_runs(command: ReportCommand) -> None:
    """Print what several runs score together.

    A run whose score cannot be used is left out, and ConfigError says so once the others were printed.
    """
    scores, left_out = [], []
    for run in command.runs:
        try:
            scores.append(read_score(run))
        except ConfigError as error:
            left_out.append(str(error))
    if scores:
        found = compare(scores)
        tables = "\n".join([scores_table(scores), "", aggregates_table(found), *precision_notes(scores)])
        print_result(_report_json(scores, found) if command.as_json else tables)
    if len(left_out) > 1 or (left_out and scores):
        left_out.insert(0, f"{len(left_out)} of {len(command.runs)} runs are left out of the report:")
    if left_out:
        raise ConfigError("\n  ".join(left_out))


def _report_json(scores: Sequence[RunScore], found: Sequence[Aggregate]) -> str:
    runs = [{**asdict(score), "run": str(score.run), "task": score.task} for score in scores]
    return json.dumps({"runs": runs, "together": [asdict(one) for one in found]}, allow_nan=False)


def scores_table(scores: Sequence[RunScore]) -> str:
    """One line per run."""
    rows = [["RUN", "TASK", "SEED", "SCORE", "RANDOM", "HUMAN-NORM.", "EPISODES", "ENV STEPS", "LEARNER STEPS"]]
    for one in scores:
        human = "" if one.human_normalised is None else _figure(one.human_normalised)
        figures = [_figure(one.score), _figure(one.random), human, f"{one.episodes}"]
        rows.append(
            [
                printable(str(one.run)),
                printable(one.task),
                str(one.seed),
                *figures,
                f"{one.env_steps:,}",
                f"{one.learner_steps:,}",
            ]
        )
    return table(rows, left=2)


def aggregates_table(found: Sequence[Aggregate]) -> str:
    """One line per task, and what the columns mean."""
    rows = [["TOGETHER", "RUNS", "MEAN", "STD", "IQM", f"{100 * CONFIDENCE:.0f} % INTERVAL OF IQM"]]
    for one in found:
        interval = f"{_figure(one.low)} to {_figure(one.high)}" if one.low is not None and one.high is not None else ""
        rows.append(
            [printable(one.name), f"{one.runs}", _figure(one.mean), _figure(one.std), _figure(one.iqm), interval]
        )
    note = f"IQM: mean of the middle half of the runs. Interval: bootstrap over each task's runs, {RESAMPLES:,} draws."
    return f"{table(rows, left=1)}\n{note}"


def precision_notes(scores: Sequence[RunScore]) -> list[str]:
    """A line about old scores that were put together with others although their precision is not known."""
    if not (unknown := unknown_precision(scores)):
        return []
    names = ", ".join(printable(str(score.run)) for score in unknown)
    return [
        f"Precision: whether the network was computed in float32 or in bf16 is not known of {names}, scored before it "
        "was recorded. These scores count all the same."
    ]


def _figure(value: float) -> str:
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.3f}"
