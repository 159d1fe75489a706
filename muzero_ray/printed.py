"""Command lines that this program prints, so that whoever reads one can paste it."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

SCRIPT = "muzero-ray"
"""The console script of an installation."""


def launch_line(*words: object) -> str:
    """This program with `words`, quoted for a shell, started in the way that works where the user stands.

    The program is named as it was started: `python launch.py`, `muzero-ray` or `python -m muzero_ray`. A script or
    notebook that imports the package gets `python launch.py` in a checkout, and `python -m muzero_ray` elsewhere.
    """
    return shlex.join([*_program(sys.argv[0]), *map(str, words)])


def _program(started: str) -> list[str]:
    path, package = Path(started), Path(__file__).parent
    # A checkout has a link here. An installation has a copy, which cannot be run as a script: it would find the
    # package's `types` where Python has its own.
    link = package / "launch.py"
    if path.name == SCRIPT:
        on_path = shutil.which(SCRIPT)
        return [SCRIPT if on_path and Path(on_path) == path else started]
    if path.name == "launch.py" and (path != link or link.is_symlink()):
        return ["python", started]
    if path == package / "__main__.py" or not link.is_symlink():
        return ["python", "-m", "muzero_ray"]
    return ["python", "launch.py"]
