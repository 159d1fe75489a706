"""Processes that the kernel killed for lack of memory, named as such."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
VMSTAT = Path("/proc/vmstat")

REMEDY = "Give the run more, or lower --actors, replay.capacity or learner.batch_size"


class MemoryKills:
    """Counts what the kernel has killed for lack of memory in this container, or else on this machine."""

    def __init__(self) -> None:
        self._seen = kills()

    def newly(self) -> bool:
        """Whether there were more since the last call."""
        before, self._seen = self._seen, kills()
        return self._seen > before


def kills() -> int:
    """Kills for memory in this process's control group and those above it (v2, v1), or else on the machine."""
    counts = [count for file in _event_files() if (count := _count(file)) is not None]
    return max(counts) if counts else _count(VMSTAT) or 0


def _event_files() -> list[Path]:
    """The root of what a container sees first."""
    files = [CGROUPS / "memory.events", CGROUPS / "memory" / "memory.oom_control"]
    with contextlib.suppress(OSError):
        for line in OWN_CGROUP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                files += [CGROUPS / part / "memory.events" for part in _down_to(path)]
            elif "memory" in controllers.split(","):
                files += [CGROUPS / "memory" / part / "memory.oom_control" for part in _down_to(path)]
    return files


def _down_to(path: str) -> list[str]:
    """`/a/b` -> `a`, `a/b`."""
    parts = [part for part in path.split("/") if part and part != ".."]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _count(file: Path) -> int | None:
    with contextlib.suppress(OSError):
        found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
        return int(found[1]) if found else None
    return None
