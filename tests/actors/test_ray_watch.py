"""Processes that Ray has started, and that `ray.shutdown` leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from muzero_ray.actors.ray_watch import processes_in

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()", sys.argv[1]])
child.wait()
"""


def test_what_works_in_a_folder_is_found_with_what_it_started(tmp_path: Path) -> None:
    mine, others = tmp_path / "mine", tmp_path / "others"
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PARENT, f"--log-dir={folder}/logs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for folder in (mine, others)
    ]
    try:
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "up\n"
        found = {process.pid: process.ppid() for process in processes_in([mine])}
        assert len(found) == 2
        assert programs[0].pid in found
        assert programs[0].pid in found.values()
        assert not processes_in([])
    finally:
        for program in programs:
            program.communicate()
