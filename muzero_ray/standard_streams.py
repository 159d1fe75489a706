"""Standard output and error. The result of a command must reach its reader; the display of a run may be lost."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import queue
import select
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

from muzero_ray.errors import MuZeroRayError

QUEUED_WRITES = 1000
"""What may wait for a reader that does not read: four minutes of the live panel, or hours of plain lines."""

CLOSE_SECONDS = 5.0
"""How long the end of a run waits for such a reader."""


def open_standard_streams() -> None:
    """Put /dev/null in the place of streams that are closed, and let the others escape what their encoding lacks.

    The number of a closed stream would go to the next file that is opened, such as metrics.jsonl, and whatever a
    library prints would be written into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115 (it stays open)
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_result(text: str) -> None:
    """Print what a command was asked for; see `printing_result`."""
    with printing_result():
        print(text)


@contextlib.contextmanager
def printing_result() -> Iterator[None]:
    """What is printed in this context reaches its reader.

    A reader that has left (`presets | head`) ends the program quietly. Raises MuZeroRayError for any other failure.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
        raise SystemExit(0) from None
    except OSError as error:
        discard(sys.stdout)
        raise MuZeroRayError(
            f"standard output: the result was not written ({error.strerror or error}). Free space there, or send it "
            "elsewhere"
        ) from error


def print_error(text: str) -> None:
    """Print a message to standard error, where there is somebody to read it."""
    _print_if_read(text, sys.stderr)


def print_message(text: str) -> None:
    """Print a message to standard output, where there is somebody to read it."""
    _print_if_read(text, sys.stdout)


def _print_if_read(text: str, stream: TextIO) -> None:
    try:
        print(printable_lines(text), file=stream, flush=True)
    except OSError:
        discard(stream)


def printable(text: str) -> str:
    """`text` without anything that a terminal would obey: control characters are written as escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def printable_lines(text: str) -> str:
    """As `printable`, for a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def flush_standard_streams() -> None:
    """Write what is buffered, or drop it: Python would complain at exit, and end with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            discard(stream)


def discard(stream: TextIO) -> None:
    """Send what `stream` holds, and all that is written to it from now on, to /dev/null."""
    with contextlib.suppress(OSError):  # a stream in memory has no descriptor
        _to_null(stream.fileno())


def _to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


class Display:
    """A text stream in front of `stream` that never fails and never waits: what cannot be written is lost.

    A thread writes, so that a stopped terminal or a reader that does not read stops only that thread; beyond
    `QUEUED_WRITES` the oldest is dropped. A reader that has left, or a terminal that is gone, is replaced by /dev/null
    for the whole process. `close` waits for what is queued, for `CLOSE_SECONDS` at most; writing again is allowed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding or "utf-8"
        self._descriptor: int | None = None
        if isinstance(stream, io.TextIOWrapper):  # others, in memory or a notebook's, are written to at once
            with contextlib.suppress(OSError):
                stream.flush()
                self._descriptor = stream.fileno()
        # Safe in signal handlers: they print too.
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        if self._descriptor is None:
            return self._stream.write(text)
        if self._queue.qsize() >= QUEUED_WRITES:
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()
        self._queue.put(text.encode(self.encoding, "backslashreplace"))
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._serve, args=[self._descriptor], name="display", daemon=True)
            self._thread.start()
        return len(text)

    def flush(self) -> None:
        """Nothing: the thread writes without a buffer."""

    def close(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(CLOSE_SECONDS)

    def _serve(self, descriptor: int) -> None:
        while (data := self._queue.get()) is not None:
            try:
                _write_all(descriptor, data)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # a full disk may have room again
                    _to_null(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    # Not through Python's stream: it is flushed at exit, and would then wait for a write that is still going on.
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another program made the terminal or pipe non-blocking
            select.select([], [descriptor], [])
