"""The planner `xla`: the mapping that the dump itself carries, which the compiler that wrote it decided on.

A dump states which memory every value is in and which copies move it, but no offsets: they are packed by best fit. The
compiler found offsets that fit, so such a packing exists; where best fit finds none, the stays that gain least are left
out, and the plan's `info` says so.
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners._assembly import Stay, assemble, home_of
from memplan.planners.planner import Budget, Planner


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the given mapping with offsets.

    `info["left_out"]` is the number of stays in fast memory that found no offset.

    Raises:
      PlannerError: the program carries no mapping.
    """
    del budget  # Nothing is searched but offsets.
    if problem.given is None:
        raise PlannerError(f"{problem.name} carries no mapping of its own: the planner 'xla' has nothing to recover")
    assembly = assemble(problem, given_stays(problem, problem.given), "xla")
    if assembly.left_out:
        assembly.plan.info["left_out"] = len(assembly.left_out)
    return assembly.plan


def given_stays(problem: MappingProblem, given: Plan) -> list[Stay]:
    """Returns the stays away from home of a mapping whose copies all start or end at home."""
    served: list[list[int]] = [[] for _ in given.residencies]
    value = np.zeros(len(given.residencies))
    for number, ((time, access), residency) in enumerate(zip(problem.accesses, given.served, strict=True)):
        served[residency].append(number)
        gain = access.cost[home_of(problem, access.buffer)] - access.cost[given.residencies[residency].space]
        value[residency] += gain * problem.repetitions[problem.operations[time].region]
    fills: list[list[tuple[int, int]]] = [[] for _ in given.residencies]
    spills: list[list[tuple[int, int]]] = [[] for _ in given.residencies]
    left_behind = set()
    for copy in given.copies:
        fills[copy.destination].append((copy.start, copy.done))
        spills[copy.source].append((copy.start, copy.done))
        if copy.start == BEFORE:
            left_behind.add((given.residencies[copy.destination].buffer, given.residencies[copy.destination].space))
    stays = []
    for number, r in enumerate(given.residencies):
        if r.space == home_of(problem, r.buffer):
            continue
        # What the next run expects in fast memory lies where this run found it.
        from_before = any(start == BEFORE for start, _ in fills[number])
        shares = (r.buffer, r.space) in left_behind and (from_before or r.end == problem.end + 1)
        stays.append(
            Stay(
                buffer=r.buffer,
                space=r.space,
                start=r.start,
                end=r.end,
                accesses=tuple(served[number]),
                fills=tuple(fills[number]),
                spills=tuple(spills[number]),
                place=0 if shares else -1,
                value=max(float(value[number]), 0.0),
            )
        )
    return stays


PLANNER = Planner("xla", "The mapping that the dump itself carries, as its compiler decided.", solve)
