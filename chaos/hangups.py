"""SIGHUP for the programs that are started here, whatever this one was started under."""

from __future__ import annotations

import signal


def hear_hangups() -> None:
    """Have programs that this process starts see SIGHUP as usual, though this one was started under nohup.

    A signal that is ignored is ignored by them, too. A handler is not passed on.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)
