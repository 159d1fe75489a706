"""The state of a run: counters, schedules, budgets, and what is due. Plain; both runners use it in the same way."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Literal

import psutil

from muzero_ray.acting.rollout_stats import RolloutStats
from muzero_ray.config.schema import Config
from muzero_ray.control.rate_limiter import make_rate_limiter
from muzero_ray.errors import as_checkpoint_error
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.runs.metrics import MetricsAccumulator, make_row
from muzero_ray.training.results import TrainStats

Task = Literal["log", "evaluate", "checkpoint"]

RECENT_EPISODES = 100
"""Episodes behind the running mean that progress shows."""


class RunState:
    """Knows how far the run is, what may be done next, and when it must stop.

    Every reaction to results is here, so the serial and the distributed runner differ only in who does the work.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.limiter = make_rate_limiter(config)
        self.env_steps = 0
        self.learner_steps = 0
        self.episodes = 0
        self.reanalyzed = 0
        self.resumes = 0
        self.ended_by: str | None = None
        """Who ended the run before a limit did, in words. A run that is resumed goes on."""
        self.best_score: float | None = None
        self.last_score: float | None = None
        self.metrics = MetricsAccumulator()
        self._done_at: dict[Task, int] = {"log": 0, "evaluate": 0, "checkpoint": 0}
        self._recent: deque[float] = deque(maxlen=RECENT_EPISODES)
        self._seconds_before = 0.0
        self._begin: float | None = None
        """Monotonic time from which on the run's seconds count; None while they do not."""

    def incarnation(self, restarts: int = 0) -> int:
        """Distinct for every process that ever has one worker's place, over resumes and `restarts` within one."""
        return (self.resumes << 16) + restarts

    # Schedules, all over learner steps.

    @property
    def progress(self) -> float:
        """Share of the learner steps done, in [0, 1]."""
        return min(self.learner_steps / self._config.run.learner_steps, 1.0)

    @property
    def temperature(self) -> float:
        """The temperature of action sampling now."""
        return self._config.search.temperature_at(self.progress)

    @property
    def beta(self) -> float:
        """Importance-sampling exponent, annealed linearly to 1."""
        start = self._config.replay.priority_beta
        return start + (1.0 - start) * self.progress

    # Budgets.

    def rollout_budget(self) -> int:
        """Transitions self-play may add now: at most one call's worth."""
        if self.stop_reason() is not None:
            return 0
        return min(self.limiter.insert_budget(), self._config.actors.rollout_steps)

    def reanalyze_budget(self) -> int:
        """Transitions to search again now, so that `reanalyze.ratio` of what was played is."""
        return int(self._config.reanalyze.ratio * self.env_steps) - self.reanalyzed

    def train_budget(self) -> int:
        """Learner steps allowed now, never past a row, an evaluation, a checkpoint or the end."""
        if self.stop_reason() is not None:
            return 0
        run, evaluation = self._config.run, self._config.evaluation
        to_boundary = min(
            interval - self.learner_steps % interval
            for interval in (run.log_steps, run.checkpoint_steps, evaluation.interval_steps)
        )
        return min(self.limiter.sample_budget(), to_boundary, run.learner_steps - self.learner_steps)

    # What happened.

    def start_clock(self, at: float) -> None:
        """Seconds of the run count from the monotonic time `at`, that of the first move; what came before is start-up.

        Does nothing while the clock runs.
        """
        if self._begin is None:
            self._begin = at

    def stop_clock(self) -> None:
        """The rest, as the final evaluation, does not count."""
        self._seconds_before, self._begin = self.seconds, None

    def played(self, stats: RolloutStats) -> None:
        self.start_clock(time.monotonic() - stats.playing_for)
        self.env_steps += stats.transitions
        self.limiter.inserts(stats.inserted)
        self.episodes += len(stats.episodes)
        self._recent.extend(episode.score for episode in stats.episodes)
        for episode in stats.episodes:
            self.metrics.update(episode.metrics())
        self.metrics.update(stats.metrics(self.learner_steps))

    def trained(self, stats: TrainStats) -> None:
        self.learner_steps = stats.weights_step
        self.limiter.samples(stats.steps)
        self.metrics.update(stats.metrics())

    def learner_at(self, step: int) -> None:
        """The learner says that it is at `step`: back at a checkpoint, or ahead of reports that were lost.

        Steps that will be made again are drawn for again, so the replay ratio stays what it is configured to be.
        """
        self.limiter.samples(step - self.learner_steps)
        self.learner_steps = step

    def evaluated(self, result: Evaluation) -> bool:
        """Take a score; returns whether it is the best so far."""
        self.metrics.update(result.metrics())
        self.last_score = result.mean
        if self.best_score is None or result.mean >= self.best_score:
            self.best_score = result.mean
            return True
        return False

    # What is due.

    def due(self, task: Task) -> bool:
        """Whether `task`'s interval was crossed since it was last `done`."""
        run = self._config.run
        interval = {
            "log": run.log_steps,
            "checkpoint": run.checkpoint_steps,
            "evaluate": self._config.evaluation.interval_steps,
        }[task]
        return self.learner_steps // interval > self._done_at[task] // interval

    def done(self, task: Task, step: int | None = None) -> None:
        """`task` was done, with the learner at `step` (none: as it is now)."""
        self._done_at[task] = self.learner_steps if step is None else step

    def stop_reason(self) -> str | None:
        """Which limit of the run is reached, or who ended it, or None."""
        run = self._config.run
        if self.ended_by is not None:
            return self.ended_by
        if self.learner_steps >= run.learner_steps:
            return f"{self.learner_steps} learner steps"
        if run.episodes is not None and self.episodes >= run.episodes:
            return f"{self.episodes} episodes"
        if self.time_is_up:
            return f"{run.minutes:g} minutes"
        return None

    @property
    def time_is_up(self) -> bool:
        """Whether `run.minutes` are over."""
        minutes = self._config.run.minutes
        return minutes is not None and self.seconds >= 60 * minutes

    @property
    def seconds(self) -> float:
        """Wall clock since the first move of self-play, earlier parts of the run included; see `stop_clock`."""
        return self._seconds_before + (time.monotonic() - self._begin if self._begin is not None else 0.0)

    def row(self) -> dict[str, float]:
        """One row of metrics.jsonl: everything since the last."""
        self.metrics.add("replay/samples_per_insert", self.limiter.sampled / max(self.limiter.inserted, 1))
        self.metrics.add("system/rss_mb", psutil.Process().memory_info().rss / 2**20)
        return make_row(
            self.metrics.flush(),
            env_steps=self.env_steps,
            learner_steps=self.learner_steps,
            episodes=self.episodes,
            wall_s=self.seconds,
        )

    def display_values(self) -> dict[str, float | None]:
        """What the progress display shows."""
        return {
            "env_steps": self.env_steps,
            "learner_steps": self.learner_steps,
            "episodes": self.episodes,
            "train_return": sum(self._recent) / len(self._recent) if self._recent else None,
            "score": self.last_score,
            "best_score": self.best_score,
        }

    def state(self) -> dict[str, Any]:
        """JSON-able, metrics that are not yet in a row included."""
        return {
            "env_steps": self.env_steps,
            "learner_steps": self.learner_steps,
            "episodes": self.episodes,
            "reanalyzed": self.reanalyzed,
            "resumes": self.resumes,
            "best_score": self.best_score,
            "last_score": self.last_score,
            "done_at": dict(self._done_at),
            "recent": list(self._recent),
            "seconds": self.seconds,
            "limiter": self.limiter.state(),
            "metrics": self.metrics.state(),
        }

    @as_checkpoint_error("the counters of the run")
    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.env_steps = int(state["env_steps"])
        self.learner_steps = int(state["learner_steps"])
        self.episodes = int(state["episodes"])
        self.reanalyzed = int(state["reanalyzed"])
        self.resumes = int(state["resumes"]) + 1
        self.best_score, self.last_score = state["best_score"], state["last_score"]
        self._done_at = dict(state["done_at"])
        self._recent.extend(state["recent"])
        self._seconds_before = float(state["seconds"])
        self.limiter.load_state(state["limiter"])
        self.metrics.load_state(state["metrics"])
