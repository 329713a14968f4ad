"""Interrupts that are heard between iterations, since one that stops an iteration leaves a trainer half changed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Within the block, the first interrupt is only noted; the second one acts at once, as it does elsewhere.

    Signals that no Python function handles are left alone, and so are all where this is not the main thread.

    Args:
      on_first: called when the first interrupt is noted.

    Attributes:
      is_asked: whether there was one.
    """

    def __init__(self, on_first: Callable[[], None] = lambda: None):
        self.is_asked = False
        self._on_first = on_first
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if not callable(handler):
                continue
            try:
                signal.signal(number, self._hear)
            except ValueError:  # this is not the main thread
                break
            self._before[number] = handler
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            self._before[signal.Signals(number)](number, frame)
            return
        self.is_asked = True
        self._on_first()
