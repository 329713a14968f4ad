"""The entry: the best level for each layer under a budget, and the proof.

The relaxation gives a bound and a price, the dynamic program over the core proves the optimum, and CP-SAT goes on where
the dynamic program has made as many states as the effort allows: in problems of few distinct values per unit of weight,
such as subset sums of large numbers, states hardly ever dominate each other.
"""

from __future__ import annotations

from dataclasses import replace

from memplan.compiler.effort import Effort
from memplan.planners.levels.constraint import solve_by_constraints
from memplan.planners.levels.core import Core
from memplan.planners.levels.plan import LevelPlan, plan_of
from memplan.planners.levels.problem import LevelProblem
from memplan.planners.levels.relaxation import relax


def solve_levels(problem: LevelProblem, effort: Effort = Effort.NORMAL, seed: int = 0) -> LevelPlan:
    """Returns the best choice of levels that is found, with a bound that no choice within the budget beats.

    Two levels for each of two layers, and room for one of the large ones:

    >>> from memplan.planners.levels import LayerLevels, Level, LevelProblem
    >>> first = LayerLevels("first", (Level("8 bits", 80, 0.1), Level("4 bits", 40, 0.5)))
    >>> second = LayerLevels("second", (Level("8 bits", 80, 0.1), Level("4 bits", 40, 2.0)))
    >>> plan = solve_levels(LevelProblem((first, second), budget=120))
    >>> plan.choice, plan.cost, plan.error, plan.is_optimal
    ((1, 0), 120, 0.6, True)

    Args:
      problem: the layers and the budget.
      effort: how many states the dynamic program makes before CP-SAT takes over, and how long that works.
      seed: of CP-SAT.

    Raises:
      PlannerError: the problem is malformed, or no choice is within the budget; the message states the least.
    """
    problem.check()
    if not problem.layers:
        return plan_of(problem, (), 0.0, "exact")
    tables = problem.tables
    relaxation = relax(tables, float(problem.budget))
    choice, bound, finished = relaxation.light, relaxation.bound, True
    if relaxation.price > 0.0:
        most_states = effort.of(fast=1_000_000, normal=5_000_000, high=20_000_000)
        choice, bound, finished = Core(tables, float(problem.budget), relaxation, most_states).solve()
    plan = plan_of(problem, tuple(choice.tolist()), bound, "exact")
    if finished or plan.is_optimal:
        return plan
    other = solve_by_constraints(problem, plan.choice, effort.of(fast=2, normal=30, high=300), seed)
    if other is None:
        return plan
    best = min(plan, other, key=lambda each: each.minimized)
    return replace(best, bound=min(best.minimized, max(plan.bound, other.bound)))
