"""Solves integer programs by SCIP, of OR-Tools.

The integer solvers of OR-Tools 9.15 were compared on the relaxations of saved modules of 100 to 300 operations, in 25
seconds on one core. SCIP proves most of them to 1e-5 and the others to 0.1 %. HiGHS finds no solution. CP-SAT rounds
coefficients to integers, so that its bounds are up to 0.5 % too high, and one program becomes infeasible.

The work is counted in nodes of the tree, so the same program has the same solution on every machine. A time limit is
only a guard.

SCIP does not listen to interrupts and does not always keep its time limit. An integer program that takes long is
therefore solved by another process, which can be ended at any time; a small one is solved sooner than a process starts.
"""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memplan.compiler import child_process
from memplan.compiler.effort import Guard
from memplan.planners.ilp.linear import Rows

Floats = NDArray[np.float64]

# Integer programs of at most this many columns are first tried in this process, with this many nodes.
_SMALL, _NODES_HERE = 1500, 20

# The relative tolerance of the bounds that SCIP proves: ten times its own.
_TOLERANCE = 1e-5

# The seconds, and the share of the time, in which a process starts, reads and writes, and its solver stops.
_GRACE, _SHARE_OF_GRACE = 1.0, 0.08

# Seconds between looks at whether the user interrupts.
_PULSE = 0.05


@dataclass(frozen=True)
class ProgramSolution:
    """What a solver found.

    Attributes:
      values: `[num_columns]`; None if it found none.
      bound: of the objective, from below: what SCIP proves, less its tolerances.
      is_optimal: whether the solver says that the values are optimal.
      is_late: whether a time limit may have ended the work.
    """

    values: Floats | None
    bound: float
    is_optimal: bool
    is_late: bool = False


class SolverTask:
    """A program that is being solved.

    Args:
      rows: the program.
      work: nodes of the tree.
      guard: ends it early.
      gap: relative, within which a solution counts as optimal.
      cuts: rounds of cuts that SCIP adds before it branches. With them, its bounds are better:
        10.13 ms instead of 9.60 for one program of 171 operations. Without, it is 10 to 50 times as fast, and its
        solutions are better.
    """

    def __init__(self, rows: Rows, work: int, guard: Guard, gap: float, cuts: int = 0):
        self._rows, self._solution = rows, None if len(rows.low) else ProgramSolution(np.zeros(0), rows.constant, True)
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._guard = guard
        if self._solution is None and len(rows.low) <= _SMALL:
            solution = run(rows, min(work, _NODES_HERE), guard.left(), gap, cuts)
            if solution.is_optimal or work <= _NODES_HERE or guard.reached():
                self._solution = solution
        if self._solution is not None:
            return
        left = guard.left()
        limit = max((1.0 - _SHARE_OF_GRACE) * left - _GRACE, 0.5 * left)
        self._process = child_process.start(__name__)
        question = pickle.dumps((rows, work, limit, gap, cuts))
        self._thread = threading.Thread(target=self._talk, args=(self._process, question), daemon=True)
        self._thread.start()

    def _talk(self, process: subprocess.Popen[bytes], question: bytes) -> None:
        answer, _ = process.communicate(question)
        if process.returncode == 0 and answer:
            self._solution = pickle.loads(answer)

    @property
    def is_done(self) -> bool:
        """Whether `result` returns at once."""
        return self._thread is None or not self._thread.is_alive() or self._guard.reached()

    def result(self) -> ProgramSolution:
        """Waits for the solution."""
        try:
            while not self.is_done and self._thread is not None:
                self._thread.join(_PULSE)
        finally:
            self.stop()
        if self._solution is None:
            return ProgramSolution(None, self._rows.safe_bound(np.zeros(len(self._rows.row_low))), False)
        if self._solution.is_late:
            self._guard.met = True
        return self._solution

    def stop(self) -> None:
        """Ends the solver, if it still runs."""
        if self._process is not None and self._thread is not None:
            self._process.kill()
            self._process.wait()
            self._thread.join()


def run(rows: Rows, work: int, seconds: float, gap: float, cuts: int = 0) -> ProgramSolution:
    """Solves a program in this process.

    Args:
      rows, work, gap, cuts: as for `SolverTask`.
      seconds: of wall-clock time after which it ends in any case; infinite for no limit.
    """
    from ortools.linear_solver.python import model_builder_helper as helper

    model: Any = helper.ModelBuilderHelper()
    model.add_var_array_with_bounds(rows.low, rows.high, rows.is_integer, "")
    for number in np.flatnonzero(rows.cost).tolist():
        model.set_var_objective_coefficient(number, float(rows.cost[number]))
    model.set_objective_offset(rows.constant)
    for number, (low, high) in enumerate(zip(rows.row_low.tolist(), rows.row_high.tolist(), strict=True)):
        model.add_linear_constraint()
        model.set_constraint_lower_bound(number, low)
        model.set_constraint_upper_bound(number, high)
    for entry in zip(rows.rows.tolist(), rows.columns.tolist(), rows.values.tolist(), strict=True):
        model.add_term_to_constraint(*entry)
    solver = helper.ModelSolverHelper("scip")
    if math.isfinite(seconds):
        solver.set_time_limit_in_seconds(max(seconds, 0.01))
    solver.set_solver_specific_parameters(
        f"limits/gap = {gap}\nlimits/totalnodes = {work}\nseparating/maxroundsroot = {cuts}"
    )
    guard = Guard(seconds)
    solver.solve(model)
    is_late = guard.reached()
    least = rows.safe_bound(np.zeros(len(rows.row_low)))
    if not solver.has_response() or not solver.has_solution():
        return ProgramSolution(None, least, False, is_late)
    values = np.array(solver.variable_values())
    proven = float(solver.best_objective_bound())
    bound = proven - _TOLERANCE * abs(proven) if np.isfinite(proven) else least
    is_optimal = solver.status() == helper.SolveStatus.OPTIMAL
    return ProgramSolution(values, max(bound, least), is_optimal, is_late and not is_optimal)


def main(arguments: Sequence[str]) -> None:
    """Answers the task on standard input."""
    rows, work, seconds, gap, cuts = pickle.load(sys.stdin.buffer)
    solution = run(rows, work, seconds, gap, cuts)
    sys.stdout.buffer.write(pickle.dumps(solution))
    sys.stdout.buffer.flush()
