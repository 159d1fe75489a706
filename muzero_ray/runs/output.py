"""What a run leaves behind and shows: its folder, metrics, checkpoints, scores, video. One object for both runners."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from muzero_ray.acting.rollout_stats import RolloutStats
from muzero_ray.config.files import dump_config
from muzero_ray.config.schema import Config
from muzero_ray.errors import as_checkpoint_error
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.runs.callbacks import Callbacks, Event
from muzero_ray.runs.checkpoint import (
    Checkpoint,
    abandon_later,
    label_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from muzero_ray.runs.counts import RunCounts
from muzero_ray.runs.folder import hold_run, make_run_folder, resume_hint, writing
from muzero_ray.runs.lock import RunLock
from muzero_ray.runs.metrics import AXES, METRICS
from muzero_ray.runs.progress import Progress
from muzero_ray.runs.replay_archive import prune_chunks
from muzero_ray.runs.run import Run
from muzero_ray.runs.run_config import CONFIG_COPY
from muzero_ray.runs.score_entry import episodes_table, score_entry
from muzero_ray.runs.side_files import is_count, keep_rows, keep_scores
from muzero_ray.runs.tracking import MetricsWriter
from muzero_ray.training.clamp_report import ClampReport
from muzero_ray.training.results import LearnerState
from muzero_ray.types import GameHistory

KEEP_CHECKPOINTS = 3


class RunOutput:
    """Owns `runs/<name>/`. Made by `create` or `reopen`; a context manager that closes what it opened."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        lock: RunLock,
        *,
        wandb_id: str | None = None,
        seconds_before: float = 0.0,
        last_row: Mapping[str, float] | None = None,
        callbacks: Sequence[object] = (),
    ) -> None:
        self.run, self.folder = Run(folder), folder
        self._lock = lock
        self._config = config
        # Taken out of the environment, so that no worker process inherits it.
        api_key = os.environ.pop("WANDB_API_KEY", None)
        self._metrics = MetricsWriter(
            folder,
            config.to_dict(),
            mode=config.run.wandb,
            project=config.run.wandb_project,
            run_id=wandb_id,
            api_key=api_key,
        )
        self._progress = Progress(
            config.run.learner_steps,
            episodes=config.run.episodes,
            minutes=config.run.minutes,
            title=f"muzero_ray  {folder.name}",
        )
        self._seconds_before = seconds_before
        self._last_row: Mapping[str, float] = last_row or {}
        self._clamping = ClampReport(config.network, self._last_row)
        self._scored: tuple[int, float] | None = None
        """Learner step and mean return of the newest evaluation: the score of a checkpoint of just that step."""
        self._told_of_cut = False
        self._callbacks = Callbacks(callbacks, self.message)

    @staticmethod
    def create(
        config: Config, folder: Path, lock: RunLock | None = None, callbacks: Sequence[object] = ()
    ) -> RunOutput:
        """A new run's folder with its `config.yaml`. Raises ConfigError if it is there already.

        lock: of the folder, if it is there already, held by this process and empty.
        """
        lock = lock or make_run_folder(folder)
        Run(folder).write_config(config)
        with writing(folder):
            return RunOutput(folder, config, lock, callbacks=callbacks)

    @staticmethod
    def reopen(
        config: Config,
        folder: Path,
        checkpoint: Checkpoint,
        lock: RunLock | None = None,
        callbacks: Sequence[object] = (),
    ) -> RunOutput:
        """Go on in `folder` from `checkpoint`: rows and scores after it are dropped, they will be made again.

        Later checkpoints are renamed `<step>.abandoned`. `config`, with the budget it was given now, becomes the run's.
        Rows and scores that cannot be read are left out with a warning: the run does not depend on them.
        lock: of the run, if this process holds it already.
        """
        with as_checkpoint_error("the checkpoint's state.json"):
            rows, seconds = checkpoint.state["metrics_rows"], float(checkpoint.state["book"]["seconds"])
            if not is_count(rows):
                raise ValueError(f"metrics_rows={rows}")
            wandb_id = checkpoint.state["wandb_id"]
        lock = lock or hold_run(folder)
        run = Run(folder)
        with writing(folder):
            abandon_later(run.checkpoints_folder, checkpoint.step)
            run.write_config(config)
            last = keep_rows(run.metrics_file, rows, checkpoint.step)
            keep_scores(run.scores_file, checkpoint.step)
            known = {name: value for name, value in last.items() if name in AXES or name in METRICS}
            output = RunOutput(
                folder,
                config,
                lock,
                wandb_id=wandb_id,
                seconds_before=seconds,
                last_row=known,
                callbacks=callbacks,
            )
        if checkpoint.score is not None:
            output._scored = checkpoint.step, checkpoint.score
        return output

    def __enter__(self) -> RunOutput:
        self._progress.__enter__()
        self._progress.update({"seconds_before": self._seconds_before})
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.close()
        self._metrics.close()
        self._lock.release()

    @property
    def replay_folder(self) -> Path:
        return self.run.replay_folder

    @property
    def resume_hint(self) -> str:
        """What a person can do once the run has stopped."""
        return resume_hint(self.folder)

    @property
    def _root(self) -> Path:
        return self.run.checkpoints_folder

    def last_checkpoint(self) -> Checkpoint | None:
        """The newest good one of this run, for the learner alone; None before the first."""
        return load_checkpoint(self._root, read="learner") if list_checkpoints(self._root) else None

    def message(self, text: str) -> None:
        """An event a person should see."""
        self._progress.message(text)

    def faults(self, what: Sequence[str]) -> None:
        """Environments that broke and were replaced."""
        for fault in what:
            self.message(f"{fault}; replaced")

    def show(self, run_state: RunCounts) -> None:
        """Refresh the progress display. LockLost if the run is another process' now."""
        self._lock.check()
        self._progress.update({**run_state.display_values(), "seconds": run_state.seconds})

    def evaluating(self, progress: str | None) -> None:
        """Which evaluation goes on and how far it is, for the next `show`; None: it is over."""
        self._progress.doing(progress)

    def write_row(self, run_state: RunCounts) -> None:
        """One row of metrics: everything since the last. Nothing if this learner step has its row already."""
        if run_state.learner_steps != self._last_row.get("learner_steps"):
            row = run_state.row()
            self._write(row, self._metrics.write)
            self._tell(run_state, "on_metrics", dict(row))

    @property
    def wants_games(self) -> bool:
        """Whether a callback is to be told of games."""
        return self._callbacks.wants("on_game")

    def played(self, run_state: RunCounts, games: Iterable[GameHistory], stats: RolloutStats) -> None:
        """Tell callbacks of games that a call of self-play handed out; without a callback, none is even decoded."""
        for game in games if self.wants_games else ():
            self._tell(run_state, "on_game", game, stats)

    def _tell(self, run_state: RunCounts, event: Event, *what: Any) -> None:
        self._callbacks.tell(event, *what)
        run_state.ended_by = self._callbacks.stopped_by

    def confirm_lock(self) -> None:
        """LockLost if the run is another process' now: to be asked before a checkpoint is put together."""
        self._lock.confirm()

    def _write(self, row: dict[str, float], write: Callable[[dict[str, float]], None]) -> None:
        self._lock.confirm()
        with writing(self._metrics.path):
            write(row)
        for text in self._clamping.messages(row):
            self.message(text)
        self._last_row = row
        self._progress.update(row)

    def scored(self, run_state: RunCounts, evaluation: Evaluation, step: int, env_steps: int | None = None) -> None:
        """A score of the weights of learner step `step`: in the next row, in scores.jsonl, and of that checkpoint.

        env_steps: when those weights were made (none: now).
        """
        self.faults(evaluation.faults)
        run_state.evaluated(evaluation)
        self._record_score("evaluation", evaluation, step, run_state.env_steps if env_steps is None else env_steps)
        self._label(step, evaluation)
        self.message(f"evaluation at learner step {step}: {evaluation.summary()}")
        if (note := evaluation.cut_note()) and not self._told_of_cut:
            self._told_of_cut = True
            self.message(note)
        self._tell(run_state, "on_evaluation", replace(evaluation, learner_step=step))
        self.show(run_state)

    def _label(self, step: int, evaluation: Evaluation) -> None:
        self._scored = step, evaluation.mean
        label_checkpoint(self._root, step, evaluation.mean)

    def checkpoint(
        self,
        run_state: RunCounts,
        learner: LearnerState,
        replay_files: dict[str, bytes],
        self_play_files: dict[str, bytes] | None = None,
    ) -> None:
        """Write a checkpoint of the run as it is now, and drop what no checkpoint needs any more."""
        self._lock.confirm()
        arrays, info = learner
        model = {name: array for name, array in arrays.items() if name.startswith("model.")}
        state = {
            "book": run_state.state(),
            "learner": info,
            "metrics_rows": self._metrics.sync(),
            "wandb_id": self._metrics.run_id,
        }
        scored_step, score = self._scored or (None, None)
        path = save_checkpoint(
            self._root,
            run_state.learner_steps,
            model=model,
            optimizer={name: array for name, array in arrays.items() if name not in model},
            state=state,
            extra_files={**replay_files, **(self_play_files or {}), CONFIG_COPY: dump_config(self._config).encode()},
            keep=KEEP_CHECKPOINTS,
            best=score if scored_step == run_state.learner_steps else None,
        )
        prune_chunks(self.replay_folder, self._root, self._config.replay.shards)
        self._tell(run_state, "on_checkpoint", path)

    def finished(
        self,
        run_state: RunCounts,
        evaluation: Evaluation,
        baseline: Evaluation,
        step: int,
        *,
        ended: Sequence[str] = (),
        warning: str | None = None,
    ) -> None:
        """The final scores: in the last row, the episodes as a table, the video, and a closing summary.

        ended: lines of the summary about why the run is over. warning: its last line, if there is one.
        """
        run_state.evaluated(evaluation)
        self._record_score("final", evaluation, step, run_state.env_steps)
        self._record_score("random", baseline, step, run_state.env_steps)
        self._label(step, evaluation)
        self._progress.update({"random_score": baseline.mean})
        row = run_state.row()
        if row["learner_steps"] == self._last_row.get("learner_steps"):
            scores = {name: value for name, value in row.items() if name in AXES or name.startswith("eval/")}
            row = {**row, **self._last_row, **scores}
            self._write(row, self._metrics.replace_last)
        else:
            self._write(row, self._metrics.write)
        self._metrics.log_table("eval/episodes_table", *episodes_table(evaluation))
        self._progress.close()
        lines = [
            "",
            f"{'trained' if run_state.learner_steps else 'untrained'}: {evaluation.summary()}",
            f"random:  {baseline.summary()}",
            f"protocol {evaluation.protocol.digest}: {evaluation.protocol.describe()}",
            f"run:     {self.folder}",
        ]
        if evaluation.video is not None:
            try:  # the run is over, and all else is written
                path = self.run.write_video(f"final-{step}.mp4", evaluation.video)
            except OSError as error:
                lines.append(f"video:   none, it was not written ({error})")
            else:
                self._metrics.log_video(path)
                lines.append(f"video:   {path}")
        lines += ended
        lines += [f"warning: {note}" for note in (evaluation.cut_note(), warning) if note]
        for line in lines:
            self.message(line)
        self._tell(run_state, "on_evaluation", replace(evaluation, learner_step=step))

    def _record_score(self, kind: str, evaluation: Evaluation, step: int, env_steps: int) -> None:
        """Every score with the protocol it was measured under."""
        self._lock.confirm()
        self.run.append_score(score_entry(kind, evaluation, step, env_steps))


@as_checkpoint_error("the checkpoint's state.json")
def learner_state(checkpoint: Checkpoint) -> LearnerState:
    """The learner's part of a checkpoint, for `Learner.load_state`."""
    return {**checkpoint.model, **checkpoint.optimizer}, checkpoint.state["learner"]
