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
