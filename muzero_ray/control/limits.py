"""The limits of a run: in words, and what becomes of those that are spent when it goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muzero_ray.config.running import LIMITS
from muzero_ray.config.schema import Config
from muzero_ray.control.run_state import RunState
from muzero_ray.errors import ConfigError, as_checkpoint_error
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.printed import launch_line
from muzero_ray.runs.checkpoint import Checkpoint
from muzero_ray.runs.output import RunOutput
from muzero_ray.runs.scores import read_score


def lift_spent_limits(config: Config, run_state: Mapping[str, Any], given: Mapping[str, float | None]) -> Config:
    """`config` for going on from `run_state` (a checkpoint's) when a person asked for the limits in `given`.

    A limit that is reached already, and that was not given anew, would end the run before it begins. Of episodes and
    minutes it is lifted; learner_steps, which every schedule needs, must be given: ConfigError. Nothing given, nothing
    changed: the run then only evaluates.
    """
    if all(value is None for value in given.values()):
        return config
    run = config.run
    reached = reached_limits(config, run_state)
    for name in reached:
        if name == "learner_steps" or given[name] is not None:
            raise ConfigError(
                f"resume: run.{name}={getattr(run, name)} is reached already, so there is nothing to do. Give "
                f"--{LIMITS[name]} more, such as {raised_limit(config, run_state, name)}"
            )
    return config.model_copy(update={"run": run.model_copy(update=dict.fromkeys(reached))})


def reached_limits(config: Config, run_state: Mapping[str, Any]) -> list[str]:
    """Names of the settings of `run` that end it now, the one to raise first."""
    run = config.run
    reached = {
        "learner_steps": run_state["learner_steps"] >= run.learner_steps,
        "episodes": run.episodes is not None and run_state["episodes"] >= run.episodes,
        "minutes": run.minutes is not None and run_state["seconds"] >= 60 * run.minutes,
    }
    return [name for name, is_reached in reached.items() if is_reached]


def raised_limit(config: Config, run_state: Mapping[str, Any], name: str) -> str:
    """The option of `resume` that doubles the limit `name`, or what was spent of it if that is more."""
    run = config.run
    doubled = {
        "learner_steps": 2 * max(run.learner_steps, run_state["learner_steps"]),
        "episodes": 2 * max(run.episodes or 0, run_state["episodes"]),
        # Rounded up, so that it is above what is spent.
        "minutes": math.ceil(200 * max(run.minutes or 0.0, run_state["seconds"] / 60, 0.01)) / 100,
    }
    return f"--{LIMITS[name]} {doubled[name]}"


def describe_limits(config: Config) -> str:
    """The limits of a run in words."""
    run = config.run
    limits = [
        f"{run.learner_steps} learner steps",
        *([f"{run.episodes} episodes"] if run.episodes is not None else []),
        *([f"{run.minutes:g} minutes"] if run.minutes is not None else []),
    ]
    return " or ".join(limits)


def nothing_learned(config: Config, run_state: RunState) -> str | None:
    """Why a run that is over made no learner step, and what to raise if a limit ended it; None if it made one."""
    if run_state.learner_steps:
        return None
    untrained = "The score is that of an untrained network"
    if run_state.ended_by is not None:
        return f"the run ended before its first learner step: {run_state.ended_by}. {untrained}"
    played, needed = run_state.limiter.inserted, config.replay.min_size
    why = "no learner step was finished in that time"
    by_episodes = config.run.episodes is not None and run_state.episodes >= config.run.episodes
    raised = "run.episodes (--episodes)" if by_episodes else "run.minutes (--minutes)"
    if played < needed:
        why = f"replay.min_size={needed} transitions must be in replay before the first, and {played} were"
        raised += ", or lower replay.min_size"
    return f"the run ended at {run_state.stop_reason()} without a learner step: {why}. {untrained}. Raise {raised}"


def left_unfinished(run_state: RunState) -> str:
    """What is said of an evaluation on the way that the limit of minutes ended."""
    return (
        f"the evaluation at learner step {run_state.learner_steps} was left unfinished and does not count: "
        f"the run ends at {run_state.stop_reason()}"
    )


def finish(
    output: RunOutput, config: Config, run_state: RunState, evaluation: Evaluation, baseline: Evaluation, step: int
) -> None:
    """`RunOutput.finished`, with the limit that ended the run, and a warning if it came before any learner step."""
    ended = end_lines(output.folder, config, run_state.state())
    if run_state.ended_by is not None and not ended:
        ended = [f"ended:   {run_state.ended_by}", f"resume:  {launch_line('resume', output.folder)}"]
    output.finished(run_state, evaluation, baseline, step, ended=ended, warning=nothing_learned(config, run_state))


def end_lines(folder: Path, config: Config, run_state: Mapping[str, Any]) -> list[str]:
    """Which limit ended the run in `folder`, and the command that goes on with it."""
    if not (reached := reached_limits(config, run_state)):
        return []
    name = reached[0]
    return [
        f"ended:   run.{name}={getattr(config.run, name)} is reached",
        f"resume:  {launch_line('resume', folder, *raised_limit(config, run_state, name).split())}",
    ]


def describe_finished(folder: Path, config: Config, checkpoint: Checkpoint) -> str | None:
    """What to tell somebody who would go on with a run that has nothing left to do; None if it has.

    It has nothing to do once a limit is reached and the weights of `checkpoint` have their final scores.
    """
    with as_checkpoint_error("the checkpoint's state.json"):
        ended = end_lines(folder, config, checkpoint.state["book"])
    if not ended:
        return None
    try:
        score = read_score(folder)
    except ConfigError:
        return None
    if score.learner_steps != checkpoint.step:
        return None
    return "\n".join(
        [
            f"run {folder} is finished: there is nothing left to do",
            f"trained: return_mean={score.score:.3f} episodes={score.episodes}",
            f"random:  return_mean={score.random:.3f}",
            *ended,
        ]
    )
