"""The verifier of ContractionPlans: it walks the path with sets of indices, and shares no code with solvers."""

from __future__ import annotations

from memplan.planners.contraction.plan import ContractionPlan
from memplan.planners.contraction.problem import ContractionProblem


def verify_contraction(problem: ContractionProblem, plan: ContractionPlan) -> list[str]:
    """Returns what is wrong with a plan: nothing, if it is valid.

    The path must use each tensor and each result once, flops and peak must be those of the path in its order, within
    the limit, and the bound must not be above what is minimized.
    """
    count = len(problem.operands)
    if len(plan.path) != count - 1:
        return [f"the path has {len(plan.path)} pairs, and {count} tensors need {count - 1}"]
    left = set(range(count))
    for step, (first, second) in enumerate(plan.path):
        if first == second or first not in left or second not in left:
            return [f"pair {step} is of {first} and {second}, which are not both there then"]
        left = left - {first, second} | {count + step}
    flops, peak = _walk(problem, plan)
    found = []
    for quantity, real, stated in (("flops", flops, plan.flops), ("peak", peak, plan.peak)):
        if real != stated:
            found.append(f"the {quantity} are {real:,}, and the plan states {stated:,}")
        if problem.limit is not None and quantity == problem.limited and real > problem.limit:
            found.append(f"the {quantity} {real:,} exceed {problem.limit:,}")
    if plan.minimize != problem.minimize:
        found.append(f"the plan minimizes {plan.minimize}, and the problem {problem.minimize}")
    if plan.bound > plan.minimized:
        found.append(f"the bound {plan.bound:,} is above the {plan.minimized:,} that the plan reaches")
    return found


def _walk(problem: ContractionProblem, plan: ContractionPlan) -> tuple[int, int]:
    """Returns the flops and the peak of the path."""

    def elements(indices: set[str]) -> int:
        product = 1
        for index in indices:
            product *= problem.sizes[index]
        return product

    there: dict[int, set[str]] = {}
    copies: dict[int, int] = {}
    flops = 0
    for number, indices in enumerate(problem.operands):
        others = set(problem.output).union(*(o for n, o in enumerate(problem.operands) if n != number))
        there[number] = set(indices) & others
        is_summed = elements(set(indices)) > elements(there[number])
        flops += elements(set(indices)) if is_summed else 0
        has_diagonal = any(indices.count(index) > 1 and problem.sizes[index] > 1 for index in indices)
        copies[number] = elements(there[number]) * problem.itemsize if is_summed or has_diagonal else 0
    if not plan.path:
        return flops, elements(there[0]) * problem.itemsize
    standing: dict[int, int] = {}
    peak = 0
    for step, (first, second) in enumerate(plan.path):
        one, other = there.pop(first), there.pop(second)
        needed = set(problem.output).union(*there.values())
        result = (one | other) & needed
        flops += elements(one | other) * (2 if elements(one | other) > elements(result) else 1)
        new = elements(result) * problem.itemsize
        peak = max(peak, sum(standing.values()) + copies.pop(first, 0) + copies.pop(second, 0) + new)
        standing.pop(first, None)
        standing.pop(second, None)
        number = len(problem.operands) + step
        there[number], standing[number] = result, new
    return flops, peak
