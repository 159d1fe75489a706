"""A run as it lies on disk: the one reader and writer of its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from muzero_ray.config.files import dump_config
from muzero_ray.config.schema import Config
from muzero_ray.errors import CheckpointError, ConfigError
from muzero_ray.runs.checkpoint import (
    Checkpoint,
    Content,
    best_checkpoint,
    list_checkpoints,
    load_checkpoint,
)
from muzero_ray.runs.files import append_line, replace_text
from muzero_ray.runs.folder import run_folder, writing
from muzero_ray.runs.layout import CHECKPOINTS, RunLayout
from muzero_ray.runs.metrics_table import MetricsTable, read_metrics
from muzero_ray.runs.run_config import CONFIG_COPY, load_run_config, read_run_config
from muzero_ray.runs.side_files import SideFile, score_problem

WhichCheckpoint = Literal["best", "last"] | int
"""`last`: the newest good one. `best`: that of the highest score among those kept. A number: that of a learner step."""


class Run(RunLayout):
    """A run's folder: its settings, metrics, scores and checkpoints.

    Nothing is read before it is asked for, so a run may still be going on, and each call sees what is there by then.

        run = mz.Run("runs/cartpole")
        run.config.learner.lr
        run.metrics()["train/return_mean"]
        [score["return_mean"] for score in run.scores() if score["kind"] == "final"]
        run.steps()                      # of its checkpoints, the newest first
    """

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def config(self) -> Config:
        """Every setting of the run. ConfigError if the folder is not that of a run."""
        return load_run_config(self.folder)

    def metrics(self) -> MetricsTable:
        """The rows written so far, as columns."""
        return read_metrics(self.metrics_file)

    def scores(self) -> list[dict[str, Any]]:
        """Every evaluation so far, each with the protocol it was made under; `kind` is evaluation, final or random.

        CheckpointError if the file cannot be read; lines that are damaged are left out, and a warning names them.
        """
        return SideFile(self.scores_file, score_problem).entries()

    def steps(self) -> list[int]:
        """Learner steps of the checkpoints that are kept, the newest first."""
        return [int(path.name.partition(".")[0]) for path in list_checkpoints(self.checkpoints_folder)]

    def checkpoint(self, which: WhichCheckpoint = "last", *, read: Content = "all") -> Checkpoint:
        """One of the checkpoints that are kept, verified. CheckpointError if there is no such one."""
        if which == "last":
            return load_checkpoint(self.folder, read=read)
        folders = list_checkpoints(self.checkpoints_folder)
        if which == "best":
            if (best := best_checkpoint(folders)) is None:
                raise CheckpointError(
                    f"checkpoint=best: no checkpoint of {self.folder} has a score yet. Use last, or wait for the first "
                    "evaluation"
                )
            return load_checkpoint(best, read=read)
        if which not in (steps := self.steps()):
            kept = f"Kept are those of steps {', '.join(map(str, steps))}" if steps else "It has none yet"
            raise CheckpointError(f"checkpoint={which}: {self.folder} has no checkpoint of that learner step. {kept}")
        return load_checkpoint(folders[steps.index(which)], read=read)

    def write_config(self, config: Config) -> None:
        """Make `config` the settings of the run. MuZeroRayError if the disk refuses."""
        with writing(self.config_file) as path:
            replace_text(path, dump_config(config))

    def append_score(self, entry: Mapping[str, Any]) -> None:
        """Add an evaluation. MuZeroRayError if the disk refuses."""
        with writing(self.scores_file) as path, path.open("ab", buffering=0) as file:
            append_line(file, json.dumps(entry))

    def write_video(self, name: str, content: bytes) -> Path:
        """Write an mp4 of the run; returns its path. Raises OSError."""
        path = self.videos_folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path


def open_checkpoint(
    source: Run | str | Path, which: WhichCheckpoint = "last", *, read: Content = "all"
) -> tuple[Config, Checkpoint]:
    """The settings and one checkpoint of a run, or exactly the checkpoint whose folder `source` is.

    The folder of a checkpoint may have been copied without its run. ConfigError if `source` is neither, or if it is a
    checkpoint and `which` asks for another; CheckpointError if no good one is there.
    """
    path = source.folder if isinstance(source, Run) else Path(source)
    if RunLayout(path).config_file.is_file():
        return load_run_config(path), Run(path).checkpoint(which, read=read)
    if which != "last":
        raise ConfigError(
            f"checkpoint={which}: {path} is not the folder of a run, which has several checkpoints. Name the run's "
            "folder, or leave the checkpoint out"
        )
    if (path / CONFIG_COPY).is_file() and path.parent.name != CHECKPOINTS:
        return read_run_config(path / CONFIG_COPY), load_checkpoint(path, read=read)
    _, config, checkpoint = open_run(path, read=read)
    return config, checkpoint


def open_run(path: Path, *, read: Content = "all") -> tuple[Path, Config, Checkpoint]:
    """A run's folder, its configuration and its newest good checkpoint (or exactly the one that `path` names)."""
    folder = run_folder(path)
    return folder, load_run_config(folder), load_checkpoint(path, read=read)
