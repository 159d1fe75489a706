"""Another checkout of this repository, and how its programs are run: each in a process that imports its own modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from muzero_ray.errors import ConfigError

HERE = Path(__file__).resolve().parents[1]


def checkout(path: Path) -> Path:
    """The absolute path of a checkout. ConfigError if the program is not in that folder."""
    if not (path / "launch.py").is_file():
        raise ConfigError(f"{path} is not a checkout of muzero_ray: launch.py is missing. Make one: git worktree add")
    return path.resolve()


def run_python(root: Path, words: list[str]) -> str:
    """Run this Python with `words` on the modules of the checkout `root`; returns what it printed.

    ConfigError with the end of its messages if it fails.
    """
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ConfigError(f"in {root}, {' '.join(words)} ended with exit code {done.returncode}:\n{said}")
    return done.stdout
