"""The problem as a constraint program for CP-SAT, an exact solver that shares nothing with the dynamic program.

CP-SAT computes in integers. Whole numbers are kept as they are. Others are rounded down to ticks, of which there are
2**40 in the largest total, so that its bound holds for the numbers as given; its choice is then checked against them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from memplan.planners.levels.plan import LevelPlan, plan_of
from memplan.planners.levels.problem import Floats, LevelProblem

_TICKS = 2.0**40


def solve_by_constraints(
    problem: LevelProblem, known: Sequence[int] | None = None, work: float = 60.0, seed: int = 0
) -> LevelPlan | None:
    """Returns the best choice that CP-SAT finds, with the bound that it proves; None if it finds none.

    Args:
      problem: sound (`LevelProblem.check`).
      known: a choice to start from.
      work: deterministic seconds of the solver.
      seed: of the solver.
    """
    # OR-Tools loads pandas: only those who solve wait for it.
    from ortools.sat.python import cp_model

    tables = problem.tables
    weight, per_weight = _in_ticks(tables.weight, tables.integer_weight)
    value, per_value = _in_ticks(tables.value, tables.integer_value)
    model = cp_model.CpModel()
    chosen = [[model.new_bool_var("") for _ in layer.levels] for layer in problem.layers]
    for variables in chosen:
        model.add_exactly_one(variables)
    flat = [(row, column) for row, variables in enumerate(chosen) for column in range(len(variables))]
    variables = [chosen[row][column] for row, column in flat]
    limit = sum(max(row) for row in weight)
    budget = limit if math.isinf(problem.budget) else min(limit, math.floor(problem.budget * per_weight))
    model.add(cp_model.LinearExpr.weighted_sum(variables, [weight[row][column] for row, column in flat]) <= budget)
    model.minimize(cp_model.LinearExpr.weighted_sum(variables, [value[row][column] for row, column in flat]))
    for row, level in enumerate(known or ()):
        for column, variable in enumerate(chosen[row]):
            model.add_hint(variable, int(column == level))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.catch_sigint_signal = False
    solver.parameters.random_seed = seed % 2**31
    solver.parameters.max_deterministic_time = work
    solver.parameters.relative_gap_limit = 0.0
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    choice = tuple(next(c for c, variable in enumerate(row) if solver.value(variable)) for row in chosen)
    plan = plan_of(problem, choice, float(solver.best_objective_bound) / per_value, "cp-sat")
    spent = plan.cost if problem.limited == "cost" else plan.error
    return plan if spent <= problem.budget else None


def _in_ticks(table: Floats, whole: bool) -> tuple[list[list[int]], float]:
    """Returns the finite entries of each row as integers, and how many units of them make 1."""
    finite = np.where(np.isfinite(table), table, 0.0)
    scale = 1.0 if whole else _TICKS / max(float(finite.max(1).sum()), 1e-300)
    rows = [[math.floor(entry * scale) for entry in row if math.isfinite(entry)] for row in table.tolist()]
    return rows, scale
