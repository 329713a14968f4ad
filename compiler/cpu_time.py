"""How much time the processor spent, which other programs lengthen less than the time that passes."""

from __future__ import annotations

import resource
import time


def cpu_of_children() -> float:
    """Returns the CPU seconds of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and of those that it started and that have ended."""
    return time.process_time() + cpu_of_children()
