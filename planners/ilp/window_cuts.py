"""Window cuts: what the integer program of a window of time adds to the bound of a linear program.

A linear program is fractional at many times that have little to do with each other. A tree of the whole program would
have to split all of them at once, while the program of a window is small enough to be solved. The rows that lie within
the window stay, and the others are priced by their dual values y (a Lagrangian relaxation: Geoffrion, "Lagrangean
relaxation for integer programming", 1974):

    d = c - y A_others         of the columns that are about the window
    d x  >=  least d x of the integer solutions of the rows within the window

As every solution of the whole program keeps the rows within the window, it keeps this cut, whatever the prices. The
linear program is solved again with the cuts of all windows, and has other prices then. Its bound is at least that of
before plus what the windows that do not overlap have gained. Dantzig-Wolfe decomposition over windows has the same
bound in the end (Caprara, Furini, Malaguti and Traversi, "Solving the temporal knapsack problem via recursive
Dantzig-Wolfe reformulation", 2016), and windows that overlap a higher one.

SCIP solves the windows, and its tolerance is taken off. A tree over linear programs of HiGHS, whose leaves have exact
bounds, was tried in its place: it raises the bound of `transformer_train.tpu-v5e` from 19.972 to 19.976 ms in 16 CPU
seconds, and SCIP to 19.998 ms in 11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Guard
from memplan.planners.ilp.integer_solver import run
from memplan.planners.ilp.linear import Rows
from memplan.planners.ilp.model import Relaxation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Operations of a window at first, and at most; windows overlap by half. On `decode_kv.tpu-v5e`, windows of 96, 192 and
# all operations took 31 CPU seconds and gained nothing.
_LENGTH, _MOST = 24, 48

# Nodes of the tree of a window, and the relative gap that ends it. SCIP adds no cuts. With five rounds of them, windows
# of `alexnet_train.tpu-7x` take 16 CPU seconds instead of 10, for a bound of 1.7968 ms instead of 1.7967.
_NODES, _GAP = 30, 1e-5

# The work of a window for each entry of its rows: of the first node, and of each of the others where there is a cut.
_FIRST_NODE, _OTHER_NODE = 10_000, 3000

# By how much a solution must break a cut, in units, and how far from an integer a column must be.
_LEAST_BREACH, _FRACTION = 1e-3, 1e-6

# Smaller coefficients are left out of a cut.
_LEAST_COEFFICIENT = 1e-7

# The tolerance of SCIP, relative to the numbers that are added up.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class WindowCut:
    """The cut `coefficients @ x[columns] >= least`.

    Attributes:
      window: half-open times of the window.
      columns, coefficients, least: the row; columns are ascending.
      breach: by how much the solution that it was made for breaks it.
    """

    window: tuple[int, int]
    columns: Integers
    coefficients: Floats
    least: float
    breach: float

    @property
    def row(self) -> tuple[Integers, Floats, float]:
        """The cut as a row of the program, see `Simplex.add`."""
        return self.columns, -self.coefficients, -self.least


class WindowCuts:
    """Finds the window cuts of a model that solutions break.

    Args:
      model: what is cut.
      work: of all trees together, see `Simplex`.
      guard: ends it early.

    Attributes:
      work: what is left.
    """

    def __init__(self, model: Relaxation, work: float, guard: Guard):
        self.work, self._guard = work, guard
        self._spans = np.array(model.program.spans, np.int64).reshape(-1, 2)
        self._span = model.span
        self._cut_windows(_LENGTH)

    def _cut_windows(self, length: int) -> None:
        """Cuts the span into windows of a length."""
        first, last = self._span.first, self._span.last
        starts = range(first, max(first + 1, last - length // 2), length // 2)
        self._length = length
        self._windows = [(start, min(start + length, last)) for start in starts]
        self._wanted = set(range(len(self._windows)))

    def separated(self, rows: Rows, values: Floats, duals: Floats) -> list[WindowCut]:
        """Returns the cuts that a solution breaks; none at the end.

        A window without one is tried again when there is one of a window that overlaps it. When no window has one,
        windows of twice the length follow.

        Args:
          rows: the program, with the cuts so far.
          values: `[num_columns]` of the solution.
          duals: `[num_rows]` of the solution.
        """
        cuts: list[WindowCut] = []
        while not cuts and self.work > 0.0 and not self._guard.reached():
            if not self._wanted:
                if self._length >= min(_MOST, self._span.last - self._span.first):
                    break
                self._cut_windows(2 * self._length)
            cuts = self._cuts_of_windows(rows, values, duals)
        return cuts

    def _cuts_of_windows(self, rows: Rows, values: Floats, duals: Floats) -> list[WindowCut]:
        """Returns the cuts of the wanted windows, see `separated`; says which windows are wanted next."""
        cuts: list[WindowCut] = []
        gained: set[int] = set()
        for number in sorted(self._wanted):
            if self.work <= 0.0 or self._guard.reached():
                break
            cut = self._cut(self._windows[number], rows, values, duals)
            if cut is not None:
                cuts.append(cut)
                gained.add(number)
        self._wanted = {near for number in gained for near in (number - 1, number, number + 1)}
        self._wanted &= set(range(len(self._windows)))
        return cuts

    def _cut(self, window: tuple[int, int], rows: Rows, values: Floats, duals: Floats) -> WindowCut | None:
        """Returns the cut of a window, if the solution breaks it; takes the work off what is left."""
        first, end = 2 * window[0], 2 * window[1]
        is_inside = (self._spans[:, 0] < end) & (self._spans[:, 1] > first)
        parts = values[is_inside & rows.is_integer]
        if not np.any(np.abs(parts - np.rint(parts)) > _FRACTION):
            return None
        columns, part = priced(rows, duals, is_inside)
        solution = run(part, _NODES, self._guard.left(), _GAP)
        cut = _made(window, columns, part, solution.bound, values)
        self.work -= len(part.values) * (_FIRST_NODE + (0 if cut is None else _NODES * _OTHER_NODE))
        return cut


def _made(window: tuple[int, int], columns: Integers, part: Rows, bound: float, values: Floats) -> WindowCut | None:
    """Returns the cut of a window whose program has a bound, if a solution breaks it."""
    is_used = np.abs(part.cost) > _LEAST_COEFFICIENT
    # What is left out may take the place of the rest.
    sides = np.maximum(part.cost * part.low, part.cost * part.high)
    terms = part.cost * values[columns]
    # The sum may be much less than the numbers that are added, and so is what its own tolerance takes off.
    least = bound - float(sides[~is_used].sum()) - _TOLERANCE * float(np.abs(terms).sum())
    breach = least - float(terms[is_used].sum())
    if breach < _LEAST_BREACH:
        return None
    return WindowCut(window, columns[is_used], part.cost[is_used], least, breach)


def priced(rows: Rows, duals: Floats, is_inside: NDArray[np.bool_]) -> tuple[Integers, Rows]:
    """Returns the columns inside a window, and their program: the rows of no other columns, and prices of the others.

    Args:
      rows: the program.
      duals: `[num_rows]` prices of its rows.
      is_inside: `[num_columns]` whether a column is inside the window.
    """
    outside = np.bincount(rows.rows, ~is_inside[rows.columns], minlength=len(rows.row_low))
    is_kept = outside == 0
    of_kept = is_kept[rows.rows]
    prices = np.bincount(
        rows.columns[~of_kept],
        rows.values[~of_kept] * duals[rows.rows[~of_kept]],
        minlength=len(rows.cost),
    )
    columns = np.flatnonzero(is_inside)
    column_numbers, row_numbers = np.cumsum(is_inside) - 1, np.cumsum(is_kept) - 1
    part = Rows(
        low=rows.low[columns],
        high=rows.high[columns],
        cost=(rows.cost - prices)[columns],
        is_integer=rows.is_integer[columns],
        row_low=rows.row_low[is_kept],
        row_high=rows.row_high[is_kept],
        rows=row_numbers[rows.rows[of_kept]],
        columns=column_numbers[rows.columns[of_kept]],
        values=rows.values[of_kept],
        constant=0.0,
    )
    return columns, part
