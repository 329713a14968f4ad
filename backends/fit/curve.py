"""The cost of a program under falling limits: what memory it can save, and what that takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from memplan.backends.fit.compilers import StatedMemory
from memplan.backends.fit.fit import FitPlanner, check_budget, session_of
from memplan.backends.fit.result import CannotFitError, FitAttempt
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import Target

_MOST_POINTS = 100


@dataclass(frozen=True)
class FitPoint:
    """The cheapest program that was found within a limit.

    Attributes:
      limit: that was asked for, bytes.
      stated: bytes that the compiler states for the program.
      predicted: bytes that it was expected to need; None for the program as given.
      added_seconds: what the model says it takes beyond the program as given.
    """

    limit: int
    stated: int
    predicted: int | None
    added_seconds: float


@dataclass(frozen=True)
class FitCurve:
    """Limits and what it costs to stay within them.

    Attributes:
      target: what the program was compiled for.
      interface: bytes of arguments and results.
      default: what the compiler states for the program as given; None if it was refused for lack of memory.
      seconds: what the model says the program as given takes.
      points: one for each limit that was met, the highest limit first.
      cannot: why the next limit was not met; None if all were.
      attempts: all compiles.
    """

    target: str
    interface: int
    default: StatedMemory | None
    seconds: float
    points: tuple[FitPoint, ...]
    cannot: CannotFitError | None
    attempts: tuple[FitAttempt, ...]


def fit_curve(
    function: Callable[..., Any],
    *args: Any,
    points: int = 4,
    target: str | Target | None = None,
    compile_budget: int = 8,
    donate_argnums: int | Sequence[int] = (),
    static_argnums: int | Sequence[int] = (),
    effort: str | Effort = Effort.NORMAL,
    planner: FitPlanner | None = None,
) -> FitCurve:
    """Returns what a program costs under falling limits, each of them met by the word of the compiler.

    The limits divide the temporaries of the program as given into equal parts: 80, 60, 40 and 20 % of them for four
    points. The first limit that is not met is the last that is tried.

    Args:
      function, *args, target, donate_argnums, static_argnums, effort, planner: see `fit`.
      points: number of limits.
      compile_budget: how often the compiler may be asked for each limit, the program as given included.

    Raises:
      MemplanError: as `fit`, or the number of points is not from 1 to 100.
    """
    check_budget(compile_budget)
    if isinstance(points, bool) or not isinstance(points, int) or not 1 <= points <= _MOST_POINTS:
        raise MemplanError(f"the number of points must be an integer from 1 to {_MOST_POINTS}, not {points!r}")
    with session_of(function, args, target, donate_argnums, static_argnums, effort, planner) as session:
        default = session.default
        if default.memory is not None:
            needed = default.memory.total
            interface = default.memory.interface
        else:
            interface, by_model = session.as_written
            needed = default.total or by_model
        attempts = [FitAttempt("as given", None, default.total, 0.0, default.refused)]
        limits = [interface + (needed - interface) * k // (points + 1) for k in range(points, 0, -1)]
        cannot: CannotFitError | None = None
        for limit in limits if needed > interface else ():
            try:
                attempts += session.fit(limit, compile_budget).attempts[1:]
            except CannotFitError as error:
                attempts += error.attempts[1:]
                cannot = error
                break
        best = tuple(point for limit in limits if (point := _cheapest(limit, attempts)) is not None)
        return FitCurve(session.target, interface, default.memory, session.seconds, best, cannot, tuple(attempts))


def _cheapest(limit: int, attempts: Sequence[FitAttempt]) -> FitPoint | None:
    """Returns the cheapest program within a limit; one that was compiled for a lower limit may be it."""
    within = [a for a in attempts if not a.refused and a.stated is not None and a.stated <= limit]
    if not within:
        return None
    best = min(within, key=lambda attempt: (attempt.added_seconds, attempt.stated))
    assert best.stated is not None
    return FitPoint(limit, best.stated, best.predicted, best.added_seconds)
