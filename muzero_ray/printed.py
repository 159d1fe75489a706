"""Command lines that this program prints, so that whoever reads one can paste it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def launch_line(*words: object) -> str:
    """`python launch.py WORDS`, quoted for a shell, with `launch.py` found as it was for this command."""
    started = sys.argv[0]
    program = started if Path(started).name == "launch.py" else "launch.py"
    return shlex.join(["python", program, *map(str, words)])
