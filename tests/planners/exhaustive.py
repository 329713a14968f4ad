"""Every way to serve a tiny problem, enumerated: what solvers and bounds are compared with.

It shares nothing with them but the verifier and the emulator. Each buffer may have one stay in the fast memory with any
accesses, at most one copy in and one copy home, or two such stays one after another if it has few accesses. What one buffer may
do does not depend on the others but for memory, which is accounted for by sums: less than what offsets take, so the
optimum here is no worse than that of all plans of this kind.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Copy, Plan, Residency
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import slow

# More combinations than this are not enumerated.
MAX_COMBINATIONS = 2000

# What a buffer does: its fast residencies, its copies by (residency or -1 for home, likewise, start, done), and for each
# of its accesses the residency, -1 for home.
Option = tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int, int, int], ...], tuple[int, ...]]


def best_latency(problem: MappingProblem) -> float | None:
    """Returns the least latency; None if there are too many combinations."""
    base = slow.solve(replace(problem, cross_program_prefetches=0), None)  # type: ignore[arg-type]
    options = []
    total = 1
    for buffer in range(len(problem.buffers)):
        options.append(_options(problem, base, buffer))
        total *= len(options[-1])
        if total > MAX_COMBINATIONS:
            return None
    emulator = TimingEmulator(problem)
    room = np.array([problem.spaces[1].capacity - operation.reserved[1] for operation in problem.operations] + [10**9])
    best = np.inf
    for chosen in itertools.product(*options):
        taken = np.zeros(problem.end + 1)
        for buffer, (stays, _, _) in enumerate(chosen):
            for start, end in stays:
                taken[start:end] += problem.buffers[buffer].size
        if (taken[: problem.end] > room[: problem.end]).any():
            continue
        plan = base
        for buffer, option in enumerate(chosen):
            plan = _with(problem, plan, buffer, option)
        copies = tuple(sorted(plan.copies, key=lambda copy: (copy.start, copy.done)))
        best = min(best, emulator.latency(replace(plan, copies=copies)))
    return best


def _with(problem: MappingProblem, plan: Plan, buffer: int, option: Option) -> Plan:
    """Returns a plan in which a buffer that is at home everywhere does what an option says."""
    stays, copies, served_by = option
    home = next(i for i, r in enumerate(plan.residencies) if r.buffer == buffer)
    described = problem.buffers[buffer]
    residencies = list(plan.residencies)
    residencies[home] = replace(residencies[home], start=described.start, end=described.end)
    first = len(residencies)
    residencies += [Residency(buffer, 1, 0, start, end) for start, end in stays]
    served = list(plan.served)
    for access, stay in zip(problem.accesses_of[buffer], served_by, strict=True):
        served[access] = home if stay < 0 else first + stay
    place = {-1: home} | {stay: first + stay for stay in range(len(stays))}
    made = [Copy(place[source], place[target], start, done) for source, target, start, done in copies]
    return replace(plan, residencies=tuple(residencies), copies=(*plan.copies, *made), served=tuple(served))


def _options(problem: MappingProblem, base: Plan, buffer: int) -> list[Option]:
    """Returns all that a buffer can do that is valid and that nothing else beats in memory with the same copies."""
    accesses = problem.accesses_of[buffer]
    times = [problem.accesses[access][0] for access in accesses]
    if 1 not in problem.buffers[buffer].spaces or not accesses:
        return [((), (), (-1,) * len(accesses))]
    found: list[Option] = []
    num_stays = 2 if len(accesses) <= 3 else 1
    for served in itertools.product(range(-1, num_stays), repeat=len(accesses)):
        used = list(dict.fromkeys(stay for stay in served if stay >= 0))
        if used != list(range(len(used))) or [s for s in served if s >= 0] != sorted(s for s in served if s >= 0):
            continue
        at = [[time for time, by in zip(times, served, strict=True) if by == stay] for stay in used]
        ways = [way for stay in used for way in (_prefetches(problem, at[stay][0]), _evictions(problem, at[stay][0]))]
        for copies in itertools.product(*ways):
            stays, made = [], []
            for stay in used:
                prefetch, eviction = copies[2 * stay], copies[2 * stay + 1]
                start, end = at[stay][0], at[stay][-1] + 1
                if prefetch is not None:
                    start = prefetch[0]
                    made.append((-1, stay, *prefetch))
                if eviction is not None:
                    end = max(end, eviction[1], eviction[0] + 1)
                    made.append((stay, -1, *eviction))
                stays.append((start, end))
            option = (tuple(stays), tuple(made), served)
            spread = _around_loops(problem, option)
            if _is_valid(problem, base, buffer, option):
                found.append(option)
            elif spread != option and _is_valid(problem, base, buffer, spread):
                found.append(spread)
        if len(found) > MAX_COMBINATIONS:
            break
    return found


def _prefetches(problem: MappingProblem, first: int) -> list[tuple[int, int] | None]:
    """Returns the times of copies in before a first use: awaited as late as can be, in a region around it."""
    region = problem.operations[first].region
    dones = [first]
    while region > 0:
        dones.append(problem.regions[region].start - 1)
        region = problem.regions[region].parent
    return [None, *((start, done) for done in dones for start in range(done + 1))]


def _evictions(problem: MappingProblem, first: int) -> list[tuple[int, int] | None]:
    """Returns the times of copies home after a first use."""
    moments = range(first + 1, problem.end + 1)
    return [None, *((start, done) for start in moments for done in moments if start <= done)]


def _around_loops(problem: MappingProblem, option: Option) -> Option:
    """Returns an option whose stays last all through the loops that they touch."""
    stays, copies, served = option
    widened = []
    for start, end in stays:
        for region in problem.regions[1:]:
            if region.start < end and start < region.end and region.trip_count > 1.0:
                start, end = min(start, region.start), max(end, region.end)
        widened.append((start, end))
    return tuple(widened), copies, served


def _is_valid(problem: MappingProblem, base: Plan, buffer: int, option: Option) -> bool:
    described = problem.buffers[buffer]
    if any(start < described.start or end > described.end for start, end in option[0]):
        return False
    violations = verify(problem, _with(problem, base, buffer, option))
    return all(violation.rule in ("reserved", "capacity", "overlap") for violation in violations)
