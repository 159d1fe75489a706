"""What a run leaves behind and shows: its folder, metrics, checkpoints, scores, video. One object for both runners."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from muzero_ray.config import Config
from muzero_ray.config_file import dump_config, load_config
from muzero_ray.errors import ConfigError, MuZeroRayError, taking_over
from muzero_ray.runtime.checkpoint import (
    Checkpoint,
    abandon_later,
    label_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from muzero_ray.runtime.evaluation import Evaluation
from muzero_ray.runtime.files import append_line, replace_text
from muzero_ray.runtime.metrics import AXES
from muzero_ray.runtime.progress import Progress
from muzero_ray.runtime.replay_archive import prune_chunks
from muzero_ray.runtime.run_book import RunBook
from muzero_ray.runtime.tracking import METRICS_FILE, MetricsWriter, truncate_metrics
from muzero_ray.types import FloatArray
from muzero_ray.user_paths import making_folder

KEEP_CHECKPOINTS = 3

SCORES_FILE = "scores.jsonl"

LearnerState = tuple[dict[str, FloatArray], dict[str, Any]]
"""What `Learner.state` returns: named arrays and JSON."""


class RunOutput:
    """Owns `runs/<name>/`. Made by `create` or `reopen`; a context manager that closes what it opened."""

    def __init__(
        self, folder: Path, config: Config, *, wandb_id: str | None = None, seconds_before: float = 0.0
    ) -> None:
        self.folder = folder
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
            config.run.training_steps,
            episodes=config.run.episodes,
            minutes=config.run.minutes,
            title=f"muzero_ray  {folder.name}",
        )
        self._seconds_before = seconds_before
        self._last_row = _last_row(self._metrics.path)
        self._scored: tuple[int, float] | None = None
        """Learner step and mean return of the newest evaluation: the score of a checkpoint of just that step."""

    @staticmethod
    def create(config: Config, folder: Path) -> RunOutput:
        """A new run's folder with its `config.yaml`. Raises ConfigError if it is there already."""
        try:
            with making_folder(folder):
                folder.mkdir(parents=True)
        except FileExistsError:
            raise ConfigError(
                f"run folder {folder} exists already. Go on with `python launch.py resume {folder}`, or choose another "
                "--run.name"
            ) from None
        with writing(folder / "config.yaml") as path:
            replace_text(path, dump_config(config))
            return RunOutput(folder, config)

    @staticmethod
    @taking_over("the checkpoint's state.json")
    def reopen(config: Config, folder: Path, checkpoint: Checkpoint) -> RunOutput:
        """Go on in `folder` from `checkpoint`: rows and scores after it are dropped, they will be made again.

        Later checkpoints are renamed `<step>.abandoned`. `config`, with the budget it was given now, becomes the run's.
        """
        rows, seconds = int(checkpoint.state["metrics_rows"]), float(checkpoint.state["book"]["seconds"])
        with writing(folder):
            abandon_later(folder / "checkpoints", checkpoint.step)
            replace_text(folder / "config.yaml", dump_config(config))
            truncate_metrics(folder / METRICS_FILE, rows)
            scores = folder / SCORES_FILE
            if scores.exists():
                lines = [line for line in scores.read_text().splitlines(keepends=True) if line.endswith("\n")]
                kept = "".join(line for line in lines if json.loads(line)["learner_step"] <= checkpoint.step)
                replace_text(scores, kept)
            output = RunOutput(folder, config, wandb_id=checkpoint.state["wandb_id"], seconds_before=seconds)
        if checkpoint.score is not None:
            output._scored = checkpoint.step, checkpoint.score
        return output

    def remove_if_unused(self) -> None:
        """Free the name of a run that ended before there was anything to keep: a row, a game or a checkpoint."""
        kept = (*self.folder.glob(METRICS_FILE), *self._root.glob("*"), *self.replay_folder.rglob("*"))
        if not any(path.is_dir() or path.stat().st_size for path in kept):
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RunOutput:
        self._progress.__enter__()
        self._progress.update({"seconds_before": self._seconds_before})
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.close()
        self._metrics.close()

    @property
    def replay_folder(self) -> Path:
        return (self.folder / "replay").resolve()  # workers may have another working directory

    @property
    def resume_command(self) -> str:
        return f"python launch.py resume {self.folder}"

    @property
    def way_on(self) -> str:
        """What a person can do once the run has stopped."""
        if list_checkpoints(self._root):
            return f"go on with: {self.resume_command}"
        return "there is no checkpoint yet: start it again under another --run.name"

    @property
    def _root(self) -> Path:
        return self.folder / "checkpoints"

    def last_checkpoint(self) -> Checkpoint | None:
        """The newest good one of this run; None before the first."""
        return load_checkpoint(self._root) if list_checkpoints(self._root) else None

    def message(self, text: str) -> None:
        """An event a person should see."""
        self._progress.message(text)

    def faults(self, what: Sequence[str]) -> None:
        """Environments that broke and were replaced."""
        for fault in what:
            self.message(f"{fault}; replaced")

    def show(self, book: RunBook) -> None:
        """Refresh the progress display."""
        self._progress.update(book.snapshot())

    def write_row(self, book: RunBook) -> None:
        """One row of metrics: everything since the last. Nothing if this learner step has its row already."""
        if book.learner_steps != self._last_row.get("learner_steps"):
            self._write(book.row())

    def _write(self, row: dict[str, float]) -> None:
        with writing(self._metrics.path):
            self._metrics.write(row)
        self._last_row = row
        self._progress.update(row)

    def scored(self, book: RunBook, evaluation: Evaluation, step: int, env_steps: int | None = None) -> None:
        """A score of the weights of learner step `step`: in the next row, in scores.jsonl, and of that checkpoint.

        env_steps: when those weights were made (none: now).
        """
        self.faults(evaluation.faults)
        book.evaluated(evaluation)
        self._record_score("evaluation", evaluation, step, book.env_steps if env_steps is None else env_steps)
        self._label(step, evaluation)
        self.message(f"evaluation at learner step {step}: {evaluation.summary()}")
        self.show(book)

    def _label(self, step: int, evaluation: Evaluation) -> None:
        self._scored = step, evaluation.mean
        label_checkpoint(self._root, step, evaluation.mean)

    def checkpoint(
        self,
        book: RunBook,
        learner: LearnerState,
        replay_files: dict[str, bytes],
        self_play_files: dict[str, bytes] | None = None,
    ) -> None:
        """Write a checkpoint of the run as it is now, and drop what no checkpoint needs any more."""
        arrays, info = learner
        model = {name: array for name, array in arrays.items() if name.startswith("model.")}
        state = {
            "book": book.state(),
            "learner": info,
            "metrics_rows": self._metrics.sync(),
            "wandb_id": self._metrics.run_id,
        }
        scored_step, score = self._scored or (None, None)
        save_checkpoint(
            self._root,
            book.learner_steps,
            model=model,
            optimizer={name: array for name, array in arrays.items() if name not in model},
            state=state,
            extra_files={**replay_files, **(self_play_files or {})},
            keep=KEEP_CHECKPOINTS,
            best=score if scored_step == book.learner_steps else None,
        )
        prune_chunks(self.replay_folder, self._root, self._config.replay.shards)

    def finished(self, book: RunBook, evaluation: Evaluation, baseline: Evaluation, step: int) -> None:
        """The final scores: in the last row, the episodes as a table, the video, and a closing summary."""
        book.evaluated(evaluation)
        self._record_score("final", evaluation, step, book.env_steps)
        self._record_score("random", baseline, step, book.env_steps)
        self._label(step, evaluation)
        self._progress.update({"random_score": baseline.mean})
        row = book.row()
        if row["learner_steps"] == self._last_row.get("learner_steps"):
            scores = {name: value for name, value in row.items() if name in AXES or name.startswith("eval/")}
            row = {**row, **self._last_row, **scores}
            truncate_metrics(self._metrics.path, self._metrics.rows - 1)
            self._metrics.rows -= 1
        self._write(row)
        self._metrics.log_table(
            "eval/episodes_table",
            ("episode", "seed", "return", "length"),
            [
                (i, evaluation.seed + i, float(score), int(length))
                for i, (score, length) in enumerate(zip(evaluation.returns, evaluation.lengths, strict=True))
            ],
        )
        self._progress.close()
        lines = [
            "",
            f"trained: {evaluation.summary()}",
            f"random:  {baseline.summary()}",
            f"protocol {evaluation.protocol.digest}: {evaluation.protocol.describe()}",
            f"run:     {self.folder}",
        ]
        if evaluation.video is not None:
            path = self.folder / "videos" / f"final-{step}.mp4"
            try:  # the run is over, and all else is written
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(evaluation.video)
            except OSError as error:
                lines.append(f"video:   none, it was not written ({error})")
            else:
                self._metrics.log_video(path)
                lines.append(f"video:   {path}")
        lines.append(f"resume:  {self.resume_command} {self._more(book)}")
        for line in lines:
            self.message(line)

    def _more(self, book: RunBook) -> str:
        """The option of `resume` that doubles the limit which ended the run."""
        run = self._config.run
        if book.learner_steps >= run.training_steps:
            return f"--iterations {2 * run.training_steps}"
        if run.episodes is not None and book.episodes >= run.episodes:
            return f"--episodes {2 * book.episodes}"
        return f"--minutes {2 * (run.minutes or book.seconds / 60):g}"

    def _record_score(self, kind: str, evaluation: Evaluation, step: int, env_steps: int) -> None:
        """Every score with the protocol it was measured under."""
        entry = {
            "kind": kind,
            "learner_step": step,
            "env_steps": env_steps,
            "return_mean": evaluation.mean,
            "return_std": float(evaluation.returns.std()),
            "returns": evaluation.returns.tolist(),
            "faults": len(evaluation.faults),
            "seed": evaluation.seed,
            "protocol": {**asdict(evaluation.protocol), "digest": evaluation.protocol.digest},
        }
        with writing(self.folder / SCORES_FILE) as path, path.open("ab", buffering=0) as file:
            append_line(file, json.dumps(entry))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """MuZeroRayError if the disk refuses. Gives `path`."""
    try:
        yield path
    except OSError as error:
        raise MuZeroRayError(
            f"{path} was not written: {error.strerror or error}. Free space or fix permissions there, then go on with: "
            f"python launch.py resume {path.parent if path.suffix else path}"
        ) from error


def _last_row(path: Path) -> dict[str, float]:
    """Of a metrics file; empty if there is none."""
    lines = path.read_bytes().splitlines()
    row = json.loads(lines[-1]) if lines else {}
    return {name: value for name, value in row.items() if value is not None}


@taking_over("the checkpoint's state.json")
def learner_state(checkpoint: Checkpoint) -> LearnerState:
    """The learner's part of a checkpoint, for `Learner.load_state`."""
    return {**checkpoint.model, **checkpoint.optimizer}, checkpoint.state["learner"]


def open_run(path: Path) -> tuple[Path, Config, Checkpoint]:
    """A run's folder, its configuration and its newest good checkpoint (or exactly the one that `path` names)."""
    folder = path
    while not (folder / "config.yaml").is_file():
        if folder.parent == folder or len(folder.parts) + 2 < len(path.parts):
            raise ConfigError(f"{path} is no run or checkpoint folder: there is no config.yaml. See `runs/`")
        folder = folder.parent
    return folder, load_config(folder / "config.yaml"), load_checkpoint(path)
