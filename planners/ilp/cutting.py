"""The linear program of a relaxation with cuts: those that its solution breaks are added, and it is solved again.

The loop ends when nothing is broken, when a round raises the bound by next to nothing, or when the work is spent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Guard
from memplan.planners.ilp.covers import CoverCut, separated
from memplan.planners.ilp.flights import FlightCuts
from memplan.planners.ilp.knapsacks import filled, knapsacks
from memplan.planners.ilp.linear import Rows
from memplan.planners.ilp.model import Relaxation
from memplan.planners.ilp.simplex import LinearSolution, Simplex
from memplan.planners.ilp.window_cuts import WindowCuts

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Rounds, cuts in a round, and the relative rise of the bound that a round must bring. Rounds end after so many without.
_ROUNDS, _CUTS_IN_A_ROUND, _LEAST_RISE, _PATIENCE = 20, 400, 1e-4, 1


@dataclass(frozen=True)
class CutRelaxation:
    """A linear program with cuts.

    Attributes:
      simplex: the program with its cuts, as it was last solved.
      last: its last solution.
      cuts: those that were added.
      values: `[num_columns]` of the last solution; None if there is none.
      bound: of the objective, from below, in the model's units.
      is_done: whether the work sufficed for the linear program without cuts.
      first_work, work: of the linear program without cuts; of all linear programs, see `Simplex`.
    """

    simplex: Simplex
    last: LinearSolution
    cuts: list[CoverCut]
    values: Floats | None
    bound: float
    is_done: bool
    first_work: float
    work: float

    @property
    def rows(self) -> Rows:
        """The program with its cuts."""
        return self.simplex.rows


def cut_relaxation(model: Relaxation, work: float, guard: Guard) -> CutRelaxation:
    """Returns the linear program of a model with the cuts that raise its bound.

    Args:
      model: whose precision is `whole`.
      work: see `Simplex`.
      guard: ends it early.
    """
    simplex = Simplex(model.program.finished(), work, guard)
    rows, flights = knapsacks(model), FlightCuts(model, simplex.rows)
    cuts: list[CoverCut] = []
    solution = simplex.solve()
    first_work = work - simplex.work
    values, bound, patience = solution.values, solution.bound, _PATIENCE
    for _ in range(_ROUNDS if rows else 0):
        if solution.values is None or values is None or patience == 0 or guard.reached():
            break
        added = separated(filled(rows, values), values, _CUTS_IN_A_ROUND)
        of_flights = flights.separated(values, _CUTS_IN_A_ROUND)
        if not added and not of_flights:
            break
        cuts += added
        simplex.add([row_of(cut) for cut in added])
        simplex.add([(cut.columns, cut.coefficients, cut.limit) for cut in of_flights])
        solution = simplex.solve()
        patience = _PATIENCE if solution.bound > bound * (1.0 + _LEAST_RISE) else patience - 1
        bound = max(bound, solution.bound)
        values = values if solution.values is None else solution.values
    is_done = values is not None
    return CutRelaxation(simplex, solution, cuts, values, bound, is_done, first_work, work - simplex.work)


def window_bound(model: Relaxation, found: CutRelaxation, work: float, guard: Guard) -> float:
    """Adds window cuts to a linear program as long as they raise its bound; returns the bound, in the model's units.

    Args:
      model: of the program.
      found: the program, which these cuts are added to.
      work: of the trees of all windows, see `Simplex`.
      guard: ends it early.
    """
    finder, simplex, solution, bound = WindowCuts(model, work, guard), found.simplex, found.last, found.bound
    simplex.work = work
    while solution.values is not None and solution.duals is not None:
        cuts = finder.separated(simplex.rows, solution.values, solution.duals)
        if not cuts:
            break
        simplex.add([cut.row for cut in cuts])
        solution = simplex.solve()
        bound = max(bound, solution.bound)
    return bound


def row_of(cut: CoverCut) -> tuple[Integers, Floats, float]:
    """Returns a cut as a row of the program, see `Simplex.add`."""
    used = np.flatnonzero(cut.coefficients)
    return cut.row.columns[used], cut.coefficients[used].astype(np.float64), float(cut.limit)
