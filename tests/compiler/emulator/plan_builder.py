"""Plans made by hand, at random, and wrong by one change."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.mapping.plan import Copy, Plan, Residency
from memplan.compiler.mapping.problem import MappingProblem

SLOW, FAST = 0, 1


class PlanBuilder:
    """A plan in the making, everything in slow memory at first; offsets are chosen at the end, lowest fit first."""

    def __init__(self, problem: MappingProblem):
        self.problem = problem
        self.residencies = [
            Residency(i, buffer.initial_space or buffer.final_space or SLOW, -1, buffer.start, buffer.end)
            for i, buffer in enumerate(problem.buffers)
        ]
        self.copies: list[Copy] = []
        self.served = [access.buffer for _, access in problem.accesses]

    def index(self, name: str) -> int:
        return next(i for i, buffer in enumerate(self.problem.buffers) if name in buffer.values)

    def time(self, name: str) -> int:
        return next(t for t, operation in enumerate(self.problem.operations) if operation.name == name)

    def reside(self, buffer: int, space: int, start: int, end: int) -> int:
        self.residencies.append(Residency(buffer, space, -1, start, end))
        return len(self.residencies) - 1

    def serve(self, buffer: int, residency: int, start: int, end: int) -> None:
        for number in self.problem.accesses_of[buffer]:
            if start <= self.problem.accesses[number][0] < end:
                self.served[number] = residency

    def prefetch(self, buffer: int, start: int, done: int, end: int) -> None:
        """Copies a buffer to fast memory, where its accesses in `[done, end)` find it."""
        residency = self.reside(buffer, FAST, start, end)
        self.copies.append(Copy(buffer, residency, start, done))
        self.serve(buffer, residency, done, end)

    def evict(self, buffer: int, start: int, done: int, end: int) -> None:
        """Has a buffer written in fast memory and copied to slow memory, where its accesses from `end` on find it."""
        first, last = self.problem.buffers[buffer].start, self.problem.buffers[buffer].end
        residency = self.reside(buffer, FAST, first, end)
        self.serve(buffer, residency, first, end)
        self.residencies[buffer] = replace(self.residencies[buffer], start=start, end=last)
        self.copies.append(Copy(residency, buffer, start, done))

    def plan(self, seed: int | None = None) -> Plan:
        """Returns the plan; with a seed, residencies are placed in a random order."""
        order = list(range(len(self.residencies)))
        if seed is not None:
            random.Random(seed).shuffle(order)
        placed: list[Residency] = []
        result = list(self.residencies)
        for number in order:
            r = result[number]
            size, space = self.problem.buffers[r.buffer].size, self.problem.spaces[r.space]
            times = range(max(r.start, 0), min(r.end, self.problem.end))
            floor = max((self.problem.operations[t].reserved[r.space] for t in times), default=0)
            busy = [
                (other.offset, other.offset + self.problem.buffers[other.buffer].size)
                for other in placed
                if other.space == r.space and other.start < r.end and r.start < other.end
            ]
            offset = -(-floor // space.alignment) * space.alignment
            for low, high in sorted(busy):
                if low < offset + size and offset < high:
                    offset = -(-high // space.alignment) * space.alignment
            result[number] = replace(r, offset=offset)
            placed.append(result[number])
        problem = self.problem
        copies = tuple(sorted(self.copies, key=lambda copy: copy.start))
        return Plan(
            problem.fingerprint, problem.name, problem.target, "test", tuple(result), copies, tuple(self.served)
        )


def random_plan(problem: MappingProblem, rng: random.Random) -> Plan:
    """Returns a valid plan that uses fast memory in every way that a buffer allows."""
    builder = PlanBuilder(problem)
    regions = problem.regions
    region_of = [operation.region for operation in problem.operations] + [0]
    for number, buffer in enumerate(problem.buffers):
        accesses = [problem.accesses[n] for n in problem.accesses_of[number]]
        writes = [t for t, access in accesses if access.kind is not AccessKind.READ]
        if FAST not in buffer.spaces or not accesses or rng.random() < 0.2:
            continue
        if buffer.initial_space is None and buffer.final_space is None and rng.random() < 0.5:
            builder.residencies[number] = replace(builder.residencies[number], space=FAST)
            continue
        # A window within one region: it starts, and its copies are awaited, at times directly in it.
        region = rng.randrange(len(regions))
        low, high = max(regions[region].start, buffer.start), min(regions[region].end, buffer.end)
        times = [t for t in range(low, min(high, problem.end)) if region_of[t] == region]
        if len(times) < 2:
            continue
        start, done, last = sorted(rng.choices(times, k=3))
        end = last + 1
        if any(regions[r].start <= last < regions[r].end for r in range(region + 1, len(regions))):
            continue
        is_defined = buffer.initial_space is not None or (writes and writes[0] < start)
        if is_defined and not any(start <= t < end for t in writes) and not _carried(problem, region, number, writes):
            builder.prefetch(number, start, done, end)
        elif writes == [buffer.start] and accesses[0][1].kind is AccessKind.WRITE and region_of[buffer.start] == region:
            if buffer.start < start and end < buffer.end:
                if all(t < end or t > done for t, _ in accesses):
                    builder.evict(number, start, done, end)
    return builder.plan(rng.randrange(1 << 30))


def _carried(problem: MappingProblem, region: int, buffer: int, writes: Sequence[int]) -> bool:
    """Whether a buffer is written by the loop around a region at all: then its value changes from one turn to the next."""
    while problem.regions[region].kind is not RegionKind.PROGRAM:
        if any(problem.regions[region].start <= t < problem.regions[region].end for t in writes):
            return True
        region = problem.regions[region].parent
    return False


def mutated(plan: Plan, problem: MappingProblem, rng: random.Random) -> Plan:
    """Returns the plan with one thing changed."""
    residencies, copies, served = list(plan.residencies), list(plan.copies), list(plan.served)
    kind = rng.choice(["offset", "overlap", "end", "start", "served", "drop", "early", "late", "space"])
    number = rng.randrange(len(residencies))
    r = residencies[number]
    if kind == "offset":
        residencies[number] = replace(r, offset=r.offset + 64 * rng.randint(1, 3))
    elif kind == "overlap":
        others = [o for o in residencies if o.space == r.space and o.start < r.end and r.start < o.end]
        residencies[number] = replace(r, offset=rng.choice(others).offset)
    elif kind == "end":
        residencies[number] = replace(r, end=max(r.start + 1, r.end - rng.randint(1, 3)))
    elif kind == "start":
        residencies[number] = replace(r, start=min(r.end - 1, r.start + rng.randint(1, 3)))
    elif kind == "space":
        residencies[number] = replace(r, space=1 - r.space)
    elif kind == "served":
        access = rng.randrange(len(served))
        buffer = problem.accesses[access][1].buffer
        served[access] = rng.choice([i for i, o in enumerate(residencies) if o.buffer == buffer])
    elif copies:
        chosen = rng.randrange(len(copies))
        copy = copies[chosen]
        if kind == "drop":
            del copies[chosen]
        elif kind == "early":
            copies[chosen] = replace(copy, start=max(0, copy.start - rng.randint(1, 3)))
        else:
            copies[chosen] = replace(copy, done=copy.done + rng.randint(1, 3))
    return replace(plan, residencies=tuple(residencies), copies=tuple(copies), served=tuple(served))
