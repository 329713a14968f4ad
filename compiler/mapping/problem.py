"""The MappingProblem: all that a planner sees of a program and of the hardware.

Time `t` counts operations, `0 … n-1`; `n = len(operations)` is the moment after the last one, when results are read.
Intervals are half-open. Sizes are bytes, times seconds.

    operations   t=0        t=1        t=2            n=3
    buffer a     write ──── read                              live range [0, 2)
    buffer b                write ──── read ───────── result  live range [1, 4)

A buffer here is an alias set: the memory that all its values share. Its operations READ, WRITE or UPDATE (in place) it.

Duration of an operation, given the space that serves each of its accesses:

    max(floor, overhead + sum of access.cost[space])

The memory spaces that share a *channel* with copies (the bus of the slow memory) are busy for
`bytes / bandwidth` of each access that they serve; copies move in the time that is left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from memplan.compiler import limits
from memplan.compiler.analysis.content import NEVER, Contents
from memplan.compiler.analysis.program import AccessKind, RegionKind, repetitions
from memplan.compiler.collection import collection_paused
from memplan.compiler.errors import PlanError
from memplan.compiler.files import read_text, write_atomically
from memplan.compiler.hardware import roofline
from memplan.compiler.mapping.assumptions import Assumption
from memplan.compiler.mapping.documents import document_of, parse_json
from memplan.compiler.mapping.plan import Copy, Plan, Residency
from memplan.compiler.mapping.problem_document import SCHEMA, check_problem_document


@dataclass(frozen=True, slots=True)
class MemorySpace:
    """One memory.

    Attributes:
      name: such as `hbm` or `vmem`.
      capacity: bytes.
      alignment: offsets are multiples of it, bytes.
      bandwidth: between it and the processor, bytes per second.
      channel: index of the bus that its accesses share with copies; -1 where they share none.
    """

    name: str
    capacity: int
    alignment: int
    bandwidth: float
    channel: int = -1


@dataclass(frozen=True, slots=True)
class Link:
    """A way to copy from one space to another.

    Attributes:
      source, destination: indices of spaces.
      bandwidth: bytes per second when nothing else uses the channel.
      latency: seconds before the first byte arrives.
      queue: copies of one queue are served in the order in which they start.
      channel: queues that move at once on one channel share its bandwidth evenly.
    """

    source: int
    destination: int
    bandwidth: float
    latency: float
    queue: int
    channel: int


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the schedule that runs `trip_count` times each time that its parent runs.

    Attributes:
      kind: program, loop, branch or call. Branches of one conditional have the same `group`; one of them is taken.
      start, end: half-open times.
      parent: index of the region around it; -1 for region 0, the program.
      trip_count: iterations of a loop; probability of a branch.
      group: number of the conditional for a branch; -1 otherwise.
    """

    kind: RegionKind
    start: int
    end: int
    parent: int
    trip_count: float
    group: int = -1


@dataclass(frozen=True, slots=True)
class Access:
    """What an operation does to a buffer.

    Attributes:
      buffer: index.
      kind: READ, WRITE or UPDATE.
      bytes: moved between the space and the processor.
      cost: seconds that this adds to the operation, for each space, `[num_spaces]`.
    """

    buffer: int
    kind: AccessKind
    bytes: int
    cost: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One instruction that takes time or touches memory.

    Attributes:
      name: of the instruction.
      opcode: of the instruction.
      floor: seconds that it takes at least, however fast its memory is.
      overhead: seconds to which the costs of its accesses are added.
      reserved: bytes `[0, reserved[s])` of each space that it keeps for itself while it runs, `[num_spaces]`.
      region: index of the innermost region around it.
      accesses: reads and updates first, then writes.
    """

    name: str
    opcode: str
    floor: float
    overhead: float
    reserved: tuple[int, ...]
    region: int
    accesses: tuple[Access, ...]

    def duration(self, spaces: Sequence[int]) -> float:
        """Seconds that it takes when access `i` is served by space `spaces[i]`."""
        cost = self.overhead
        for access, space in zip(self.accesses, spaces, strict=True):
            cost += access.cost[space]
        return roofline.duration(self.floor, cost)


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory for the values of one alias set.

    Attributes:
      name: of its first value.
      size: bytes.
      start, end: half-open live range; `end` is `n + 1` for what the program leaves behind.
      spaces: where it may lie, indices, the slow memory first.
      initial_space: where it lies when the program starts (arguments, constants); None for what the program writes.
      final_space: where it must lie when the program ends (results); None for what is not a result.
      persistent: whether one residency in its `home` must last over its whole live range, because the caller knows its
        address: arguments that are not donated, constants, results that reuse an argument. An argument that is returned
        in another space is there as well when the program ends.
      values: names of all values in it.
    """

    name: str
    size: int
    start: int
    end: int
    spaces: tuple[int, ...]
    initial_space: int | None = None
    final_space: int | None = None
    persistent: bool = False
    values: tuple[str, ...] = ()

    @property
    def home(self) -> int:
        """The space where the program wants it: where an argument starts, a result ends, and else the first allowed."""
        if self.initial_space is not None:
            return self.initial_space
        return self.final_space if self.final_space is not None else self.spaces[0]

    @property
    def ends_at_home(self) -> bool:
        """Whether it is a result at the very place that the caller knows."""
        return self.persistent and self.final_space == self.home


@dataclass(frozen=True, slots=True)
class Fault:
    """Why no plan can answer a problem: a buffer is read where it holds nothing.

    Attributes:
      buffer: index.
      time: of the operation that reads it; `n` for a result that nothing writes.
      message: with names.
    """

    buffer: int
    time: int
    message: str


@dataclass(frozen=True)
class MappingProblem:
    """Where may every buffer lie, and what does it cost?

    Attributes:
      name: of the program.
      target: name of the hardware.
      spaces: memories, space 0 the slow one in which everything fits.
      links: ways to copy.
      regions: region 0 is the program; parents stand before children.
      operations: in order of execution.
      buffers: in order of their start.
      given: the mapping that the dump itself carries, if it carries one. Its offsets are -1: not stated.
      clock: cycles per second, to print cycles; 0 where the target has none.
      cross_program_prefetches: how many arguments may be in a fast memory when the program starts, because its
        previous run left them there (see `plan.Copy`).
      assumptions: loops whose trip counts the program does not say, and what is taken in their place.
      notes: what its sizes and costs leave out, one sentence each.
    """

    name: str
    target: str
    spaces: tuple[MemorySpace, ...]
    links: tuple[Link, ...]
    regions: tuple[Region, ...]
    operations: tuple[Operation, ...]
    buffers: tuple[Buffer, ...]
    given: Plan | None = field(default=None, compare=False)
    clock: float = 0.0
    cross_program_prefetches: int = 0
    assumptions: tuple[Assumption, ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def has_given_places(self) -> bool:
        """Whether the program's compiler put something into another memory than the first in which it may be."""
        return self.given is not None and any(
            residency.space != self.buffers[residency.buffer].spaces[0] for residency in self.given.residencies
        )

    def with_given(self, given: Plan | None) -> MappingProblem:
        """Returns the problem with another `given`; it keeps what is cached here, none of which depends on `given`."""
        problem = replace(self, given=given)
        vars(problem).update(vars(self) | vars(problem))
        return problem

    def answer(
        self,
        planner: str,
        residencies: Iterable[Residency],
        copies: Iterable[Copy],
        served: Iterable[int],
        info: dict[str, Any] | None = None,
    ) -> Plan:
        """Returns the plan of this problem that is made of these parts; see `Plan`."""
        parts = (tuple(residencies), tuple(copies), tuple(served))
        return Plan(self.fingerprint, self.name, self.target, planner, *parts, info or {})

    @property
    def end(self) -> int:
        """The time `n` after the last operation."""
        return len(self.operations)

    def runs_at(self, time: int) -> float:
        """Returns how often a time occurs in one run of the program, by the trip counts and probabilities around it."""
        return self.repetitions[self.operations[time].region] if time < self.end else 1.0

    @cached_property
    def access_start(self) -> tuple[int, ...]:
        """`[n + 1]`: number of the first access of each operation; accesses are numbered through all operations."""
        starts = [0]
        for operation in self.operations:
            starts.append(starts[-1] + len(operation.accesses))
        return tuple(starts)

    @cached_property
    def accesses(self) -> tuple[tuple[int, Access], ...]:
        """`(time, access)` of all accesses, in their numbering."""
        return tuple((t, access) for t, operation in enumerate(self.operations) for access in operation.accesses)

    @cached_property
    def accesses_of(self) -> tuple[tuple[int, ...], ...]:
        """Per buffer, the numbers of its accesses, in order of time."""
        numbers: list[list[int]] = [[] for _ in self.buffers]
        for number, (_, access) in enumerate(self.accesses):
            numbers[access.buffer].append(number)
        return tuple(map(tuple, numbers))

    @cached_property
    def repetitions(self) -> tuple[float, ...]:
        """Per region, how often it runs in one run of the program: the product of the trip counts around it."""
        return repetitions(self.regions)

    @cached_property
    def link_between(self) -> dict[tuple[int, int], int]:
        """`(source, destination)` to the number of the link."""
        return {(link.source, link.destination): i for i, link in enumerate(self.links)}

    @cached_property
    def faults(self) -> tuple[Fault, ...]:
        """Reads, and results, that may be of what nothing has written; at most one a buffer."""
        groups = [region.group for region in self.regions]
        contents = Contents(self.regions, groups, [operation.region for operation in self.operations])
        found = []
        for number, buffer in enumerate(self.buffers):
            accesses = [(self.accesses[i][0], self.accesses[i][1].kind) for i in self.accesses_of[number]]
            accesses.sort(key=lambda access: (access[0], access[1] is AccessKind.WRITE))
            live = (buffer.start, buffer.end)
            unwritten, is_left = contents.follow(accesses, live, buffer.initial_space is not None)
            if unwritten != NEVER:
                reader = f"{self.operations[unwritten].name} (t={unwritten})"
                what = f"{reader} reads {buffer.name}, which nothing has written on some way to it"
                found.append(Fault(number, unwritten, what))
            elif buffer.final_space is not None and not (is_left and buffer.end > self.end):
                what = f"{buffer.name} is a result, but nothing that was written to it is left at the end"
                found.append(Fault(number, self.end, what))
        return tuple(found)

    def check(self, file: str = "") -> None:
        """Raises PlanError, with the names of operation and buffer, if the problem, read from `file`, has faults."""
        if self.faults:
            more = f" (and {len(self.faults) - 1:,} more faults like this)" if len(self.faults) > 1 else ""
            raise PlanError(f"{file and file + ': '}{self.name}: {self.faults[0].message}{more}")

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of all but `given`, `assumptions` and `notes`: a plan belongs to exactly one problem."""
        return hashlib.sha256(json.dumps(_to_dict(self, with_given=False)).encode()).hexdigest()

    @collection_paused()
    def to_json(self) -> str:
        """Returns the problem as JSON; `from_json` reads it back exactly."""
        return json.dumps(_to_dict(self, with_given=True))

    @staticmethod
    @collection_paused()
    def from_json(text: str, file: str = "<string>") -> MappingProblem:
        """Reads what `to_json` wrote; raises PlanError, naming the place, if it is malformed or has faults."""
        data = document_of(parse_json(text, file), "mapping problem", SCHEMA, file)
        check_problem_document(data, file)
        given = Plan.from_dict(data["given"], f"{file}: given") if data["given"] is not None else None
        problem = MappingProblem(
            name=data["name"],
            target=data["target"],
            spaces=tuple(MemorySpace(*row) for row in data["spaces"]),
            links=tuple(Link(*row) for row in data["links"]),
            regions=tuple(Region(RegionKind(kind), *row) for kind, *row in data["regions"]),
            operations=tuple(
                Operation(
                    name, opcode, floor, overhead, tuple(reserved), region,
                    tuple(Access(b, AccessKind(kind), size, tuple(cost)) for b, kind, size, cost in accesses),
                )
                for name, opcode, floor, overhead, reserved, region, accesses in data["operations"]
            ),
            buffers=tuple(
                Buffer(name, size, start, end, tuple(spaces), initial, final, persistent, tuple(values))
                for name, size, start, end, spaces, initial, final, persistent, values in data["buffers"]
            ),
            clock=data["clock"],
            cross_program_prefetches=data["cross_program_prefetches"],
            assumptions=tuple(Assumption(*row) for row in data.get("assumptions", ())),
            notes=tuple(data.get("notes", ())),
        )  # fmt: skip
        if given is not None:
            given.check_indices(len(problem.buffers), len(problem.spaces), len(problem.accesses), f"{file}: given")
            problem = problem.with_given(given)
        problem.check(file)
        return problem

    def save(self, path: str | Path) -> None:
        """Writes the problem to a file, whole or not at all."""
        write_atomically(path, self.to_json())

    @staticmethod
    def load(path: str | Path) -> MappingProblem:
        """Reads a file that `save` wrote."""
        return MappingProblem.from_json(read_text(path, limits.PROBLEM), str(path))


def _to_dict(problem: MappingProblem, with_given: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "name": problem.name,
        "target": problem.target,
        "clock": problem.clock,
        "cross_program_prefetches": problem.cross_program_prefetches,
        "spaces": [[s.name, s.capacity, s.alignment, s.bandwidth, s.channel] for s in problem.spaces],
        "links": [[x.source, x.destination, x.bandwidth, x.latency, x.queue, x.channel] for x in problem.links],
        "regions": [[r.kind.value, r.start, r.end, r.parent, r.trip_count, r.group] for r in problem.regions],
        "operations": [
            [
                o.name, o.opcode, o.floor, o.overhead, o.reserved, o.region,
                [[a.buffer, a.kind.value, a.bytes, a.cost] for a in o.accesses],
            ]
            for o in problem.operations
        ],
        "buffers": [
            [b.name, b.size, b.start, b.end, b.spaces, b.initial_space, b.final_space, b.persistent, b.values]
            for b in problem.buffers
        ],
    }  # fmt: skip
    if with_given:
        if problem.notes:
            data["notes"] = problem.notes
        data["given"] = problem.given.to_dict() if problem.given is not None else None
        data["assumptions"] = [[a.loop, a.trip_count, a.reason] for a in problem.assumptions]
    return data
