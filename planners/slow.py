"""The planner `slow`: everything at home."""

from __future__ import annotations

from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.planner import Budget, Planner
from memplan.planners.stays.assembly import assemble


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the plan in which no buffer leaves the memory where the program puts it, offsets packed by best fit."""
    del budget  # There is nothing to search.
    return assemble(problem, (), "slow").plan


PLANNER = Planner("slow", "Everything in the slow memory: what all other plans are compared with.", solve)
