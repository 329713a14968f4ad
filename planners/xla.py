"""The planner `xla`: the mapping that the dump itself carries, which the compiler that wrote it decided on.

A dump states which memory every value is in and which copies move it, but no offsets; these are packed by best fit. The
compiler's own offsets fit stays that differ a little: a prefetch in slices takes the memory of each slice only from
that slice's start, while here it takes all of it from the first. Where stays exceed the memory, copies start later, and
what finds no offset after all is left out. The plan's `info` says how often that happened.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.planner import Budget, Planner
from memplan.planners.stays.assembly import Stay, assemble, home_of

# Deterministic seconds of constraint programming for each stay that best fit does not place.
_EXACT_EFFORT = 2.0


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the given mapping with offsets.

    Its `info` has the number of stays in fast memory whose copies start later (`started_later`), and the number of
    those that found no offset (`left_out`).

    Raises:
      PlannerError: the program carries no mapping.
    """
    del budget  # Nothing is searched but offsets.
    if problem.given is None:
        raise PlannerError(f"{problem.name} carries no mapping of its own: the planner 'xla' has nothing to recover")
    stays, later = _relieved(problem, given_stays(problem, problem.given))
    assembly = assemble(problem, stays, "xla", exact_effort=_EXACT_EFFORT)
    assembly.plan.info["left_out"] = len(assembly.left_out)
    assembly.plan.info["started_later"] = later
    return assembly.plan


def _relieved(problem: MappingProblem, stays: list[Stay]) -> tuple[list[Stay], int]:
    """Returns the stays, with copies that start later where stays exceed a memory, and how many these are."""
    stays = list(stays)
    moved: set[int] = set()
    for space in range(1, len(problem.spaces)):
        here = [number for number, stay in enumerate(stays) if stay.space == space]
        room = np.array(
            [*(problem.spaces[space].capacity - o.reserved[space] for o in problem.operations), 0], np.int64
        )
        for number in here:
            room[stays[number].start : stays[number].end] -= problem.buffers[stays[number].buffer].size
        for time in np.flatnonzero(room[: problem.end] < 0).tolist():
            # The copy that starts last, and of several the largest, is the most likely to be one in slices.
            arriving = [number for number in here if _is_arriving(problem, stays[number], time)]
            arriving.sort(key=lambda number: (stays[number].start, problem.buffers[stays[number].buffer].size))
            while room[time] < 0 and arriving:
                number = arriving.pop()
                stay = stays[number]
                stays[number] = replace(stay, start=time + 1, prefetches=((time + 1, stay.prefetches[0][1]),))
                room[stay.start : time + 1] += problem.buffers[stay.buffer].size
                moved.add(number)
    return stays, len(moved)


def _is_arriving(problem: MappingProblem, stay: Stay, time: int) -> bool:
    """Whether a stay holds no value yet at a time, and its copy can start right after that."""
    if (
        len(stay.prefetches) != 1
        or not stay.prefetches[0][0] <= time < stay.prefetches[0][1]
        or stay.prefetches[0][1] >= problem.end
    ):
        return False
    region = problem.operations[stay.prefetches[0][1]].region
    return problem.operations[time + 1].region == region


def given_stays(problem: MappingProblem, given: Plan) -> list[Stay]:
    """Returns the stays away from home of a mapping whose copies all start or end at home."""
    served: list[list[int]] = [[] for _ in given.residencies]
    value = np.zeros(len(given.residencies))
    for number, ((time, access), residency) in enumerate(zip(problem.accesses, given.served, strict=True)):
        served[residency].append(number)
        gain = access.cost[home_of(problem, access.buffer)] - access.cost[given.residencies[residency].space]
        value[residency] += gain * problem.runs_at(time)
    prefetches: list[list[tuple[int, int]]] = [[] for _ in given.residencies]
    evictions: list[list[tuple[int, int]]] = [[] for _ in given.residencies]
    left_behind = set()
    for copy in given.copies:
        prefetches[copy.destination].append((copy.start, copy.done))
        evictions[copy.source].append((copy.start, copy.done))
        if copy.start == BEFORE:
            left_behind.add((given.residencies[copy.destination].buffer, given.residencies[copy.destination].space))
    stays = []
    for number, r in enumerate(given.residencies):
        if r.space == home_of(problem, r.buffer):
            continue
        # The next run of the program expects a buffer where this run found it.
        from_before = any(start == BEFORE for start, _ in prefetches[number])
        shares = (r.buffer, r.space) in left_behind and (from_before or r.end == problem.end + 1)
        stays.append(
            Stay(
                buffer=r.buffer,
                space=r.space,
                start=r.start,
                end=r.end,
                accesses=tuple(served[number]),
                prefetches=tuple(prefetches[number]),
                evictions=tuple(evictions[number]),
                place=0 if shares else -1,
                value=max(float(value[number]), 0.0),
            )
        )
    return _joined_in_place(problem, stays)


def placed_stays(problem: MappingProblem, plan: Plan) -> list[Stay]:
    """Returns the stays of a plan away from home, with their offsets; -1 for one of several residencies."""
    offsets = {(r.buffer, r.space, r.start, r.end): r.offset for r in plan.residencies}
    return [
        replace(stay, offset=offsets.get((stay.buffer, stay.space, stay.start, stay.end), -1))
        for stay in given_stays(problem, plan)
    ]


def _joined_in_place(problem: MappingProblem, stays: list[Stay]) -> list[Stay]:
    """Joins two stays of a buffer in one space if the operation that ends the first reads it and writes the second.

    In a dump, this is an operation whose result takes the place of its operand.
    """
    times = [time for time, _ in problem.accesses]
    joined: list[Stay] = []
    last: dict[tuple[int, int], int] = {}
    for stay in sorted(stays, key=lambda stay: (stay.start, stay.end)):
        key = (stay.buffer, stay.space)
        before = joined[last[key]] if key in last else None
        if (
            before is not None
            and before.end == stay.start + 1
            and not stay.prefetches
            and all(done <= stay.start for _, done in before.evictions)
            and any(times[access] == stay.start for access in before.accesses)
        ):
            joined[last[key]] = replace(
                before,
                end=stay.end,
                accesses=(*before.accesses, *stay.accesses),
                evictions=(*before.evictions, *stay.evictions),
                place=max(before.place, stay.place),
                value=before.value + stay.value,
            )
            continue
        last[key] = len(joined)
        joined.append(stay)
    return joined


PLANNER = Planner("xla", "The mapping that the dump itself carries, as its compiler decided.", solve)
