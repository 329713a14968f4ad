"""The peak of each memory: when it is, what stands there, and what would lower it.

    Graph ─► flatten ─► Occupancy ─► peak ─► standing buffers ─► groups ─► Relief, Donation, order   (relief.py)
                                      └────► beside what a compiler states                           (stated.py)

The bytes of the groups, and those that the operation at the peak keeps for itself, add up to the peak exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.occupancy import Integers, Occupancy
from memplan.compiler.analysis.program import FlatProgram
from memplan.compiler.collection import collection_paused
from memplan.compiler.hardware.target import Target, TargetSpace
from memplan.compiler.html import html_table
from memplan.compiler.ir import Graph, Source
from memplan.compiler.mapping.build import BuiltProblem, build
from memplan.compiler.mapping.memories import in_memories_of
from memplan.compiler.printable import from_here
from memplan.compiler.report.buffers import BufferDescription, GroupBy, Sources, describe_storages, labels_of
from memplan.compiler.report.relief import (
    Donation,
    Relief,
    Reliefs,
    donations,
    needed_if_donated,
    order_peak,
    results_to_come,
)
from memplan.compiler.report.relief_tables import relief_columns, relief_rows
from memplan.compiler.report.standing import MemoryPeak, StandingBuffer, groups_of
from memplan.compiler.report.stated import MemoryStatement
from memplan.compiler.report.units import print_bytes

# Groups for which it is found out what being rid of them would be worth.
MOST_RELIEFS = 8


@dataclass(frozen=True)
class Peak:
    """The peaks of a program, and what would lower that of the main memory.

    Attributes:
      program: name of the module.
      target: name of the hardware.
      by: what the groups have in common.
      num_steps: of the program.
      memories: the main memory first.
      reliefs: of its largest groups, in their order.
      donations: arguments whose memory results could take, the largest first, and the names of these arguments.
      donated: bytes that the program would need in the main memory with all of them.
      reordered: its peak in the order of least memory that was found; None if another memory overflows then.
      statement: what a compiler states; None if none did.
      limit: bytes that there are; None if nothing says so.
      notes: what sizes and times leave out.
    """

    program: str
    target: str
    by: GroupBy
    num_steps: int
    memories: tuple[MemoryPeak, ...]
    reliefs: tuple[Relief, ...]
    donations: tuple[tuple[str, Donation], ...]
    donated: int
    reordered: int | None
    statement: MemoryStatement | None
    limit: int | None
    notes: tuple[str, ...]

    @property
    def main(self) -> MemoryPeak:
        """The memory in which everything is that is nowhere else."""
        return self.memories[0]

    @property
    def needed(self) -> int:
        """Bytes of the main memory: as the compiler states them, else our peak and what results are to come."""
        return self.main.bytes + self.main.to_come if self.statement is None else self.statement.total

    @property
    def fits(self) -> bool:
        """Whether that is within the limit."""
        return self.limit is None or self.needed <= self.limit

    def _repr_html_(self) -> str:
        columns = {"memory": "left", "peak": "right", "of": "right", "at": "left", "line": "left"}
        rows = []
        for memory in self.memories:
            capacity = self.limit if memory is self.main else memory.capacity
            of = "" if capacity is None else print_bytes(capacity)
            rows.append([memory.name, print_bytes(memory.bytes), of, memory.operation, from_here(memory.source.place)])
        remarks = list(self.notes)
        if self.statement is not None:
            remarks.append(f"{self.statement.by} states {print_bytes(self.statement.total)}.")
        if self.limit is not None:
            verdict = "it fits" if self.fits else f"it does not fit, by {print_bytes(self.needed - self.limit)}"
            remarks.append(f"The program needs {print_bytes(self.needed)} of {print_bytes(self.limit)}: {verdict}.")
        tables = [html_table(f"{self.program} on {self.target}", columns, rows, remarks), self.main._repr_html_()]
        if self.reliefs:
            main = self.main
            columns = relief_columns(self.reliefs, main.bytes)
            rows = relief_rows(self.reliefs, main.groups, main.bytes)
            tables.append(html_table("what would lower it", columns, [[from_here(row[0]), *row[1:]] for row in rows]))
        return "\n".join(tables)


@collection_paused()
def find_peak(
    graph: Graph,
    target: Target,
    *,
    by: GroupBy = GroupBy.LAYER,
    limit: int | None = None,
    statement: MemoryStatement | None = None,
    pointer_bytes: int = 0,
) -> Peak:
    """Returns the peak of each memory of a program.

    Args:
      graph: the program, in the order of its instructions.
      target: says which memories there are, and what operations and copies take.
      by: how what stands at the peaks is grouped.
      limit: bytes of the main memory.
      statement: what a compiler states about the same module.
      pointer_bytes: see `flatten`; 8 for a module that XLA compiled for a CPU.

    Raises:
      GraphError: the Graph breaks a rule of the IR, or a value has a dimension of unknown size.
      PlanError: the program reads what nothing has written.
    """
    built = build(graph, target)
    program = in_memories_of(target, flatten(graph, pointer_bytes)) if pointer_bytes else built.program
    occupancy, spaces = occupancy_of(built, target, program)
    home = target.number_of(target.home)
    buffer_of = None if pointer_bytes else built.buffer_of_storage
    described = describe_storages(program, buffer_of)
    labels = labels_of(described, by)
    # The main memory first, then those that the target models, then flags and the like.
    numbers = sorted(
        {home, *occupancy.memory_spaces}, key=lambda number: (number != home, number not in spaces, number)
    )
    memories = []
    for number in numbers:
        name, capacity = f"S({number})", None
        if number in spaces:
            name, capacity = spaces[number].name, spaces[number].capacity
        memories.append(_memory_peak(occupancy, number, name, capacity, described, labels))
    main = memories[0]
    found = donations(program, described, home)
    reliefs = Reliefs(occupancy, home, main.time, _seconds(built), target, found, buffer_of)

    def capacity_of(number: int) -> int:
        return spaces[number].capacity if number in spaces else 0

    return Peak(
        program=graph.name,
        target=target.name,
        by=by,
        num_steps=len(program.steps),
        memories=tuple(memories),
        reliefs=tuple(
            reliefs.of(group.label, group.bytes, [buffer.storage for buffer in group.buffers])
            for group in main.groups[:MOST_RELIEFS]
            if group.bytes
        ),
        donations=tuple((described[d.argument].op_name or described[d.argument].name, d) for d in found),
        donated=needed_if_donated(occupancy, home, found),
        reordered=order_peak(program, target, capacity_of, pointer_bytes),
        statement=None if statement is None else statement.beside(occupancy, main.time),
        limit=limit,
        notes=built.problem.notes,
    )


def occupancy_of(built: BuiltProblem, target: Target, program: FlatProgram) -> tuple[Occupancy, dict[int, TargetSpace]]:
    """Returns the bytes in use over time, those that operations keep for themselves included, and the memories.

    Args:
      built: of a Graph.
      target: that it was built for.
      program: the flattened Graph, `built.program` or with other tables of tuples.

    Returns:
      The occupancy, and from numbers (`Target.number_of`) to the memories that the target models.
    """
    spaces = target.for_program({storage.memory_space for storage in program.storages}).spaces
    numbers = {target.number_of(n): n for n in range(len(spaces))}
    reserved = {number: _reserved(built, n) for number, n in numbers.items()}
    occupancy = Occupancy(program, {number: bytes_ for number, bytes_ in reserved.items() if bytes_.any()})
    return occupancy, {number: spaces[n] for number, n in numbers.items()}


def _memory_peak(
    occupancy: Occupancy,
    number: int,
    name: str,
    capacity: int | None,
    described: Sequence[BufferDescription],
    labels: Sequence[str],
) -> MemoryPeak:
    program = occupancy.program
    live = occupancy.live(number)
    time = int(np.argmax(live))
    standing = occupancy.standing(number, time)
    buffers = [StandingBuffer(storage, size, described[storage]) for storage, size in standing]
    operation, source = "the end", Source()
    if time < len(program.steps):
        step = program.steps[time]
        operation = step.instruction.name
        source = Sources(program.graph).of(program.graph.computations[step.computation], step.index)
    return MemoryPeak(
        name=name,
        number=number,
        capacity=capacity,
        bytes=int(live[time]),
        time=time,
        num_steps=len(program.steps),
        operation=operation,
        source=source,
        reserved=int(occupancy.reserved[number][time]) if number in occupancy.reserved else 0,
        groups=groups_of(buffers, [labels[storage] for storage, _ in standing]),
        to_come=results_to_come(program, number, time),
    )


def _reserved(built: BuiltProblem, space: int) -> Integers:
    """Returns the bytes that steps keep for themselves in a space, `[num_steps + 1]`."""
    reserved = np.zeros(len(built.program.steps) + 1, np.int64)
    for number, step in enumerate(built.times.steps):
        if step >= 0:
            reserved[step] = max(reserved[step], built.problem.operations[number].reserved[space])
    return reserved


def _seconds(built: BuiltProblem) -> list[float]:
    """Returns what each step takes, `[num_steps]`, with every access served from where the program has it."""
    problem = built.problem
    seconds = [0.0] * len(built.program.steps)
    for number, step in enumerate(built.times.steps):
        if step < 0:
            continue
        operation = problem.operations[number]
        first = problem.access_start[number]
        if problem.given is None:
            spaces = [problem.buffers[access.buffer].home for access in operation.accesses]
        else:
            served = problem.given.served[first : first + len(operation.accesses)]
            spaces = [problem.given.residencies[residency].space for residency in served]
        seconds[step] += operation.duration(spaces)
    return seconds
