"""Random MappingProblems that make sense as programs: nested loops and conditionals, arguments, results, in-place updates.

`random_problem(pick, …)` asks `pick(low, high)` for every choice, both ends included, so that one generator serves
hypothesis (which shrinks what it picks) and seeded random numbers alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.mapping.problem import Access, Buffer, Link, MappingProblem, MemorySpace, Operation, Region

Pick = Callable[[int, int], int]

READ, WRITE, UPDATE = AccessKind.READ, AccessKind.WRITE, AccessKind.UPDATE


@dataclass(frozen=True)
class Scale:
    """How large the numbers of a problem are.

    Attributes:
      capacity: bytes of the fast memory.
      alignment: bytes, of both memories.
      largest: bytes of the largest buffer, in units of `unit`.
      unit: bytes.
      slow_bandwidth, fast_bandwidth: bytes per second.
      max_floor: seconds, of the longest operation that is bound by compute.
    """

    capacity: int
    alignment: int
    largest: int
    unit: int
    slow_bandwidth: float
    fast_bandwidth: float
    max_floor: float


TINY = Scale(capacity=16, alignment=2, largest=6, unit=1, slow_bandwidth=1.0, fast_bandwidth=4.0, max_floor=12.0)
REAL = Scale(
    capacity=16 << 20, alignment=1024, largest=4096, unit=1024, slow_bandwidth=8e11, fast_bandwidth=8e12, max_floor=8e-6
)


@dataclass
class _Draft:
    """A buffer while its program is being written."""

    size: int
    initial: bool = False
    donated: bool = False
    final: bool = False
    times: list[int] = field(default_factory=list)
    writable: bool = True


@dataclass
class _Program:
    pick: Pick
    scale: Scale
    operations: list[tuple[str, int, list[tuple[int, AccessKind]]]] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    buffers: list[_Draft] = field(default_factory=list)

    def buffer(self, **what: bool) -> int:
        self.buffers.append(_Draft(self.scale.unit * self.pick(1, self.scale.largest), **what))
        return len(self.buffers) - 1

    def operation(self, opcode: str, region: int, accesses: list[tuple[int, AccessKind]]) -> None:
        for buffer, _ in accesses:
            self.buffers[buffer].times.append(len(self.operations))
        order = {READ: 0, UPDATE: 1, WRITE: 2}
        self.operations.append((opcode, region, sorted(accesses, key=lambda access: order[access[1]])))

    def chosen(self, available: list[int]) -> int:
        """Picks a buffer, rather a recent one."""
        near = available[-6:] if self.pick(0, 3) else available[-60:] if self.pick(0, 7) else available
        return near[self.pick(0, len(near) - 1)]

    def block(self, region: int, length: int, available: list[int], depth: int) -> list[int]:
        """Writes `length` operations, or loops and conditionals of them; returns the buffers available at its end."""
        available = list(available)  # oldest first
        while length > 0:
            kind = self.pick(0, 19)
            writable = [b for b in available[-40:] if self.buffers[b].writable]
            if kind == 0 and depth > 0 and length >= 3:
                inner = self.pick(2, min(length, 12))
                self.loop(region, inner, available, depth)
                length -= inner
            elif kind == 1 and depth > 0 and length >= 4:
                inner = self.pick(1, min(length // 2, 6))
                available.append(self.conditional(region, inner, available, depth))
                length -= 2 * inner
            elif kind in (2, 3) and writable:
                target = self.chosen(writable)
                reads = [(self.chosen(available), READ)] if self.pick(0, 1) else []
                self.operation("update", region, [*reads, (target, UPDATE)])
                length -= 1
            elif kind == 4 and writable:
                self.operation("overwrite", region, [(self.chosen(writable), WRITE)])
                length -= 1
            else:
                reads = list(dict.fromkeys(self.chosen(available) for _ in range(self.pick(0, 3)))) if available else []
                result = self.buffer()
                self.operation("compute", region, [*((b, READ) for b in reads), (result, WRITE)])
                available.append(result)
                length -= 1
        return available

    def loop(self, region: int, length: int, available: list[int], depth: int) -> None:
        self.operation("enter", region, [])
        number = len(self.regions)
        start = len(self.operations)
        self.regions.append(Region(RegionKind.LOOP, start, start, region, float(self.pick(1, 9))))
        inside = self.block(number, length, available, depth - 1)
        carried = [b for b in available if self.buffers[b].writable]
        if carried and self.pick(0, 1):
            self.operation("carry", number, [(self.chosen(inside), READ), (self.chosen(carried), WRITE)])
        elif self.operations[-1][1] != number:
            self.operation("end", number, [])
        self.close(number)
        for draft in self.buffers:
            if draft.times and start <= draft.times[-1] and (draft.initial or draft.times[0] < start):
                draft.times.append(len(self.operations) - 1)
        self.operation("loop", region, [])

    def conditional(self, region: int, length: int, available: list[int], depth: int) -> int:
        self.operation("enter", region, [])
        result = self.buffer()
        group = len(self.operations)
        for _ in range(2):
            number = len(self.regions)
            start = len(self.operations)
            self.regions.append(Region(RegionKind.BRANCH, start, start, region, 0.5, group))
            inside = self.block(number, length, available, depth - 1) if self.pick(0, 3) else available
            reads = [(self.chosen(inside), READ)] if inside else []
            self.operation("branch", number, [*reads, (result, WRITE)])
            self.close(number)
        self.operation("conditional", region, [])
        return result

    def close(self, number: int) -> None:
        region = self.regions[number]
        end = len(self.operations)
        self.regions[number] = Region(region.kind, region.start, end, region.parent, region.trip_count, region.group)


def random_problem(pick: Pick, length: int, scale: Scale = REAL, depth: int = 2) -> MappingProblem:
    """Returns a problem of about `length` operations.

    Args:
      pick: returns a number between two, both included.
      length: how many operations, but for those that mark loops and conditionals.
      scale: of sizes and times.
      depth: how deep loops and conditionals nest.
    """
    program = _Program(pick, scale)
    program.regions.append(Region(RegionKind.PROGRAM, 0, 0, -1, 1.0))
    arguments = []
    for _ in range(pick(1, max(1, min(40, length // 3)))):
        donated = pick(0, 3) == 0
        arguments.append(program.buffer(initial=True, donated=donated, writable=donated))
    available = program.block(0, length, arguments, depth)
    results = {program.chosen(available) for _ in range(pick(1, 3))}
    for number in results:
        draft = program.buffers[number]
        if not draft.initial or draft.donated:
            draft.final = True
    program.close(0)
    return _finish(program, pick, scale)


def _finish(program: _Program, pick: Pick, scale: Scale) -> MappingProblem:
    n = len(program.operations)
    operations = []
    order, number_of = [], {}
    for number, draft in enumerate(program.buffers):
        if draft.initial or draft.times:
            order.append(number)
    order.sort(key=lambda number: 0 if program.buffers[number].initial else program.buffers[number].times[0])
    for new, old in enumerate(order):
        number_of[old] = new
    for t, (opcode, region, raw) in enumerate(program.operations):
        accesses = []
        for buffer, kind in raw:
            size = program.buffers[buffer].size
            touched = max(1, size // 4) if kind is UPDATE else size
            cost = (touched / scale.slow_bandwidth, touched / scale.fast_bandwidth)
            accesses.append(Access(number_of[buffer], kind, touched, cost))
        floor = scale.max_floor * pick(1, 8) / 8 if pick(0, 1) else 0.0
        reserved = scale.alignment * pick(0, scale.capacity // scale.alignment // 8) if pick(0, 2) == 0 else 0
        is_idle = not raw
        operations.append(
            Operation(
                name=f"{opcode}.{t}",
                opcode=opcode,
                floor=0.0 if is_idle else floor,
                overhead=0.0,
                reserved=(0, 0 if is_idle else reserved),
                region=region,
                accesses=tuple(accesses),
            )
        )
    buffers = []
    for new, old in enumerate(order):
        draft = program.buffers[old]
        stays = draft.initial and not draft.donated
        buffers.append(
            Buffer(
                name=f"{'arg' if draft.initial else 'tmp'}.{new}",
                size=draft.size,
                start=0 if draft.initial else draft.times[0],
                end=n + 1 if stays or draft.final else (draft.times[-1] + 1 if draft.times else 1),
                spaces=(0, 1) if draft.size <= scale.capacity else (0,),
                initial_space=0 if draft.initial else None,
                final_space=0 if draft.final else None,
                persistent=draft.initial and (stays or draft.final),
            )
        )
    total = sum(buffer.size + scale.alignment for buffer in buffers)
    bandwidth = scale.slow_bandwidth
    return MappingProblem(
        name="random",
        target="random",
        spaces=(
            MemorySpace("slow", 2 * total, scale.alignment, bandwidth, 0),
            MemorySpace("fast", scale.capacity, scale.alignment, scale.fast_bandwidth),
        ),
        links=(Link(0, 1, bandwidth, 0.0, 0, 0), Link(1, 0, bandwidth, 0.0, 1, 0)),
        regions=tuple(program.regions),
        operations=tuple(operations),
        buffers=tuple(buffers),
        clock=1e9,
        cross_program_prefetches=pick(0, 1),
    )


def seeded_problem(seed: int, length: int, scale: Scale = REAL, depth: int = 2) -> MappingProblem:
    """Returns the problem of a seed."""
    return random_problem(random.Random(seed).randint, length, scale, depth)


def with_home_in_fast(problem: MappingProblem, buffer: int) -> MappingProblem:
    """Returns a problem in which an argument of two bytes lives in the fast memory, which has room for it."""
    buffers = list(problem.buffers)
    buffers[buffer] = replace(buffers[buffer], size=2, initial_space=1, final_space=None)
    slow, fast = problem.spaces
    return replace(problem, buffers=tuple(buffers), spaces=(slow, replace(fast, capacity=fast.capacity + 2)))


def with_ends_anywhere(problem: MappingProblem, pick: Pick) -> MappingProblem:
    """Returns a problem whose arguments start, and whose results end, in either memory, whether or not they fit there.

    An argument that stays where it is may be a result in the other memory too.
    """
    buffers = []
    for buffer in problem.buffers:
        initial, final = buffer.initial_space, buffer.final_space
        if initial is not None:
            initial = pick(0, 1)
        if final is not None or (buffer.persistent and pick(0, 3) == 0):
            final = pick(0, 1)
        if buffer.persistent and buffer.final_space is not None:  # a result in the memory of the argument
            final = initial if initial is not None else final
        spaces = tuple(sorted({*buffer.spaces, *(space for space in (initial, final) if space is not None)}))
        buffers.append(replace(buffer, initial_space=initial, final_space=final, spaces=spaces))
    slow, fast = problem.spaces
    fast = replace(fast, capacity=fast.capacity + fast.alignment * pick(0, 16))
    return replace(problem, buffers=tuple(buffers), spaces=(slow, fast))


@st.composite
def problems(draw: st.DrawFn, max_length: int = 14, scale: Scale = TINY, depth: int = 2) -> MappingProblem:
    """Strategy of problems that hypothesis can shrink."""
    length = draw(st.integers(1, max_length))
    return random_problem(lambda low, high: draw(st.integers(low, high)), length, scale, depth)
