"""The verifier of LevelPlans: it adds the totals up in fractions, and shares no code with the solvers."""

from __future__ import annotations

from fractions import Fraction

from memplan.planners.levels.plan import LevelPlan
from memplan.planners.levels.problem import LevelProblem


def verify_levels(problem: LevelProblem, plan: LevelPlan) -> list[str]:
    """Returns what is wrong with a plan: nothing, if it is valid.

    The totals must be those of the choice, the total that the budget limits must be within it, and the bound must not
    be above what is minimized. A total of floats may be over the budget by the rounding of one addition.
    """
    if len(plan.choice) != len(problem.layers):
        return [f"the plan has {len(plan.choice)} layers, and the problem {len(problem.layers)}"]
    found = []
    sums = {"cost": Fraction(0), "error": Fraction(0)}
    for layer, index in zip(problem.layers, plan.choice, strict=True):
        if not 0 <= index < len(layer.levels):
            found.append(f"{layer.name}: there is no level {index}, only {len(layer.levels)} levels")
            continue
        sums["cost"] += Fraction(layer.levels[index].cost)
        sums["error"] += Fraction(layer.levels[index].error)
    if found:
        return found
    for quantity, stated in (("cost", plan.cost), ("error", plan.error)):
        if _rounded(sums[quantity]) != stated:
            found.append(f"the total {quantity} is {_rounded(sums[quantity]):,}, and the plan states {stated:,}")
    if _rounded(sums[problem.limited]) > problem.budget:
        found.append(f"the total {problem.limited} {_rounded(sums[problem.limited]):,} exceeds {problem.budget:,}")
    if plan.bound > plan.minimized:
        found.append(f"the bound {plan.bound:,} is above the {plan.minimized:,} that the plan reaches")
    return found


def _rounded(exact: Fraction) -> float:
    return exact.numerator if exact.denominator == 1 else float(exact)
