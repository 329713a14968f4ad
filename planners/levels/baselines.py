"""What choices of levels are compared with: the same level everywhere, and L-GreCo's discretized knapsack."""

from __future__ import annotations

import math

import numpy as np

from memplan.compiler.errors import PlannerError
from memplan.planners.levels.plan import LevelPlan, plan_of
from memplan.planners.levels.problem import LevelProblem

BUCKETS = 10_000


def uniform_choice(problem: LevelProblem) -> LevelPlan | None:
    """Returns the best choice of one level, by name, in all layers; None if no level that all have fits.

    A layer with one level only keeps it.
    """
    within = [plan for plan in uniform_choices(problem) if getattr(plan, problem.limited) <= problem.budget]
    return min(within, key=lambda plan: plan.minimized, default=None)


def uniform_choices(problem: LevelProblem) -> list[LevelPlan]:
    """Returns the choices of one level, by name, in all layers, whether or not they are within the budget."""
    open_layers = [layer for layer in problem.layers if len(layer.levels) > 1]
    if not open_layers:
        return []
    shared = set.intersection(*({level.name for level in layer.levels} for layer in open_layers))
    plans = []
    for level in open_layers[0].levels:
        if level.name in shared:
            plans.append(plan_of(problem, _named(problem, level.name), 0.0, f"uniform {level.name}"))
    return plans


def _named(problem: LevelProblem, name: str) -> tuple[int, ...]:
    return tuple(
        next(index for index, level in enumerate(layer.levels) if level.name == name) if len(layer.levels) > 1 else 0
        for layer in problem.layers
    )


def bucket_choice(problem: LevelProblem, buckets: int = BUCKETS) -> LevelPlan | None:
    """Returns the choice of L-GreCo (Markov et al., arXiv 2210.17357, algorithm 1); None if it finds none.

    What is limited is counted in buckets of `budget ÷ buckets`, and a table of the least value for each number of
    buckets used grows layer by layer. Amounts are rounded up here, so that the choice is within the budget.

    Args:
      problem: sound (`LevelProblem.check`), with a positive finite budget.
      buckets: how many the budget is divided into.

    Raises:
      PlannerError: the budget or the number of buckets is not positive.
    """
    if not 0 < problem.budget < math.inf or buckets < 1:
        raise PlannerError(f"cannot divide a budget of {problem.budget:,} into {buckets:,} buckets")
    tables = problem.tables
    least = np.zeros(buckets + 1)
    levels = np.full((len(problem.layers), buckets + 1), -1, np.int16 if tables.weight.shape[1] < 2**15 else np.int64)
    amounts = np.ceil(np.where(np.isfinite(tables.weight), tables.weight, 0.0) / problem.budget * buckets - 1e-9)
    for row, layer in enumerate(problem.layers):
        after = np.full(buckets + 1, math.inf)
        for level in range(len(layer.levels)):
            amount = amounts[row, level]
            if amount > buckets:
                continue
            reached = np.full(buckets + 1, math.inf)
            reached[int(amount) :] = least[: buckets + 1 - int(amount)] + tables.value[row, level]
            better = reached < after
            after[better], levels[row, better] = reached[better], level
        least = after
    place = int(np.argmin(least))
    if not math.isfinite(least[place]):
        return None
    choice = []
    for row in reversed(range(len(problem.layers))):
        choice.append(int(levels[row, place]))
        place -= int(amounts[row, choice[-1]])
    plan = plan_of(problem, tuple(reversed(choice)), 0.0, "l-greco")
    return plan if getattr(plan, problem.limited) <= problem.budget else None
