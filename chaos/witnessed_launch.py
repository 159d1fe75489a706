"""`launch.py` with witnesses for workers, and a run that trains up to the step in the file `target`.

`python -m chaos.witnessed_launch train ...` on a cluster. The file is in `run.runs_dir`, once the harm is done.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from chaos.witness import TARGET, witnessed
from muzero_ray import launch
from muzero_ray.actors import cluster
from muzero_ray.config.schema import Config
from muzero_ray.control import run_state


class TargetRunState(run_state.RunState):
    """Runs until `target` learner steps, once there is a target."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._target = Path(config.run.runs_dir) / TARGET

    def stop_reason(self) -> str | None:
        if self._target.exists() and self.learner_steps >= int(self._target.read_text()):
            return f"{self.learner_steps} learner steps"
        return super().stop_reason()


def main() -> int:
    code = mock.patch.object(cluster, "CODE", (*cluster.CODE, "chaos"))  # so that other hosts have the witnesses
    with witnessed(), code, mock.patch.object(run_state, "RunState", TargetRunState):
        return launch.main()


if __name__ == "__main__":
    sys.exit(main())
