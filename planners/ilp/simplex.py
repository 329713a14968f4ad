"""Linear programs that grow by rows, solved by the dual simplex method of HiGHS.

After rows are added, the method goes on from the last basis. Its work is counted, so the result does not depend on the
speed of the machine: iterations times the entries of the program. A work of 1e9 takes a second at most.

Bounds come from the dual values by weak duality, so they do not depend on the solver's tolerances (`linear.py`). GLOP,
which OR-Tools has, reaches the same bounds, but takes three to four times as long: 10.0 CPU seconds instead of 3.3 for
the bound of `hyena.tpu-v5e`, and 62 instead of 17 for that of `alexnet_train.tpu-v6e`. OR-Tools 9.15 has HiGHS too, but
begins again after rows are added.

Source: Huangfu and Hall, "Parallelizing the dual revised simplex method", 2018.
"""

from __future__ import annotations

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

# Options of HiGHS. One thread and one seed make its result the same each time.
_OPTIONS: dict[str, Any] = {
    "output_flag": False,
    "solver": "simplex",
    "threads": 1,
    "parallel": "off",
    "random_seed": 0,
}

# The most iterations that HiGHS can be told.
_MOST_ITERATIONS = 2**31 - 1


@dataclass(frozen=True)
class LinearSolution:
    """What the simplex method found.

    Attributes:
      values: `[num_columns]`; None if they are not optimal.
      bound: of the objective, from below.
      duals: `[num_rows]` of the rows; None without values.
    """

    values: Floats | None
    bound: float
    duals: Floats | None = None


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
        # The class `highspy.Highs` prints a banner to standard output when it is made.
        from highspy import HighsLp, MatrixFormat
        from highspy._core import _Highs

        self.rows, self.work, self._guard = rows, work, guard
        self._solver: Any = _Highs()
        for name, value in _OPTIONS.items():
            self._solver.setOptionValue(name, value)
        program: Any = HighsLp()
        program.num_col_, program.num_row_ = len(rows.low), len(rows.row_low)
        program.col_cost_, program.col_lower_, program.col_upper_ = rows.cost, rows.low, rows.high
        program.row_lower_, program.row_upper_ = rows.row_low, rows.row_high
        matrix = program.a_matrix_
        matrix.format_ = MatrixFormat.kRowwise
        matrix.start_ = np.searchsorted(rows.rows, np.arange(len(rows.row_low) + 1)).astype(np.int32)
        matrix.index_, matrix.value_ = rows.columns.astype(np.int32), rows.values
        self._solver.passModel(program)

    def add(self, rows: Sequence[tuple[Integers, Floats, float]]) -> None:
        """Adds rows `values @ x[columns] <= limit`, each given as `(columns, values, limit)`; columns are ascending."""
        if not rows:
            return
        self.rows = self.rows.with_rows(rows)
        starts = np.cumsum([0, *(len(columns) for columns, _, _ in rows)]).astype(np.int32)
        self._solver.addRows(
            len(rows),
            np.full(len(rows), -np.inf),
            np.array([limit for _, _, limit in rows], np.float64),
            int(starts[-1]),
            starts[:-1],
            np.concatenate([columns for columns, _, _ in rows]).astype(np.int32),
            np.concatenate([values for _, values, _ in rows]),
        )

    def solve(self) -> LinearSolution:
        """Returns the solution of the program as it is now, as far as the work suffices."""
        entries, least = max(1, len(self.rows.values)), self.rows.safe_bound(np.zeros(len(self.rows.row_low)))
        iterations, left = int(self.work / entries), self._guard.left()
        if not len(self.rows.low):
            return LinearSolution(np.zeros(0), least)
        if iterations <= 0 or self._guard.reached():
            return LinearSolution(None, least)
        solver = self._solver
        solver.setOptionValue("simplex_iteration_limit", min(iterations, _MOST_ITERATIONS))
        if math.isfinite(left):
            # Its clock goes on from one solution to the next.
            solver.setOptionValue("time_limit", solver.getRunTime() + left)
        thread = threading.Thread(target=solver.run, daemon=True)
        thread.start()
        # Waiting in short pulses lets the user interrupt.
        while thread.is_alive() and self._guard.left() > -_GRACE:
            thread.join(_PULSE)
        if thread.is_alive():
            self.work = 0.0
            self._guard.met = self._guard.reached()
            return LinearSolution(None, least)
        return self._read(entries, least)

    def _read(self, entries: int, least: float) -> LinearSolution:
        """Returns what the solver found, and takes its work off what is left."""
        from highspy import HighsModelStatus

        self.work -= entries * max(0, self._solver.getInfo().simplex_iteration_count)
        solution = self._solver.getSolution()
        if solution.dual_valid:
            least = max(least, self.rows.safe_bound(np.array(solution.row_dual)))
        if self._solver.getModelStatus() != HighsModelStatus.kOptimal:
            self._guard.reached()
            return LinearSolution(None, least)
        return LinearSolution(np.array(solution.col_value), least, np.array(solution.row_dual))
