"""Which call into an environment a process is in: a note that outlives the process, for whoever finds it dead or hung.

Python says nothing of an environment that segfaults, ends the process, or never comes back.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_LAYOUT = struct.Struct("<16sqq")
"""Name of the call (zeros between two calls), seed of the game (-1 before the first), step."""


class CrashNote:
    """Keeps the note in `path`, a new file. Written through memory: a step costs a microsecond more."""

    def __init__(self, path: Path, environment: str) -> None:
        with path.open("x+b") as file:
            file.write(bytes(_LAYOUT.size) + environment.encode())  # written, so that a full disk is found here
            file.flush()
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)

    def enter(self, call: str, seed: int | None, step: int) -> None:
        """A call begins."""
        _LAYOUT.pack_into(self._map, 0, call.encode(), -1 if seed is None else seed, step)

    def leave(self) -> None:
        """It has come back, or raised something that is dealt with."""
        self._map[0] = 0


def read_crash_note(path: Path) -> str | None:
    """Which call the process that kept this note is in, or was when it died; None if in none, or there is no note."""
    try:
        content = path.read_bytes()
        call, seed, step = _LAYOUT.unpack(content[: _LAYOUT.size])
    except (OSError, struct.error):
        return None
    if not call[0]:
        return None
    game = f"seed {seed}, step {step}" if seed >= 0 else "before its first game"
    name = content[_LAYOUT.size :].decode()
    return f"environment {name} ({game}): {call.rstrip(bytes(1)).decode()} has not returned"
