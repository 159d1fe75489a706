"""Where metrics go: metrics.jsonl first and always, then Weights & Biases from a thread that may fail freely."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from muzero_ray.runs.files import append_line, open_for_lines
from muzero_ray.runs.layout import METRICS_FILE, RunLayout
from muzero_ray.runs.metrics import check_row

logger = logging.getLogger(__name__)

WandbMode = Literal["auto", "online", "offline", "disabled"]

QUEUE_SIZE: Final = 512
"""Rows and media that may wait for W&B; beyond it the oldest is dropped."""
ROW_INTERVAL: Final = 1.0
"""Least seconds between two rows sent to W&B."""
INIT_TIMEOUT: Final = 20.0
"""Seconds to wait for the W&B server at the start."""
FINISH_TIMEOUT: Final = 15.0
"""Seconds to wait for uploads at the end; the rest stays on disk for `wandb sync`."""

Job = Callable[[Any, Any], None]
"""What the thread does with (the wandb module, the run)."""


class MetricsWriter:
    """Writes rows to `run_dir/metrics.jsonl` and, unless disabled, to W&B under `run_dir/wandb`.

    A row is in the file when `write` returns; a value that is not finite is written as null, since NaN is not JSON.
    W&B gets rows later, at most one per `ROW_INTERVAL`, without null values. Whatever W&B does, callers neither wait
    nor fail: one warning, and the file goes on. `dropped` counts what W&B did not get.

    config: shown by W&B. mode: `auto` is online if there is a key, else offline. run_id: of the W&B run, the same one
    when a run is resumed; made up if None and then to be stored in checkpoints (`writer.run_id`). api_key: the W&B key,
    if it is not in WANDB_API_KEY any more.
    """

    def __init__(
        self,
        run_dir: Path,
        config: Mapping[str, Any],
        *,
        mode: WandbMode = "auto",
        project: str = "muzero_ray",
        run_name: str | None = None,
        run_id: str | None = None,
        api_key: str | None = None,
    ) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path = RunLayout(run_dir).metrics_file
        self.run_id = run_id or secrets.token_hex(4)
        # Unbuffered: a row is one write, so a killed process leaves whole lines.
        self._file, self.rows, self._last = open_for_lines(self.path)
        self._env_steps = 0.0
        self._wandb: _WandbThread | None = None
        if mode != "disabled":
            key = api_key or os.environ.get("WANDB_API_KEY")
            settings = {
                "project": project,
                "run_name": run_name or run_dir.name,
                "run_id": self.run_id,
                "api_key": key,
                "mode": ("online" if key else "offline") if mode == "auto" else mode,
            }
            self._wandb = _WandbThread(run_dir.resolve(), dict(config), settings)

    @property
    def dropped(self) -> int:
        """Rows and media that W&B did not get."""
        return self._wandb.dropped if self._wandb else 0

    def write(self, row: Mapping[str, float]) -> None:
        """Append one row. Raises ValueError for unknown or missing names, OSError if the disk refuses."""
        check_row(row)
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        end = os.fstat(self._file.fileno()).st_size
        append_line(self._file, json.dumps(finite, allow_nan=False))
        self.rows, self._last = self.rows + 1, end
        self._env_steps = row["env_steps"]
        values = {name: value for name, value in finite.items() if value is not None}
        self._submit(lambda _, run: run.log(values), is_row=True)

    def replace_last(self, row: Mapping[str, float]) -> None:
        """Write `row` in place of the last one, of which there must be one. Raises as `write`."""
        os.ftruncate(self._file.fileno(), self._last)
        self.rows -= 1
        self.write(row)

    def log_video(self, path: Path, name: str = "eval/video") -> None:
        """Show an mp4 file in W&B."""
        steps = self._env_steps
        self._submit(
            lambda wandb, run: run.log({"env_steps": steps, name: wandb.Video(str(path), format="mp4")}), is_row=False
        )

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Show a table in W&B, such as the episodes of an evaluation."""
        steps, titles, data = self._env_steps, list(columns), [list(row) for row in rows]
        self._submit(
            lambda wandb, run: run.log({"env_steps": steps, name: wandb.Table(columns=titles, data=data)}),
            is_row=False,
        )

    def sync(self) -> int:
        """Force the file to disk; returns its rows, which a checkpoint stores for `keep_rows`."""
        os.fsync(self._file.fileno())
        return self.rows

    def close(self, timeout: float = 20.0) -> None:
        """Close the file, and give W&B up to `timeout` seconds to take what waits. Never raises over W&B."""
        self._file.close()
        if self._wandb is not None:
            self._wandb.close(timeout)

    def _submit(self, job: Job, *, is_row: bool) -> None:
        if self._wandb is not None:
            self._wandb.submit(job, is_row)


class _WandbThread:
    """The only place that talks to W&B: one daemon thread and a bounded queue.

    Any failure ends it with one warning. It is not tried again: a second start would open another run folder, and
    nothing is lost that metrics.jsonl does not hold.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any], settings: dict[str, Any]) -> None:
        self.dropped = 0
        self._run_dir = run_dir
        self._config = config
        self._settings = settings
        self._queue: deque[tuple[Job, bool]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failed = False
        self._in_hand = 0
        self._thread = threading.Thread(target=self._main, name="wandb-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job, is_row: bool) -> None:
        with self._changed:
            if self._failed or self._closing:
                self.dropped += 1
                return
            if len(self._queue) >= QUEUE_SIZE:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append((job, is_row))
            self._changed.notify()

    def close(self, timeout: float) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            with self._changed:
                self.dropped += len(self._queue)
                self._queue.clear()
            logger.warning("W&B did not finish within %g s; what it has is below %s/wandb", timeout, self._run_dir)
            teardown = threading.Thread(target=_teardown, name="wandb-teardown", daemon=True)
            teardown.start()
            teardown.join(1.0)
        if self.dropped:
            logger.warning("W&B did not get %d rows; all of them are in %s", self.dropped, METRICS_FILE)

    def _main(self) -> None:
        run = None
        try:
            import wandb

            run = self._start(wandb)
            run.define_metric("env_steps")
            run.define_metric("*", step_metric="env_steps")
            self._serve(wandb, run)
            run.finish()
        # W&B is a guest: no failure of it, of whatever kind, may reach training.
        except Exception as error:
            with self._changed:
                self._failed = True
                self.dropped += len(self._queue) + self._in_hand
                self._queue.clear()
            logger.warning("W&B stopped (%s: %s); metrics go on in %s", type(error).__name__, error, METRICS_FILE)
            _teardown()

    def _start(self, wandb: Any) -> Any:
        """Open the run; online falls back to offline if the server or the key fails."""
        mode = self._settings["mode"]
        try:
            run = self._init(wandb, mode)
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            if mode != "online":
                raise
            logger.warning("W&B cannot be reached (%s); it goes on offline, `wandb sync` uploads later", error)
            # The service still holds the id of the failed attempt, and would refuse it.
            _teardown()
            run = self._init(wandb, "offline")
        if not Path(run.dir).resolve().is_relative_to(self._run_dir):
            # W&B falls back to a temporary folder without a word when it cannot write where it was told.
            place = run.dir
            run.finish()
            raise OSError(f"its files went to {place}, not below {self._run_dir}")
        if not run.offline:
            logger.info("W&B run: %s", run.url)
        return run

    def _init(self, wandb: Any, mode: str) -> Any:
        wanted = {
            "api_key": self._settings["api_key"] if mode == "online" else None,
            "host": "",
            "console": "off",
            "disable_git": True,
            "save_code": False,
            "silent": True,
            "init_timeout": INIT_TIMEOUT,
            "finish_timeout": FINISH_TIMEOUT,
            "x_disable_stats": True,
            "x_disable_machine_info": True,
            "x_save_requirements": False,
            "x_transaction_log_flush_interval": 1.0,
        }
        # Tables are staged in the home folder otherwise: lost to `wandb sync` once the run's folder has moved.
        os.environ["WANDB_DATA_DIR"] = str(self._run_dir / "wandb")
        # Names beginning with x_ come and go between versions, and one unknown name refuses them all.
        known = {name: value for name, value in wanted.items() if name in wandb.Settings.model_fields}
        return wandb.init(
            dir=str(self._run_dir),
            project=self._settings["project"],
            name=self._settings["run_name"],
            id=self._settings["run_id"],
            resume="allow",
            mode=mode,
            config=self._config,
            settings=wandb.Settings(**known),
        )

    def _serve(self, wandb: Any, run: Any) -> None:
        """Do jobs until closed and empty; never `step=`, which silently drops rows that go back."""
        next_row = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                # Closing empties the queue without pauses.
                wait = next_row - time.monotonic()
                if self._queue[0][1] and wait > 0 and not self._closing:
                    self._changed.wait_for(lambda: self._closing, timeout=wait)
                job, is_row = self._queue.popleft()
                self._in_hand = 1
            job(wandb, run)
            self._in_hand = 0
            if is_row:
                next_row = time.monotonic() + ROW_INTERVAL


def _teardown() -> None:
    """Let go of W&B's service process after a failure: left alone, its hook at exit may raise or wait for ever."""
    wandb = sys.modules.get("wandb")
    if wandb is not None:
        try:
            wandb.teardown()
        # The failure itself was reported; the hook is gone by now, whatever the dead service answers.
        except (Exception, SystemExit) as error:
            logger.debug("W&B teardown: %r", error)
