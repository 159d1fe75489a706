"""What several runs score together: per task and, for Atari games, human-normalised over all of them.

Interquartile mean and stratified bootstrap as in Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice" (arXiv 2108.13264): the score of a run is one number, the mean return of its final evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from muzero_ray.config.schema import Config
from muzero_ray.errors import CheckpointError, ConfigError
from muzero_ray.evaluation.protocol import UNKNOWN, completed
from muzero_ray.printed import launch_line
from muzero_ray.runs.folder import resume_hint, writer
from muzero_ray.runs.human_scores import human_normalised
from muzero_ray.runs.layout import RunLayout
from muzero_ray.runs.run_config import load_run_config
from muzero_ray.runs.side_files import SideFile, is_count, is_number, score_problem
from muzero_ray.standard_streams import printable
from muzero_ray.types import Array

RESAMPLES = 10_000
"""How often the bootstrap draws."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class RunScore:
    """The final evaluation of a run. score: mean return. random: that of random play under the same protocol."""

    run: Path
    seed: int
    score: float
    random: float
    episodes: int
    env_steps: int
    learner_steps: int
    protocol: Mapping[str, Any]
    cut: int
    """Of the episodes, how many `protocol.move_limit` ended."""

    @property
    def task(self) -> str:
        return str(self.protocol["environment"]["id"])

    @property
    def human_normalised(self) -> float | None:
        """None if this is not an Atari game, or if no human figures are known for it."""
        is_atari = self.protocol["environment"]["kind"] == "atari"
        return human_normalised(self.task, self.score) if is_atari else None


@dataclass(frozen=True)
class Aggregate:
    """Scores of several runs. low, high: of the 95 % interval of the IQM; None where a task has but one run."""

    name: str
    runs: int
    mean: float
    std: float
    iqm: float
    low: float | None
    high: float | None


def read_score(run: Path) -> RunScore:
    """The newest final evaluation of the run in that folder.

    Raises ConfigError if there is none yet, or if a line of the file cannot be used: it may have been the newest.
    """
    config = load_run_config(run, plugins=False)
    file = SideFile(RunLayout(run).scores_file, _score_problem)
    try:
        newest = {line.entry["kind"]: line.entry for line in file}
    except CheckpointError as error:
        raise ConfigError(f"{error}. Measure the run anew: {launch_line('evaluate', run)}") from error
    if file.problems:
        raise ConfigError(
            f"{file.path} is damaged: {file.trouble()}. Delete those lines, or measure the run anew: "
            f"{launch_line('evaluate', run)}"
        )
    if not {"final", "random"} <= newest.keys():
        raise ConfigError(f"run {run} has no final evaluation yet; {writer(run) or resume_hint(run)}")
    final = newest["final"]
    return RunScore(
        run,
        config.run.seed,
        float(final["return_mean"]),
        float(newest["random"]["return_mean"]),
        len(final["returns"]),
        int(final["env_steps"]),
        int(final["learner_step"]),
        comparable(final, config),
        int(final.get("cut", 0)),
    )


def comparable(score: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The protocol of a score of the run with this `config`; see `completed` for scores that do not say all of it."""
    return {name: value for name, value in completed(score["protocol"], config).items() if name != "digest"}


def _score_problem(score: dict[str, Any]) -> str | None:
    """What is wrong with a score, as far as a report needs it."""
    if (problem := score_problem(score)) or score["kind"] not in ("final", "random"):
        return problem
    returns, protocol = score.get("returns"), score.get("protocol")
    if not is_number(score.get("return_mean")):
        return "has no number as return_mean"
    if not is_count(score.get("env_steps")):
        return "has no whole number as env_steps"
    if not isinstance(returns, list) or not all(is_number(one) for one in returns):
        return "has no list of numbers as returns"
    if not is_count(score.get("cut", 0)):
        return "has no whole number as cut"
    if isinstance(protocol, dict) and not is_count(protocol.get("move_limit") or 0):
        return "has no whole number as move_limit"
    environment = protocol.get("environment") if isinstance(protocol, dict) else None
    known = isinstance(environment, dict) and all(isinstance(environment.get(name), str) for name in ("id", "kind"))
    return None if known else "does not say which environment it was measured in"


def interquartile_mean(scores: Array, axis: int = -1) -> Any:
    """Mean of the middle half: a quarter of the scores, rounded down, is left out at each end (of three, none)."""
    from scipy.stats import trim_mean

    return trim_mean(scores, 0.25, axis=axis)


def aggregate(name: str, strata: Sequence[Array]) -> Aggregate:
    """Over all `strata`, the scores of one task each; the bootstrap draws runs anew within each."""
    from scipy.stats import bootstrap

    pooled = np.concatenate(strata)
    low = high = None
    if all(len(stratum) > 1 for stratum in strata):

        def statistic(*drawn: Array, axis: int = -1) -> Any:
            return interquartile_mean(np.concatenate(drawn, axis=axis), axis=axis)

        interval = bootstrap(
            tuple(strata),
            statistic,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            vectorized=True,
            axis=-1,
            rng=np.random.default_rng(0),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Aggregate(
        name, len(pooled), float(pooled.mean()), float(pooled.std()), float(interquartile_mean(pooled)), low, high
    )


def compare(scores: Sequence[RunScore]) -> list[Aggregate]:
    """One aggregate per task and, with several Atari games, a human-normalised one over all of those.

    Raises ConfigError if scores that would be put together were made under different protocols.
    """
    tasks: dict[str, list[RunScore]] = {}
    for score in scores:
        tasks.setdefault(score.task, []).append(score)
    for runs in tasks.values():
        check_comparable(runs)
    found = [aggregate(task, [np.array([run.score for run in runs])]) for task, runs in tasks.items()]
    atari = {task: runs for task, runs in tasks.items() if runs[0].human_normalised is not None}
    if atari:
        check_comparable([run for runs in atari.values() for run in runs], over_tasks=True)
        strata = [np.array([run.human_normalised for run in runs], np.float64) for runs in atari.values()]
        found.append(aggregate(f"human-normalised, {len(atari)} game{'s' * (len(atari) > 1)}", strata))
    return found


def check_comparable(scores: Sequence[RunScore], *, over_tasks: bool = False) -> None:
    """ConfigError that names the first difference of protocols. over_tasks: which game it is may differ.

    An unknown precision does not count as a difference, see `unknown_precision`. Two known ones that differ do, and so
    does anything else that is unknown.
    """
    protocols = [_flat(score.protocol) for score in scores]
    for name in sorted(set().union(*protocols)):
        if over_tasks and name == "environment.id":
            continue
        values = [(score, protocol.get(name)) for score, protocol in zip(scores, protocols, strict=True)]
        if name == "precision":
            values = [(score, value) for score, value in values if value != UNKNOWN]
        elif name == "move_limit":
            values = _limits_that_count(scores)
        for other, value in values[1:]:
            first, firsts = values[0]
            if value != firsts or value == UNKNOWN:
                raise ConfigError(
                    f"runs {first.run} and {other.run} were evaluated under different protocols: {_brief(name)} is "
                    f"{_brief(firsts)} in one and {_brief(value)} in the other. Such scores cannot be compared; report "
                    "them apart"
                )


def _limits_that_count(scores: Sequence[RunScore]) -> list[tuple[RunScore, int | None]]:
    """The limits of moves of scores, without those that would have been the same under the limit that cut others."""
    limits = [(score, score.protocol.get("move_limit")) for score in scores]
    longest = max((limit for score, limit in limits if score.cut and limit is not None), default=None)
    if longest is None:
        return []
    return [(score, limit) for score, limit in limits if score.cut or limit is None or limit > longest]


def unknown_precision(scores: Sequence[RunScore]) -> list[RunScore]:
    """Those of old scores, whose precision is not known, that `compare` put together with other scores."""
    runs = Counter(score.task for score in scores)
    return [score for score in scores if score.protocol.get("precision") == UNKNOWN and runs[score.task] > 1]


def _brief(value: object) -> str:
    """A part of a protocol as a message shows it."""
    return printable(str(value))[:200]


def _flat(protocol: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in protocol.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
