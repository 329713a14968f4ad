"""What other compiles of a program teach about its costs.

The cost model agrees with the compiler's estimates for the placement of one module, and predicts them for other
placements. Where another module of the same program states them, the predicted change is scaled so that the model
agrees with both modules.

    stated in module A, placement A      E_A = overhead + Σ cost[A]
    predicted for placement B            E_A + S,  S = Σ cost[B] - cost[A]
    stated in module B                   E_B: the costs of accesses that moved are scaled by (E_B - E_A) / S

Where the predicted change is nearly zero and the stated one is not, the change is split by bytes instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from memplan.backends.tpu.decisions import Placement
from memplan.backends.tpu.steering import Site
from memplan.compiler.hardware.estimates import estimated_cycles
from memplan.compiler.hardware.target import Target
from memplan.compiler.ir import Graph
from memplan.compiler.mapping.problem import MappingProblem, Operation

# A prediction within this relative error needs no correction.
_AGREES = 0.005
# A stated change of up to this many times the predicted one is reached by scaling.
_MOST = 8.0


@dataclass(frozen=True)
class Lesson:
    """What a compiled module of the program teaches.

    Attributes:
      stated: by the name of an instruction, the seconds that the compiler states.
      placement: where the module has the operands and results of its instructions.
    """

    stated: Mapping[str, float]
    placement: Placement

    @staticmethod
    def of(graph: Graph, target: Target) -> Lesson:
        """Returns the lesson of a module for a target."""
        stated = {
            instruction.name: cycles / target.clock
            for _, instruction in graph.instructions()
            if (cycles := estimated_cycles(instruction)) is not None
        }
        return Lesson(stated, Placement(graph, target))


def learned(problem: MappingProblem, where: Sequence[Site], lessons: Iterable[Lesson]) -> MappingProblem:
    """Returns the problem with costs that agree with what other modules of the same program state.

    Args:
      problem: made from one module, whose mapping it carries.
      where: the site of each access, from `steering.sites`.
      lessons: of other modules with the same instructions; the last one counts most. A module that differs in an
        instruction teaches nothing about it.
    """
    given = problem.given
    if given is None:
        return problem
    operations = list(problem.operations)
    here = [given.residencies[residency].space for residency in given.served]
    for lesson in lessons:
        for t, operation in enumerate(operations):
            seconds = lesson.stated.get(operation.name)
            first, last = problem.access_start[t], problem.access_start[t + 1]
            if seconds is None or first == last:
                continue
            there = [lesson.placement.of(site) for site in where[first:last]]
            if all(place is not None and place.space >= 0 for place in there):
                spaces = [place.space for place in there if place is not None]
                operations[t] = _agreeing(operation, here[first:last], spaces, seconds)
    return replace(problem, operations=tuple(operations))


def _agreeing(operation: Operation, here: Sequence[int], there: Sequence[int], seconds: float) -> Operation:
    """Returns the operation with costs that give `seconds` in the placement `there`, and the same as before `here`."""
    moved = [i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b]
    if not moved or abs(operation.duration(there) - seconds) <= _AGREES * seconds:
        return operation
    now = operation.duration(here)
    change = sum(operation.accesses[i].cost[there[i]] - operation.accesses[i].cost[here[i]] for i in moved)
    accesses = list(operation.accesses)
    if abs(seconds - now) > _MOST * abs(change):
        # A change is accepted only if its sign makes sense: a faster memory must not cost more.
        faster = {there[i] > here[i] for i in moved}
        if faster != {seconds < now}:
            return operation
        size = sum(accesses[i].bytes for i in moved)
        split = {i: (seconds - now) * accesses[i].bytes / size if size else 0.0 for i in moved}
    else:
        factor = max((seconds - now) / change, 0.0)
        split = {i: factor * (accesses[i].cost[there[i]] - accesses[i].cost[here[i]]) for i in moved}
    for i in moved:
        cost = list(accesses[i].cost)
        cost[there[i]] = cost[here[i]] + split[i]
        # Costs are never negative: all costs of the access are raised, and the overhead is reduced by as much.
        lift = max(0.0, -min(cost))
        accesses[i] = replace(accesses[i], cost=tuple(value + lift for value in cost))
    costs = sum(access.cost[space] for access, space in zip(accesses, here, strict=True))
    return replace(
        operation,
        accesses=tuple(accesses),
        overhead=max(now - costs, 0.0),
        floor=min(operation.floor, seconds, now),
    )
