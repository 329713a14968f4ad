"""Plans that planners begin with in tests."""

from __future__ import annotations

import dataclasses

from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import greedy
from memplan.planners.greedy import GreedyOptions
from memplan.planners.planner import Budget


def without_moves(mapped: MappingProblem, budget: Budget) -> Budget:
    """Returns a budget under which planners begin with decisions of greedy that it has not rearranged."""
    return dataclasses.replace(budget, known=greedy.solve_with(mapped, budget, GreedyOptions(moves=0)))
