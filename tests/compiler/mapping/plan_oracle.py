"""Whether a plan is valid, found out the hard way: by running it.

Memory is one cell for each byte. A cell holds `(buffer, version)`; every write of a buffer makes a new version. The
program is run along paths: loops three times around, conditionals by a sequence of choices. Nothing is shared with the
verifier but the types.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import MappingProblem

ITERATIONS = 3
UNDEFINED = -1


def is_valid(problem: MappingProblem, plan: Plan, max_paths: int = 64) -> bool:
    """Whether a plan, whose indices must name something, is valid; looks at up to `max_paths` paths of execution."""
    if not _is_sound(problem, plan):
        return False
    return all(_Run(problem, plan).follow(path) for path in itertools.islice(paths(problem), max_paths))


def paths(problem: MappingProblem) -> Iterator[list[int]]:
    """Yields the sequences of times of executions, `end` last: every choice of branches, each made anew or repeated."""
    conditionals = {(region.parent, region.group) for region in problem.regions if region.kind is RegionKind.BRANCH}
    if not conditionals:
        yield _path(problem, itertools.repeat(0))
        return
    for choices in itertools.product(range(2), repeat=4):
        yield _path(problem, itertools.cycle(choices))


def _path(problem: MappingProblem, choices: Iterator[int]) -> list[int]:
    def region(number: int) -> Iterator[int]:
        described = problem.regions[number]
        for _ in range(ITERATIONS if described.kind is RegionKind.LOOP else 1):
            time = described.start
            while time < described.end:
                inner = [
                    i
                    for i, other in enumerate(problem.regions)
                    if other.parent == number and other.start == time and other.end > time
                ]
                if not inner:
                    yield time
                    time += 1
                    continue
                child = problem.regions[inner[0]]
                if child.kind is not RegionKind.BRANCH:
                    yield from region(inner[0])
                    time = child.end
                    continue
                group = [
                    i
                    for i, other in enumerate(problem.regions)
                    if other.parent == number and other.kind is RegionKind.BRANCH and other.group == child.group
                ]
                yield from region(group[next(choices) % len(group)])
                time = max(problem.regions[i].end for i in group)

    return [*region(0), problem.end]


def _is_sound(problem: MappingProblem, plan: Plan) -> bool:
    """The rules that need no execution, by enumeration."""
    n = problem.end
    cells: set[tuple[int, int, int]] = set()
    for r in plan.residencies:
        buffer, space = problem.buffers[r.buffer], problem.spaces[r.space]
        if not buffer.start <= r.start < r.end <= buffer.end or r.space not in buffer.spaces:
            return False
        if r.offset < 0 or r.offset % space.alignment or r.offset + buffer.size > space.capacity:
            return False
        for time in range(r.start, r.end):
            if time < n and r.offset < problem.operations[time].reserved[r.space]:
                return False
            for byte in range(r.offset, r.offset + buffer.size):
                if (r.space, time, byte) in cells:
                    return False
                cells.add((r.space, time, byte))
    kept = set()
    for copy in plan.copies:
        source, destination = plan.residencies[copy.source], plan.residencies[copy.destination]
        buffer = problem.buffers[source.buffer]
        links = [(link.source, link.destination) for link in problem.links]
        if source.buffer != destination.buffer or (source.space, destination.space) not in links:
            return False
        if copy.start == BEFORE:
            kept.add(source.buffer)
            written = any(
                access.buffer == source.buffer and access.kind is not AccessKind.READ
                for operation in problem.operations
                for access in operation.accesses
            )
            at_home = source.start == 0 and source.space == buffer.initial_space
            if copy.done != 0 or destination.start != 0 or not at_home or written:
                return False
            continue
        if not 0 <= copy.start <= copy.done <= n:
            return False
        if _region(problem, copy.start) != _region(problem, copy.done):
            return False
        if not all(source.start <= t < source.end for t in range(copy.start, max(copy.done, copy.start + 1))):
            return False
        if not all(destination.start <= t < destination.end for t in range(copy.start, copy.done + 1)):
            return False
    if len(kept) > problem.cross_program_prefetches:
        return False
    for number, buffer in enumerate(problem.buffers):
        mine = [r for r in plan.residencies if r.buffer == number]
        if buffer.initial_space is not None:
            if len([r for r in mine if r.start == 0 and r.space == buffer.initial_space]) != 1:
                return False
        home = buffer.initial_space if buffer.initial_space is not None else buffer.final_space
        if buffer.persistent and not any((r.space, r.start, r.end) == (home, buffer.start, buffer.end) for r in mine):
            return False
    accesses = [(t, access) for t, operation in enumerate(problem.operations) for access in operation.accesses]
    if len(accesses) != len(plan.served):
        return False
    writes: dict[tuple[int, int], int] = {}
    for (time, access), served in zip(accesses, plan.served, strict=True):
        r = plan.residencies[served]
        if r.buffer != access.buffer or not r.start <= time < r.end:
            return False
        if access.kind is not AccessKind.READ and writes.setdefault((time, access.buffer), served) != served:
            return False
    return True


def _region(problem: MappingProblem, time: int) -> int:
    return problem.operations[time].region if time < problem.end else 0


class _Run:
    """One execution."""

    def __init__(self, problem: MappingProblem, plan: Plan):
        self.problem, self.plan = problem, plan
        self.memory: dict[tuple[int, int], tuple[int, int]] = {}
        self.version = [UNDEFINED] * len(problem.buffers)
        self.versions = itertools.count()
        self.moving: dict[int, int] = {}  # copy to the version that it carries
        self.access_start = [0]
        for operation in problem.operations:
            self.access_start.append(self.access_start[-1] + len(operation.accesses))

    def follow(self, path: list[int]) -> bool:
        """Whether every read, copy and result along a path finds the right version."""
        for number, buffer in enumerate(self.problem.buffers):
            if buffer.initial_space is not None:
                self.version[number] = next(self.versions)
                for residency, r in enumerate(self.plan.residencies):
                    if r.buffer == number and r.start == 0 and r.space == buffer.initial_space:
                        self._fill(residency)
        for copy in self.plan.copies:
            if copy.start == BEFORE:
                self._fill(copy.destination)
        before = -1
        for time in path:
            if not self._moment(before, time):
                return False
            before = time
        return self._results()

    def _moment(self, before: int, time: int) -> bool:
        problem, plan = self.problem, self.plan
        for number, buffer in enumerate(problem.buffers):
            alive = buffer.start <= time < buffer.end
            if not alive or (before >= 0 and not buffer.start <= before < buffer.end and buffer.initial_space is None):
                self.version[number] = UNDEFINED
        for residency, r in enumerate(plan.residencies):
            # What begins to exist holds rubbish, but for what is there when the program starts.
            is_new = r.start <= time < r.end and not r.start <= before < r.end
            if is_new and not (before == -1 and r.start == 0):
                self._spoil(residency)
        for number, copy in enumerate(plan.copies):
            if copy.done == time and copy.start != BEFORE and copy.start < copy.done:
                if not self._arrive(number):
                    return False
        for number in sorted(range(len(plan.copies)), key=lambda i: plan.copies[i].start):
            copy = plan.copies[number]
            if copy.start == time:
                if not self._holds(copy.source):
                    return False
                self.moving[number] = self.version[plan.residencies[copy.source].buffer]
                self._spoil(copy.destination)
                if copy.done == time and not self._arrive(number):
                    return False
        if time == problem.end:
            return True
        accesses = problem.operations[time].accesses
        served = plan.served[self.access_start[time] : self.access_start[time + 1]]
        for access, residency in zip(accesses, served, strict=True):
            if access.kind is not AccessKind.WRITE and not self._holds(residency):
                return False
            if access.kind is not AccessKind.READ:
                self.version[access.buffer] = next(self.versions)
                self._fill(residency)
        return True

    def _arrive(self, number: int) -> bool:
        copy = self.plan.copies[number]
        carried = self.moving.pop(number)
        if carried != self.version[self.plan.residencies[copy.source].buffer]:
            return False
        self._fill(copy.destination)
        return True

    def _cells(self, residency: int) -> list[tuple[int, int]]:
        r = self.plan.residencies[residency]
        return [(r.space, byte) for byte in range(r.offset, r.offset + self.problem.buffers[r.buffer].size)]

    def _fill(self, residency: int) -> None:
        buffer = self.plan.residencies[residency].buffer
        for cell in self._cells(residency):
            self.memory[cell] = (buffer, self.version[buffer])

    def _spoil(self, residency: int) -> None:
        for cell in self._cells(residency):
            self.memory.pop(cell, None)

    def _holds(self, residency: int) -> bool:
        r = self.plan.residencies[residency]
        version = self.version[r.buffer]
        if version == UNDEFINED:
            return True
        return all(self.memory.get(cell) == (r.buffer, version) for cell in self._cells(residency))

    def _results(self) -> bool:
        n = self.problem.end
        for number, buffer in enumerate(self.problem.buffers):
            lasting = [
                r
                for r, described in enumerate(self.plan.residencies)
                if described.buffer == number and described.end == n + 1
            ]
            holding = [r for r in lasting if self._holds(r)]
            if buffer.final_space is not None:
                places = [r for r in holding if self.plan.residencies[r].space == buffer.final_space]
                if buffer.persistent and buffer.initial_space in (None, buffer.final_space):
                    places = [r for r in places if self.plan.residencies[r].start == buffer.start]
                if not places:
                    return False
            for copy in self.plan.copies:
                place = self.plan.residencies[copy.destination]
                if copy.start == BEFORE and place.buffer == number:
                    left = [self.plan.residencies[r] for r in holding]
                    if not any((r.space, r.offset) == (place.space, place.offset) for r in left):
                        return False
        return True
