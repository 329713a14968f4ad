"""The program of stages in integers, by CP-SAT: its optimum bounds the cost of all plans, and its solution begins one.

CP-SAT computes with integers. All columns are at least 0, so a row whose coefficients are rounded down still holds for
every plan. Bytes are exact, and seconds are ticks: the bound is rounded down by less than a tick for each run.

With the linear program of all rows (`linearization_level` 2), CP-SAT proves these programs in a tenth of the time that
SCIP takes; with its default, it often proves nothing: the rows over several stages are what holds them together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Guard
from memplan.planners.fit.bound import StageProgram
from memplan.planners.ilp.linear import Rows

Integers = NDArray[np.int64]

# All seconds of the program together, in ticks; and the share of the work that may go into a second objective.
_TICKS, _SECOND_SHARE = 2.0**30, 0.25


@dataclass(frozen=True)
class StageSolution:
    """What CP-SAT found.

    Attributes:
      bound: seconds that any plan adds at least; infinite if there is none within the limit.
      runs: the nodes that run in each stage, ascending; None if it found no solution.
      is_optimal: whether it is proven that no solution costs less.
      work: deterministic seconds that it took.
    """

    bound: float
    runs: list[list[int]] | None
    is_optimal: bool
    work: float


def solve_stages(stages: StageProgram, work: float, seed: int, guard: Guard) -> StageSolution:
    """Solves a program of stages in integers.

    Of the solutions that cost the same, one that keeps few bytes is returned: it leaves room for what it recomputes.

    Args:
      stages: the program.
      work: deterministic seconds of the solver.
      seed: of the solver.
      guard: ends it early.
    """
    # OR-Tools loads pandas: only those who solve wait for it.
    from ortools.sat.python import cp_model

    model = _IntegerStages(stages)
    solver = _solver(cp_model, work, seed, guard)
    status = solver.solve(model.model)
    guard.reached()
    took = float(solver.response_proto.deterministic_time)
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    if status == cp_model.INFEASIBLE:
        return StageSolution(math.inf, None, False, took)
    bound = max(0.0, float(solver.best_objective_bound) - len(stages.waits)) / _TICKS * stages.total
    if not found:
        return StageSolution(bound, None, False, took)
    values = model.values(solver)
    if status == cp_model.OPTIMAL and not guard.reached():
        model.keep_little(round(solver.objective_value), values)
        second = _solver(cp_model, _SECOND_SHARE * work, seed, guard)
        if second.solve(model.model) in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            values = model.values(second)
        took += float(second.response_proto.deterministic_time)
        guard.reached()
    return StageSolution(bound, stages.runs(values), status == cp_model.OPTIMAL, took)


def _solver(cp_model: Any, work: float, seed: int, guard: Guard) -> Any:
    solver = cp_model.CpSolver()
    parameters = solver.parameters
    parameters.num_workers = 1
    parameters.linearization_level = 2
    parameters.catch_sigint_signal = False
    parameters.random_seed = seed % 2**31
    parameters.max_deterministic_time = work
    if guard.is_limited:
        parameters.max_time_in_seconds = max(guard.left(), 0.01)
    return solver


class _IntegerStages:
    """The model of CP-SAT; its variables are the columns of the linear program.

    Attributes:
      model: a `CpModel`.
    """

    def __init__(self, stages: StageProgram):
        from ortools.sat.python import cp_model

        self._linear = cp_model.LinearExpr
        self._stages, rows = stages, stages.program.finished()
        self._is_wait = np.zeros(len(rows.low), np.bool_)
        self._is_wait[stages.waits] = True
        self.model = cp_model.CpModel()
        self._variables = [self._variable(rows, number) for number in range(len(rows.low))]
        starts = np.searchsorted(rows.rows, np.arange(len(rows.row_low) + 1))
        for row, (start, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
            if start < end:
                self._add_row(row in stages.memory_rows, rows, row, slice(start, end))
        ticks = np.where(self._is_wait, 1, np.floor(rows.cost * _TICKS)).astype(np.int64)
        once = sum(int(np.floor(seconds / stages.total * _TICKS)) for seconds in stages.t.seconds.tolist())
        costing = np.flatnonzero(ticks)
        self._cost = self._sum(costing, ticks[costing]) - once
        self.model.minimize(self._cost)

    def _variable(self, rows: Rows, number: int) -> Any:
        if self._is_wait[number]:
            return self.model.new_int_var(0, int(np.ceil(rows.high[number] * _TICKS)), "")
        return self.model.new_int_var(int(rows.low[number]), int(rows.high[number]), "")

    def _sum(self, columns: Integers, coefficients: Integers) -> Any:
        return self._linear.weighted_sum([self._variables[k] for k in columns.tolist()], coefficients.tolist())

    def _add_row(self, is_memory: bool, rows: Rows, row: int, part: slice) -> None:
        columns, values, high = rows.columns[part], rows.values[part], float(rows.row_high[row])
        if is_memory:
            sizes = np.rint(values * self._stages.unit).astype(np.int64)
            divisor = max(int(np.gcd.reduce(sizes)), 1)
            self.model.add(self._sum(columns, sizes // divisor) <= round(high * self._stages.unit) // divisor)
            return
        whole = np.rint(values)
        if (values != whole).any():
            # Waits are counted in ticks themselves.
            whole, high = np.floor(np.where(self._is_wait[columns], values, values * _TICKS)), high * _TICKS
        self.model.add(self._sum(columns, whole.astype(np.int64)) <= int(np.floor(high + 1e-6)))

    def values(self, solver: Any) -> NDArray[np.float64]:
        """Returns the values of the columns, `[columns]`; waits are in ticks."""
        return np.array([solver.value(variable) for variable in self._variables], np.float64)

    def keep_little(self, cost: int, values: NDArray[np.float64]) -> None:
        """Asks for few bytes in the memory at a cost that is known from a solution."""
        self.model.add(self._cost <= cost)
        rows, kept = self._stages.program.finished(), np.zeros(len(values))
        own = np.isin(rows.rows, sorted(self._stages.memory_rows))
        np.add.at(kept, rows.columns[own], np.rint(rows.values[own] * self._stages.unit))
        columns = np.flatnonzero(kept)
        self.model.minimize(self._sum(columns, kept[columns].astype(np.int64)))
        self.model.clear_hints()
        for variable, value in zip(self._variables, values.astype(np.int64).tolist(), strict=True):
            self.model.add_hint(variable, value)
