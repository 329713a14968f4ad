"""Linear programs that grow by rows, solved by the simplex method of OR-Tools' GLOP.

After rows are added, the method goes on from the last basis. Its work is counted, so the result does not depend on the
speed of the machine: iterations times the entries of the program. The work of about a second is 2.5e9.

Bounds come from the dual values by weak duality, so they do not depend on the solver's tolerances (`linear.py`). HiGHS
1.16 has the same bounds in two thirds of the time, but it would be one more package to install.
"""

from __future__ import annotations

import datetime
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Guard
from memplan.planners.ilp.linear import Rows

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Seconds between looks at whether the user interrupts, and those in which the solver stops when its time is over.
_PULSE, _GRACE = 0.05, 0.5


@dataclass(frozen=True)
class LinearSolution:
    """What the simplex method found.

    Attributes:
      values: `[num_columns]`; None if they are not optimal.
      bound: of the objective, from below.
    """

    values: Floats | None
    bound: float


class Simplex:
    """A linear program that is solved again after rows are added.

    Args:
      rows: the program; that columns are integer is ignored.
      work: iterations times entries, for all solutions together.
      guard: ends it early.

    Attributes:
      rows: the program with all rows that were added.
      work: what is left.
    """

    def __init__(self, rows: Rows, work: float, guard: Guard):
        from ortools.glop import parameters_pb2
        from ortools.math_opt.python import mathopt

        self.rows, self.work, self._guard = rows, work, guard
        self._mathopt: Any = mathopt
        # Whether a solution is precise does not matter: its bound is computed from its dual values.
        self._parameters: Any = parameters_pb2.GlopParameters(change_status_to_imprecise=False)
        self._model: Any = mathopt.Model()
        boxes = zip(rows.low.tolist(), rows.high.tolist(), strict=True)
        self._columns = [self._model.add_variable(lb=low, ub=high) for low, high in boxes]
        for number in np.flatnonzero(rows.cost).tolist():
            self._model.objective.set_linear_coefficient(self._columns[number], float(rows.cost[number]))
        sides = zip(rows.row_low.tolist(), rows.row_high.tolist(), strict=True)
        self._rows = [self._model.add_linear_constraint(lb=low, ub=high) for low, high in sides]
        for row, number, value in zip(rows.rows.tolist(), rows.columns.tolist(), rows.values.tolist(), strict=True):
            self._rows[row].set_coefficient(self._columns[number], value)
        self._solver: Any = mathopt.IncrementalSolver(self._model, mathopt.SolverType.GLOP)

    def add(self, rows: Sequence[tuple[Integers, Floats, float]]) -> None:
        """Adds rows `values @ x[columns] <= limit`, each given as `(columns, values, limit)`; columns are ascending."""
        self.rows = self.rows.with_rows(rows)
        for columns, values, limit in rows:
            row = self._model.add_linear_constraint(ub=limit)
            for number, value in zip(columns.tolist(), values.tolist(), strict=True):
                row.set_coefficient(self._columns[number], value)
            self._rows.append(row)

    def solve(self) -> LinearSolution:
        """Returns the solution of the program as it is now, as far as the work suffices."""
        entries, least = max(1, len(self.rows.values)), self.rows.safe_bound(np.zeros(len(self.rows.row_low)))
        iterations, left = int(self.work / entries), self._guard.left()
        if not self._columns:
            return LinearSolution(np.zeros(0), least)
        if iterations <= 0 or self._guard.reached():
            return LinearSolution(None, least)
        limits = self._mathopt.SolveParameters(
            glop=self._parameters,
            threads=1,
            iteration_limit=min(iterations, 2**31 - 1),
            time_limit=datetime.timedelta(seconds=left) if math.isfinite(left) else None,
        )
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(self._solver.solve(params=limits)), daemon=True)
        thread.start()
        # Waiting in short pulses lets the user interrupt.
        while thread.is_alive() and self._guard.left() > -_GRACE:
            thread.join(_PULSE)
        if not results:
            self.work = 0.0
            self._guard.met = self._guard.reached()
            return LinearSolution(None, least)
        return self._read(results[0], entries, least)

    def _read(self, result: Any, entries: int, least: float) -> LinearSolution:
        """Returns what the solver says, and takes its work off what is left."""
        self.work -= entries * result.solve_stats.simplex_iterations
        solution = result.solutions[0] if result.solutions else None
        if solution is not None and solution.dual_solution is not None:
            values = solution.dual_solution.dual_values
            least = max(least, self.rows.safe_bound(np.array([values[row] for row in self._rows])))
        if result.termination.reason != self._mathopt.TerminationReason.OPTIMAL:
            self._guard.reached()
            return LinearSolution(None, least)
        return LinearSolution(np.array(result.variable_values(self._columns)), least)
