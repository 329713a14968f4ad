"""The planner `bestfit`: no copies, every buffer in one place for its whole live range.

What is produced and used up in the program may lie in fast memory, packed by best fit; arguments and results stay at
home. Buffers compete by the seconds that they save for each byte and second that they hold of the memory. Runtimes
without asynchronous copies plan their arenas in this way, so the planner shows what copies are worth.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.offsets.preparation import prepare as prepare_packing
from memplan.planners.planner import Budget, Planner
from memplan.planners.stays.assembly import Stay, assemble
from memplan.planners.stays.decisions import Decisions, Order
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.rules import Rules
from memplan.planners.stays.small_problem import small_problem


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns a plan without copies, but for results that must change their memory; never slower than all at home.

    Raises:
      PlannerError: the buffers do not fit their homes.
    """
    stays: tuple[Stay, ...] = ()
    for space in fast_spaces(problem):
        decisions = Decisions(
            Frame(problem, space, stays, "whole"), Rules(prefetch=False, evict=False, channel_price=0.0)
        )
        decisions.run(Order("density"), np.random.default_rng(budget.seed))
        decisions.drop_useless(only_copied=False)
        stays = (*stays, *decisions.stays())
    return assemble(problem, stays, "bestfit").plan


@cache
def prepare() -> None:
    """Compiles the kernels, or loads them."""
    prepare_packing()
    solve(small_problem(), Budget())


PLANNER = Planner(
    "bestfit", "Whole live ranges in fast memory, packed by best fit, without copies.", solve, prepare=prepare
)
