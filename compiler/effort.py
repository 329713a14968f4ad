"""Effort, in which work is counted, and the guard that a limit in seconds is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TypeVar

from memplan.compiler.errors import PlannerError

T = TypeVar("T")

# What is kept back of a time limit for a last step, in the seconds that such a step took before: the machine may be
# busier then, and the last plan may have more parts.
_FINISHING = 2.0


class Effort(Enum):
    """How much work a planner does. The work is counted, so its result does not depend on the speed of the machine.

    Each planner counts in units of its own, such as rounds, nodes or a solver's iterations. How many there are depends
    on the effort and on the size of the problem, and never on a clock or on the number of cores.

    Attributes:
      FAST: about three seconds at most, for a program of some thousand operations.
      NORMAL: about a minute on two idle cores.
      HIGH: about ten minutes on two idle cores.
    """

    FAST = "fast"
    NORMAL = "normal"
    HIGH = "high"

    def of(self, fast: T, normal: T, high: T) -> T:
        """Returns what belongs to this effort, such as an amount.

        >>> Effort.NORMAL.of(fast=1, normal=10, high=100)
        10
        """
        return {Effort.FAST: fast, Effort.NORMAL: normal, Effort.HIGH: high}[self]


class Guard:
    """A limit in seconds that ends work early. What work it ends depends on the speed of the machine.

    The clock runs from when the guard is made. Loops ask `reached`, and stop if it is so.

    >>> Guard().reached(), Guard(0.0).reached()
    (False, True)

    Args:
      seconds: of wall-clock time; None for no limit.

    Attributes:
      met: whether some work has stopped because of it.
    """

    def __init__(self, seconds: float | None = None):
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._kept = 0.0
        self.met = False

    def reached(self) -> bool:
        """Returns whether the time is over. The caller must stop then: the guard counts as met."""
        if self.left() <= 0.0:
            self.met = True
        return self.met

    def left(self) -> float:
        """Returns the seconds that are left, infinite without a limit. Those that are kept back do not count."""
        return self._deadline - self._kept - time.monotonic()

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self._deadline < math.inf

    def extend(self, seconds: float) -> None:
        """Moves the limit: it does not count these seconds."""
        self._deadline += seconds

    @contextmanager
    def keeping(self, seconds: float) -> Iterator[None]:
        """Keeps seconds back within the block, for what follows it and asks no guard.

        >>> guard = Guard(5.0)
        >>> with guard.keeping(9.0):
        ...     guard.left() < 0.0
        True
        >>> guard.left() > 0.0
        True
        """
        self._kept += seconds
        try:
            yield
        finally:
            self._kept -= seconds

    @contextmanager
    def keeping_for(self, finish: Callable[[], object]) -> Iterator[float]:
        """Keeps seconds back within the block for a step that follows it and asks no guard.

        How long the step takes is measured: it is done now as well, with what there is so far. It is not done without a
        limit, nor if no time is left.

        Args:
          finish: does the step; what it returns is of no use.

        Yields:
          The seconds that the step took; 0 if it was not done.
        """
        seconds = 0.0
        if self.is_limited and self.left() > 0.0:
            started = time.monotonic()
            finish()
            seconds = time.monotonic() - started
        with self.keeping(_FINISHING * seconds):
            yield seconds


def effort_of(name: str | Effort) -> Effort:
    """Returns the effort of a name; raises PlannerError if there is none."""
    try:
        return Effort(name)
    except ValueError:
        raise PlannerError(f"no effort is called {name!r}; there are: {', '.join(e.value for e in Effort)}") from None


def check_time_limit(seconds: float | None) -> None:
    """Raises PlannerError if a time limit is not a positive number of seconds, or None."""
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise PlannerError(f"a time limit must be a positive number of seconds, not {seconds}")
