"""Log messages that appear once."""

from __future__ import annotations

import logging

log = logging.getLogger("memplan")
_said: set[str] = set()


def say_once(level: int, message: str) -> None:
    """Logs a message that this process has not logged yet."""
    if message not in _said:
        _said.add(message)
        log.log(level, message)


def one_line_of(error: BaseException) -> str:
    """Returns what an error says, in one line; its kind if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
