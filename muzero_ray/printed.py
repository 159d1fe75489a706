"""Command lines that this program prints, so that whoever reads one can paste it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def launch_line(*words: object) -> str:
    """`python launch.py WORDS`, quoted for a shell, with `launch.py` found as it was for this command.

    Installed, it is a module of the package, and no script.
    """
    started = sys.argv[0]
    program = [started if Path(started).name == "launch.py" else "launch.py"]
    if Path(started) == Path(__file__).with_name("launch.py") and not Path(started).is_symlink():
        program = ["-m", "muzero_ray.launch"]
    return shlex.join(["python", *program, *map(str, words)])
