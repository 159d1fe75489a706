"""Where a run keeps what: the names in its folder are spelled here and nowhere else."""

from __future__ import annotations

from pathlib import Path

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
SCORES_FILE = "scores.jsonl"
CHECKPOINTS = "checkpoints"
REPLAY = "replay"
VIDEOS = "videos"


class RunLayout:
    """The paths in the folder of a run, which need not exist."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def config_file(self) -> Path:
        """Every setting of the run."""
        return self.folder / CONFIG_FILE

    @property
    def metrics_file(self) -> Path:
        """One row of metrics a line."""
        return self.folder / METRICS_FILE

    @property
    def scores_file(self) -> Path:
        """One evaluation a line."""
        return self.folder / SCORES_FILE

    @property
    def checkpoints_folder(self) -> Path:
        """One folder for each checkpoint, named by its learner step."""
        return self.folder / CHECKPOINTS

    @property
    def replay_folder(self) -> Path:
        """The games of replay. Absolute: workers may have another working directory."""
        return (self.folder / REPLAY).resolve()

    @property
    def videos_folder(self) -> Path:
        return self.folder / VIDEOS
