"""Problems of any size whose fast memory is contended and whose optimum is known, for benchmarks and tests of planners.

One best plan is planted, and a bound that follows from the construction equals its latency. There are two kinds.

`placement_problem` asks what lies in the fast memory, and where. Time passes in panels. In each of them, the rectangle
of time × memory is cut into buffers that fill it without a gap, and buffers are added that compete with them. There is
no link, so a buffer is in one memory for life. What a buffer saves in the fast memory is proportional to size × life at
most, so the area of the rectangle bounds what a panel saves.

    memory ┤▓▓▓▓▓▓▓▓▓▓│░░░░░│▒▒▒▒│       prefetch_problem:
           │▓▓▓▓▓▓▓▓▓▓│░░░░░│▒▒▒▒│
           ├────┬─────┴─────┼────┤       fill │ a b c d e │ a b c d e │ … │ fill │ f g h …
           │▒▒▒▒│▓▓▓▓▓▓▓▓▓▓▓│░░░░│         │  └── cycle ──┘
           └────┴───────────┴────┴─► time  └ lasts as long as a copy of a whole memory

`prefetch_problem` asks what to copy there, and when. Time passes in phases. A phase reads its arguments in the same
order in each of its cycles. A byte that is read comes through the channel of the slow memory, by an access or by a
copy, unless it stayed in the fast memory since the cycle before. From each cycle to the next, at most the capacity
stays. The channel hence moves `cycles · S - (cycles - 1) · capacity` bytes for arguments of `S` bytes, and no plan is
faster than that.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.mapping.plan import Copy, Plan, Residency
from memplan.compiler.mapping.problem import Access, Buffer, Link, MappingProblem, MemorySpace, Operation, Region

CAPACITY, ALIGNMENT = 64 << 20, 512

_SLOW_BANDWIDTH, _FAST_BANDWIDTH = 800e9, 16e12

# Operations of a panel, cycles of a phase, iterations of a loop, and seconds of an operation of computation alone.
_PANEL, _CYCLES, _TRIPS, _WORK = 32, 4, 5, 1e-6


@dataclass(frozen=True)
class ContendedProblem:
    """A problem and its answer.

    Attributes:
      problem: without a mapping of its own.
      optimum: seconds that the fastest plans take.
      plan: one of these.
    """

    problem: MappingProblem
    optimum: float
    plan: Plan


def placement_problem(
    num_operations: int, ratio: int = 4, in_loops: bool = False, seed: int = 0, parts: int = 6
) -> ContendedProblem:
    """Returns a problem of what to put into the fast memory, and where; see above. Equal arguments give equal problems.

    Args:
      num_operations: of the problem; what is too few for one more panel is computation alone.
      ratio: how often the buffers would fill the fast memory at any time, about; at least 1.
      in_loops: whether every second panel is the body of a loop.
      seed: of all random numbers.
      parts: how many buffers share the fast memory at any time, about.

    >>> mapped = placement_problem(1000, ratio=2)
    >>> mapped.problem.end, len(mapped.problem.links)
    (1000, 0)
    """
    _check(ratio, parts)
    writer = _Writer(seed)
    number = 0
    while writer.time + _PANEL + 2 <= num_operations:
        is_loop = in_loops and number % 2 == 0
        if is_loop:
            writer.open_loop()
        writer.panel(ratio, parts)
        if is_loop:
            writer.close_loop()
        number += 1
    return writer.finished(f"placement.{num_operations}.x{ratio}{'.loops' if in_loops else ''}", num_operations, ())


def prefetch_problem(
    num_operations: int, ratio: int = 4, in_loops: bool = False, seed: int = 0, parts: int = 10
) -> ContendedProblem:
    """Returns a problem of what to copy to the fast memory, and when; see above. Equal arguments give equal problems.

    Args:
      num_operations: of the problem; what is too few for one more phase is computation alone.
      ratio: how often the arguments of a phase would fill the fast memory, about; at least 1.
      in_loops: whether the cycles of a phase are the iterations of a loop.
      seed: of all random numbers.
      parts: how many arguments fill the fast memory, about.

    >>> mapped = prefetch_problem(1000, ratio=2)
    >>> mapped.problem.end, len(mapped.problem.links)
    (1000, 2)
    """
    _check(ratio, parts)
    writer = _Writer(seed)
    length = 1 + (ratio * parts + 2 if in_loops else ratio * parts * _CYCLES)
    while writer.time + length <= num_operations:
        writer.phase(_sizes(writer.random, ratio, parts), parts, in_loops)
    links = (Link(0, 1, _SLOW_BANDWIDTH, 0.0, 0, 0), Link(1, 0, _SLOW_BANDWIDTH, 0.0, 1, 0))
    return writer.finished(f"prefetch.{num_operations}.x{ratio}{'.loops' if in_loops else ''}", num_operations, links)


def _check(ratio: int, parts: int) -> None:
    if ratio < 1 or not 1 <= parts <= CAPACITY // ALIGNMENT // 8:
        raise ValueError(f"a ratio of {ratio} and {parts} parts make no problem: both are at least 1, parts not many")


# A rectangle of time × memory: start, end, first byte, last byte.
_Cut = tuple[int, int, int, int]


def _cuts(generator: random.Random, whole: _Cut, largest: int) -> list[_Cut]:
    """Cuts a rectangle by lines through all of it or of a part; no part is higher than twice `largest` bytes."""
    done, waiting = [], [whole]
    while waiting:
        start, end, low, high = waiting.pop()
        units = (high - low) // ALIGNMENT
        is_high, is_long = high - low > 2 * largest, end - start > _PANEL // 2
        if not is_high and not is_long and (end - start < 4 or generator.random() < 0.4):
            done.append((start, end, low, high))
        elif is_high and (not is_long or generator.random() < 0.7) and units >= 4:
            middle = low + ALIGNMENT * generator.randint(units // 4, units - units // 4)
            waiting += [(start, end, low, middle), (start, end, middle, high)]
        else:
            at = generator.randint(start + 2, end - 2)
            waiting += [(start, at, low, high), (at, end, low, high)]
    return done


def _sizes(generator: random.Random, ratio: int, parts: int) -> list[int]:
    """Returns the sizes of a phase's arguments; the first `parts` of them fill the memory exactly."""
    units = CAPACITY // ALIGNMENT
    borders = sorted(generator.sample(range(1, units), parts - 1))
    planted = [(b - a) * ALIGNMENT for a, b in zip([0, *borders], [*borders, units], strict=True)]
    others = [generator.randint(1, 2 * units // parts) * ALIGNMENT for _ in range((ratio - 1) * parts)]
    return planted + others


class _Writer:
    """A problem that is being written, and the plan that is planted in it.

    Attributes:
      random: of all choices.
      opcodes, floors, accesses, region_of: of each operation.
      optimum: seconds of the planted plan, so far.
    """

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.opcodes: list[str] = []
        self.floors: list[float] = []
        self.accesses: list[list[Access]] = []
        self.region_of: list[int] = []
        self.regions = [Region(RegionKind.PROGRAM, 0, 0, -1, 1.0)]
        self.buffers: list[Buffer] = []
        self.in_fast: dict[int, Residency] = {}
        self.copies: list[tuple[int, int]] = []
        self.optimum = 0.0
        self._region = 0

    @property
    def time(self) -> int:
        """Of the next operation."""
        return len(self.opcodes)

    def operation(self, opcode: str, *accesses: Access, floor: float = 0.0) -> None:
        """Adds an operation."""
        self.opcodes.append(opcode)
        self.floors.append(floor)
        self.accesses.append(list(accesses))
        self.region_of.append(self._region)

    def open_loop(self) -> None:
        """Begins the body of a loop."""
        self.operation("point")
        self._region = len(self.regions)
        self.regions.append(Region(RegionKind.LOOP, self.time, self.time, 0, float(_TRIPS)))

    def close_loop(self) -> None:
        """Ends the body of a loop."""
        self.regions[self._region] = replace(self.regions[self._region], end=self.time)
        self._region = 0
        self.operation("point")

    def panel(self, ratio: int, parts: int) -> None:
        """Adds operations that write and read the buffers of a panel."""
        first, runs = self.time, self.regions[self._region].trip_count
        for _ in range(_PANEL):
            self.operation("work")
        whole = (0, _PANEL, 0, CAPACITY)
        cuts = [(cut, k) for k in range(ratio) for cut in _cuts(self.random, whole, CAPACITY // parts)]
        moved = 0
        for (start, end, low, high), layer in sorted(cuts):
            size, weight = high - low, 1.0
            if layer == 0:
                place = Residency(len(self.buffers), 1, low, first + start, first + end)
                self.in_fast[len(self.buffers)] = place
            else:
                size = max(1, int(size * self.random.uniform(0.7, 1.1)) // ALIGNMENT) * ALIGNMENT
                weight = self.random.choice((1.0, self.random.uniform(0.8, 1.0)))
            touched = int(weight * size * (end - start) / 2)
            cost = (touched / _SLOW_BANDWIDTH, touched / _FAST_BANDWIDTH)
            for time, kind in ((first + start, AccessKind.WRITE), (first + end - 1, AccessKind.READ)):
                self.accesses[time].append(Access(len(self.buffers), kind, touched, cost))
            moved += 2 * touched
            self.buffers.append(Buffer(f"block.{len(self.buffers)}", size, first + start, first + end, (0, 1)))
        saved = CAPACITY * _PANEL
        self.optimum += runs * ((moved - saved) / _SLOW_BANDWIDTH + saved / _FAST_BANDWIDTH)

    def phase(self, sizes: Sequence[int], num_planted: int, in_loop: bool) -> None:
        """Adds an operation that hides a copy of a whole memory, and operations that read arguments."""
        first, start = len(self.buffers), self.time
        for size in sizes:
            name = f"argument.{len(self.buffers)}"
            self.buffers.append(Buffer(name, size, 0, 0, (0, 1), initial_space=0, persistent=True))
        self.operation("fill", floor=CAPACITY / _SLOW_BANDWIDTH)
        order = list(range(len(sizes)))
        self.random.shuffle(order)
        if in_loop:
            self.open_loop()
        for _ in range(1 if in_loop else _CYCLES):
            for k in order:
                self.operation("work", Access(first + k, AccessKind.READ, sizes[k], (sizes[k] / _SLOW_BANDWIDTH, 0.0)))
        if in_loop:
            self.close_loop()
        offset = 0
        for k in range(num_planted):
            self.in_fast[first + k] = Residency(first + k, 1, offset, start, self.time - in_loop)
            self.copies.append((first + k, start))
            offset += sizes[k]
        cycles = _TRIPS if in_loop else _CYCLES
        self.optimum += (cycles * sum(sizes) - (cycles - 1) * CAPACITY) / _SLOW_BANDWIDTH

    def finished(self, name: str, num_operations: int, links: tuple[Link, ...]) -> ContendedProblem:
        """Returns the problem, with operations of computation alone after those that were added."""
        while self.time < num_operations:
            self.operation("work", floor=_WORK)
            self.optimum += _WORK
        n = self.time
        self.regions[0] = replace(self.regions[0], end=n)
        buffers = [replace(b, end=n + 1) if b.persistent else b for b in self.buffers]
        problem = MappingProblem(
            name=name,
            target="contended",
            spaces=(
                MemorySpace("slow", sum(buffer.size for buffer in buffers), ALIGNMENT, _SLOW_BANDWIDTH, 0),
                MemorySpace("fast", CAPACITY, ALIGNMENT, _FAST_BANDWIDTH),
            ),
            links=links,
            regions=tuple(self.regions),
            operations=tuple(
                Operation(f"{opcode}.{t}", opcode, floor, 0.0, (0, 0), region, _reads_first(accesses))
                for t, (opcode, floor, accesses, region) in enumerate(
                    zip(self.opcodes, self.floors, self.accesses, self.region_of, strict=True)
                )
            ),
            buffers=tuple(buffers),
        )
        return ContendedProblem(problem, self.optimum, self._plan(problem))

    def _plan(self, problem: MappingProblem) -> Plan:
        residencies: list[Residency] = []
        place_of: dict[int, int] = {}
        homes: dict[int, int] = {}
        offset = 0
        for number, buffer in enumerate(problem.buffers):
            if number not in self.in_fast or buffer.persistent:
                homes[number] = place_of[number] = len(residencies)
                residencies.append(Residency(number, 0, offset, buffer.start, buffer.end))
                offset += buffer.size
            if number in self.in_fast:
                place_of[number] = len(residencies)
                residencies.append(self.in_fast[number])
        copies = [Copy(homes[number], place_of[number], start, start + 1) for number, start in self.copies]
        served = (place_of[access.buffer] for _, access in problem.accesses)
        return problem.answer("planted", residencies, copies, served)


def _reads_first(accesses: Sequence[Access]) -> tuple[Access, ...]:
    return tuple(sorted(accesses, key=lambda access: access.kind is AccessKind.WRITE))
