"""What tells one process from another that has the same id."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil


def machine() -> str:
    """Where process ids mean the same as here: this boot of the machine and this process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def start_time(pid: int) -> str | None:
    """When a process started; "" if it has ended and only its entry is left, None if it is not there or hidden."""
    try:
        if Path("/proc/self/stat").exists():  # in ticks since the boot: psutil's time moves when the clock is set
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return "" if state in "ZX" else fields[18]
        return str(psutil.Process(pid).create_time())
    except (OSError, psutil.Error):
        return None
