"""Lower bounds on the latency of all valid plans of a problem: what no plan beats.

There are three bounds, and the greatest counts:

- `no capacity`: every access is served by the cheapest space that its buffer may lie in, and everything fits.
- `linear program`: the relaxation of the whole program, if it is not too long. Where copies are made in its solution,
  time is cut finer, and it is solved again.
- `windows`: if that is too much work, the program is cut into windows of time, and each has a linear relaxation of its
  own (`ilp/relaxation.py`), which begins with every value in every memory and may end in any state. The bounds add up.

Cuts are added to the linear programs (`ilp/cutting.py`). The bounds come from dual solutions by weak duality, and hold
whatever the solver's tolerances (`ilp/linear.py`). Integer programs of windows raise the bound of the whole program
(`ilp/window_cuts.py`). They are solved by SCIP, whose tolerances are taken off, but which leaves no proof that could be
checked: `Bound.checked` is what holds without its word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memplan.compiler.effort import Effort, Guard
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.hardware.roofline import duration
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.ilp.cutting import cut_relaxation, window_bound
from memplan.planners.ilp.model import Precision, Span, longest
from memplan.planners.ilp.relaxation import relax
from memplan.planners.stays.chains import make_slots

# Operations of a window, and of the longest program that is solved at once.
_WINDOW, _WHOLE = 192, 1500

# The work of the linear programs (see `Simplex`) of all windows together, and of the whole program, by effort. It is in
# units that take about a second each.
_FOR_WINDOWS, _FOR_WHOLE, _UNIT = (1, 16, 200), (1, 16, 200), 1e9

# The work of window cuts, in the same units, by effort.
_FOR_WINDOW_CUTS = (0, 8, 200)

# How many times finer time is cut where copies are made, in the second linear program of the whole program, by effort.
# It is solved if there is work left for at least this many times that of the first one.
_TIMES_FINER, _TIMES_THE_WORK = (1, 4, 20), 2.0


@dataclass(frozen=True)
class Bound:
    """A latency that no plan beats.

    Attributes:
      value: seconds.
      method: which of the bounds it is.
      values: seconds, by method, of all that were computed.
      checked: seconds; the best bound whose proof was checked exactly.
    """

    value: float
    method: str
    values: dict[str, float]
    checked: float


class WindowBound(NamedTuple):
    """The least time of a window of the program.

    Attributes:
      span: the window.
      seconds: for its operations and the waits between them.
      is_done: whether the work sufficed for its linear program.
      checked: seconds, by linear programs alone.
    """

    span: Span
    seconds: float
    is_done: bool
    checked: float


def lower_bound(problem: MappingProblem, effort: Effort = Effort.NORMAL, guard: Guard | None = None) -> Bound:
    """Returns the best bound that the effort affords.

    >>> from memplan.compiler.analysis.program import RegionKind
    >>> from memplan.compiler.mapping.problem import MappingProblem, MemorySpace, Operation, Region
    >>> program = Region(RegionKind.PROGRAM, 0, 1, -1, 1.0)
    >>> operation = Operation("add", "add", 2e-6, 0.0, (0,), 0, ())
    >>> problem = MappingProblem("p", "t", (MemorySpace("hbm", 64, 1, 1e9),), (), (program,), (operation,), ())
    >>> lower_bound(problem).value
    2e-06

    Args:
      problem: whose plans are bounded.
      effort: how much work to do.
      guard: ends it early.
    """
    guard = guard or Guard()
    values = {"no capacity": TimingEmulator(problem).lower_bound()}
    checked = values["no capacity"]
    most = longest(problem)
    spans = windows(problem, _WINDOW)
    if len(problem.spaces) > 1:
        whole = WindowBound(Span(0, problem.end), 0.0, False, 0.0)
        if problem.end <= _WHOLE and not guard.reached():
            work = _UNIT * effort.of(*_FOR_WHOLE)
            of_windows = _UNIT * effort.of(*_FOR_WINDOW_CUTS)
            whole = span_bound(problem, whole.span, work, guard, effort.of(*_TIMES_FINER), of_windows)
            values["linear program"] = whole.seconds
            checked = max(checked, whole.checked)
        if len(spans) > 1 and not whole.is_done:
            pieces = window_bounds(problem, spans, _UNIT * effort.of(*_FOR_WINDOWS), guard)
            values["windows"] = sum(piece.seconds for piece in pieces)
            checked = max(checked, sum(piece.checked for piece in pieces))
    # Every column of the relaxation is limited to what it may be in a plan that is no slower than `most`.
    values = {name: min(value, most) for name, value in values.items()}
    method = max(values, key=lambda name: values[name])
    return Bound(values[method], method, values, min(checked, most))


def windows(problem: MappingProblem, operations: int) -> list[Span]:
    """Returns the program cut into windows of at least that many operations; no loop or conditional is cut."""
    slots = make_slots(problem)
    spans, first = [], 0
    for slot in range(slots.first[0], slots.last[0]):
        end = min(int(slots.end[slot]), problem.end)
        if end - first >= operations or (end == problem.end and end > first):
            spans.append(Span(first, end))
            first = end
    return spans


def window_bounds(problem: MappingProblem, spans: list[Span], work: float, guard: Guard) -> list[WindowBound]:
    """Returns the least time of each window; where the work or the time does not suffice, its no-capacity bound.

    Args:
      problem: of the windows.
      spans: the windows.
      work: of all linear programs together, see `Simplex`.
      guard: ends it early.
    """
    share = 2.0 * work / len(spans)  # Few windows need as much as that.
    return [span_bound(problem, span, share, guard) for span in spans]


def span_bound(
    problem: MappingProblem,
    span: Span,
    work: float,
    guard: Guard,
    times_finer: int = 1,
    window_work: float = 0.0,
) -> WindowBound:
    """Returns the least time of a span's operations and of the waits between them.

    Args:
      problem, span: what is bounded.
      work: of the linear programs, see `Simplex`.
      guard: ends it early.
      times_finer: how many times finer time is cut where copies are made, in a second linear program if it is over 1.
      window_work: of the trees of window cuts, which raise the bound of the last linear program.
    """
    least = no_capacity(problem, span)
    if guard.reached():
        return WindowBound(span, least, False, least)
    model = relax(problem, span, Precision(whole=True))
    solution = cut_relaxation(model, work, guard)
    least = max(least, solution.bound * model.unit)
    left, is_done = work - solution.work, solution.is_done
    if times_finer > 1 and solution.values is not None and left >= _TIMES_THE_WORK * solution.work:
        fine = Precision(whole=True, fine_ratio=1.0 / times_finer, fine=model.made_copies(solution.values))
        finer_model = relax(problem, span, fine)
        finer = cut_relaxation(finer_model, left, guard)
        least = max(least, finer.bound * finer_model.unit)
        if finer.bound * finer_model.unit >= solution.bound * model.unit:
            model, solution = finer_model, finer
    checked = least
    if window_work > 0.0:
        least = max(least, window_bound(model, solution, window_work, guard) * model.unit)
    return WindowBound(span, least, is_done, checked)


def no_capacity(problem: MappingProblem, span: Span) -> float:
    """Returns the seconds of a span's operations with each access served by the cheapest space allowed."""
    seconds = np.zeros(span.last - span.first)
    for t in range(span.first, span.last):
        operation = problem.operations[t]
        cheapest = sum(
            min(access.cost[space] for space in problem.buffers[access.buffer].spaces) for access in operation.accesses
        )
        repetitions = problem.repetitions[operation.region]
        seconds[t - span.first] = repetitions * duration(operation.floor, operation.overhead + cheapest)
    return float(seconds.sum())
