"""The signals that ask the program to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Ctrl-C, `kill`, what Slurm sends ahead of a time limit (`--signal=B:USR1@120`), and a terminal that was closed."""


Handler = Callable[..., None]


def handle_signals(handler: Handler) -> None:
    """Give every signal that asks to stop to `handler`; SIGHUP not where it is ignored, as under `nohup`."""
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def leave(*_: object) -> None:
    """Handles a signal: leave at once."""
    raise KeyboardInterrupt


class Leave:
    """A handler as `leave`, for a time in which libraries may swallow what it raises: it remembers the signal."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self, *_: object) -> None:
        self._asked = True
        leave()

    def check(self) -> None:
        """Leave now if there was a signal."""
        if self._asked:
            leave()


@contextlib.contextmanager
def interrupts_only() -> Iterator[Callable[[Handler], None]]:
    """In place of `handle_signals` in a program that is not ours: Ctrl-C, and a notebook's stop button, in this block.

    Afterwards who handled it before does so again. In other threads than the main one Python lets nobody listen.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield lambda _: None
        return
    try:
        yield lambda handler: _listen(signal.SIGINT, handler)
    finally:
        signal.signal(signal.SIGINT, before)


def _listen(number: signal.Signals, handler: Handler) -> None:
    signal.signal(number, handler)


@contextlib.contextmanager
def not_for_children(*signals: signal.Signals) -> Iterator[None]:
    """Processes that are started in this context never see these signals, which a terminal sends to all at once.

    This process, which ends them in good order, gets them at the end of the context.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
