"""`launch.py` as a person starts it, in a process and session of its own."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from chaos.report import ROOT

LAUNCH = ROOT / "launch.py"

MARK = "CHAOS_RUN"
"""In the environment of a program and of all that it ever started, wherever that went since."""


class Program:
    """A started `launch.py`; what it prints goes to a file. A context manager that leaves nothing of it running.

    command: what starts it, if it is not this interpreter here. environment: that of this process, if not another.
    paths: folders that its processes import from, too.
    """

    def __init__(
        self,
        log: Path,
        *arguments: object,
        command: Sequence[str] = (sys.executable, str(LAUNCH)),
        environment: Mapping[str, str] = os.environ,
        paths: Sequence[Path] = (),
    ) -> None:
        self.log = log
        self._mark = secrets.token_hex(8)
        old = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
        import_from = {"PYTHONPATH": os.pathsep.join([*map(str, paths), str(ROOT), *old])}
        marks = {MARK: self._mark, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        self._out = log.open("w")
        self._process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env={**environment, **import_from, **marks},
            cwd=ROOT,
            start_new_session=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill all of it that still runs."""
        self.kill_group()
        for process in self.left():
            process.kill()
        self._out.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Its exit code, or None after so long."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, seconds: float) -> int | None:
        """Ask it to stop, as `kill` does."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill_group(self) -> None:
        """kill -9 of its process group."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def left(self) -> list[psutil.Process]:
        """Its processes that run, itself included."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue  # gone since, or of another user
        return found

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def error(self) -> str:
        """Its message for a person if it ended with one, a traceback's last line if with that, or nothing."""
        lines = self.printed().splitlines()
        if any(line.startswith("Traceback") for line in lines):
            return f"TRACEBACK {lines[-1]}"
        return next((line for line in lines if line.startswith("error: ")), "")


def until(condition: Callable[[], bool], seconds: float, *, pause: float = 0.02) -> bool:
    """Whether it came to hold within so long. pause: between two looks, in seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True
