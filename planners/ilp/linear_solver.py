"""Solves linear and integer programs by OR-Tools: GLOP and SCIP.

The integer solvers of OR-Tools 9.15 were compared on the relaxations of saved modules of 100 to 300 operations, in 25
seconds on one core. SCIP proves most of them to 1e-5 and the others to 0.1 %. HiGHS finds no solution. CP-SAT rounds
coefficients to integers, so that its bounds are up to 0.5 % too high, and one program becomes infeasible.

SCIP does not listen to interrupts and does not always keep its time limit. An integer program that takes long is
therefore solved by another process, which can be ended at any time; a small one is solved sooner than a process starts.
GLOP keeps its time limit and works in a thread, so that the user can interrupt.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memplan.compiler import child_process
from memplan.planners.ilp.linear import Rows

Floats = NDArray[np.float64]

# Integer programs of at most this many columns are first tried in this process, for this many seconds.
_SMALL, _SECONDS_HERE = 1500, 0.3

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
      bound: of the objective, from below: of a linear program the safe bound of its duals, of an integer program the
        bound that SCIP proves, less its tolerances.
      is_optimal: whether the solver says that the values are optimal.
    """

    values: Floats | None
    bound: float
    is_optimal: bool


class SolverTask:
    """A program that is being solved.

    Args:
      rows: the program.
      integer: whether integer columns must be integer.
      seconds: of wall-clock time.
      gap: relative, within which a solution counts as optimal.
    """

    def __init__(self, rows: Rows, integer: bool, seconds: float, gap: float):
        self._rows, self._solution = rows, None if len(rows.low) else ProgramSolution(np.zeros(0), rows.constant, True)
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._deadline = time.monotonic() + seconds
        if self._solution is None and integer and len(rows.low) <= _SMALL:
            here = min(seconds, _SECONDS_HERE)
            solution = run(rows, True, here, gap)
            if solution.is_optimal or seconds <= here + _GRACE:
                self._solution = solution
            seconds -= here
        if self._solution is not None:
            return
        limit = max((1.0 - _SHARE_OF_GRACE) * seconds - _GRACE, 0.5 * seconds)
        if integer:
            self._process = child_process.start(__name__)
            question = pickle.dumps((rows, limit, gap))
            self._thread = threading.Thread(target=self._talk, args=(self._process, question), daemon=True)
        else:
            self._thread = threading.Thread(target=self._work, args=(limit,), daemon=True)
        self._thread.start()

    def _work(self, limit: float) -> None:
        self._solution = run(self._rows, False, limit, 0.0)

    def _talk(self, process: subprocess.Popen[bytes], question: bytes) -> None:
        answer, _ = process.communicate(question)
        if process.returncode == 0 and answer:
            self._solution = pickle.loads(answer)

    @property
    def is_done(self) -> bool:
        """Whether `result` returns at once."""
        return self._thread is None or not self._thread.is_alive() or time.monotonic() > self._deadline

    def result(self) -> ProgramSolution:
        """Waits for the solution."""
        try:
            while not self.is_done and self._thread is not None:
                self._thread.join(_PULSE)
        finally:
            self.stop()
        return self._solution or ProgramSolution(None, self._rows.safe_bound(np.zeros(len(self._rows.row_low))), False)

    def stop(self) -> None:
        """Ends the solver, if it still runs."""
        if self._process is not None and self._thread is not None:
            self._process.kill()
            self._process.wait()
            self._thread.join()


def solve_linear(rows: Rows, seconds: float) -> ProgramSolution:
    """Returns an optimum of the program without integrality; the bound is safe.

    The duals of a solver that runs out of time may still give a useful bound.
    """
    return SolverTask(rows, False, seconds, 0.0).result()


def run(rows: Rows, integer: bool, seconds: float, gap: float) -> ProgramSolution:
    """Solves a program in this process."""
    from ortools.linear_solver.python import model_builder_helper as helper

    model: Any = helper.ModelBuilderHelper()
    model.add_var_array_with_bounds(rows.low, rows.high, rows.is_integer & integer, "")
    for number in np.flatnonzero(rows.cost).tolist():
        model.set_var_objective_coefficient(number, float(rows.cost[number]))
    model.set_objective_offset(rows.constant)
    for number, (low, high) in enumerate(zip(rows.row_low.tolist(), rows.row_high.tolist(), strict=True)):
        model.add_linear_constraint()
        model.set_constraint_lower_bound(number, low)
        model.set_constraint_upper_bound(number, high)
    for entry in zip(rows.rows.tolist(), rows.columns.tolist(), rows.values.tolist(), strict=True):
        model.add_term_to_constraint(*entry)
    solver = helper.ModelSolverHelper("scip" if integer else "glop")
    solver.set_time_limit_in_seconds(max(seconds, 0.01))
    if integer:
        solver.set_solver_specific_parameters(f"limits/gap={gap}")
    solver.solve(model)
    least = rows.safe_bound(np.zeros(len(rows.row_low)))
    if not solver.has_response() or not solver.has_solution():
        return ProgramSolution(None, least, False)
    values = np.array(solver.variable_values())
    if not integer:
        duals = np.array(solver.dual_values())
        bound = rows.safe_bound(duals) if len(duals) == len(rows.row_low) else least
    else:
        proven = float(solver.best_objective_bound())
        bound = proven - _TOLERANCE * abs(proven) if np.isfinite(proven) else least
    return ProgramSolution(values, max(bound, least), solver.status() == helper.SolveStatus.OPTIMAL)


def main(arguments: Sequence[str]) -> None:
    """Answers the task on standard input."""
    rows, seconds, gap = pickle.load(sys.stdin.buffer)
    solution = run(rows, True, seconds, gap)
    sys.stdout.buffer.write(pickle.dumps(solution))
    sys.stdout.buffer.flush()
