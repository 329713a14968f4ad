"""Signals that end a command: Ctrl-C, SIGTERM and SIGHUP interrupt it in the same way, and differ in the exit status.

A command that searches ends its search and goes on with the best that it has; any other command ends at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from memplan.cli.console import note
from memplan.cli.exit_status import ExitStatus

_STATUSES = {
    signal.SIGINT: ExitStatus.INTERRUPTED,
    signal.SIGTERM: ExitStatus.TERMINATED,
    signal.SIGHUP: ExitStatus.HUNG_UP,
}

# What Python does by itself; another handler, or that a signal is ignored, was somebody's decision.
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)

_received: list[int] = []
_terminals: list[int] = []


@contextmanager
def interrupts() -> Iterator[None]:
    """Makes the signals raise KeyboardInterrupt within the block."""
    _received.clear()
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread can handle signals.
        return
    _terminals[:] = [number for number in (0, 1, 2) if os.isatty(number)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        forget_closed_terminals()
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _STATUSES}
    for number, handler in before.items():
        if handler in _DEFAULTS:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None is the handler of a library, which `getsignal` cannot return.
                signal.signal(number, handler)


def interrupted() -> bool:
    """Returns whether a signal came since the command began."""
    return bool(_received)


def status_of_signal() -> ExitStatus:
    """Returns the exit status of a command that a signal ended."""
    return _STATUSES.get(signal.Signals(_received[0]), ExitStatus.INTERRUPTED) if _received else ExitStatus.INTERRUPTED


def end_interrupted() -> ExitStatus:
    """Says that the command was interrupted, which nothing interrupts, and returns the exit status."""
    for number in _STATUSES:
        with suppress(ValueError):  # not in the main thread
            signal.signal(number, signal.SIG_IGN)
    note("interrupted")
    return status_of_signal()


def forget_closed_terminals() -> None:
    """Leads what is still written to a terminal that was closed to nowhere: it would be an error otherwise."""
    closed = [number for number in _terminals if not os.isatty(number)]
    if closed:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in closed:
            os.dup2(nowhere, number)
        os.close(nowhere)
