"""From a Graph and a target to the MappingProblem that planners see.

What costs nothing and touches no memory (tuples, bitcasts, parameters) is left out of time. The copies with which a
compiler moved values between memories are taken out too, and kept as the mapping `given`: the problem is the program as
it was before it was mapped. Around every loop and conditional stand two points at which a copy can be issued or awaited
outside of it, and, unless its last step is an operation, one at its end:

    NAME.enter | body … NAME.end | NAME        (operations without cost, NAME the while or conditional)

Copies that the program needs and does not state (`ImplicitCopy`) are operations of their own: `NAME.copy` fills the
place of NAME before a loop, at the end of its body or of a branch, and the results at the end of the program. They cost
what `copy` instructions cost.

Memories that a target has for programs that use them, such as the host's, are in the problem of a program with values
there. Copies to and from them are not taken out: the program itself asks for them, so they are operations.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.program import AccessKind, FlatProgram
from memplan.compiler.collection import collection_paused
from memplan.compiler.hardware.calibration import InstructionCosts, Touched
from memplan.compiler.hardware.target import Target
from memplan.compiler.hardware.uncosted import uncosted
from memplan.compiler.ir import Graph
from memplan.compiler.ir.partitions import partition_note
from memplan.compiler.ir.sizes import check_sizes
from memplan.compiler.mapping.assumptions import assumptions_of
from memplan.compiler.mapping.disjoint_sets import DisjointSets
from memplan.compiler.mapping.given import given_plan
from memplan.compiler.mapping.given_copies import AccessIndex, GivenCopy, find_given_copies
from memplan.compiler.mapping.memories import in_memories_of, written_storages
from memplan.compiler.mapping.problem import Access, Buffer, Link, MappingProblem, MemorySpace, Operation
from memplan.compiler.mapping.times import OperationTimes, operation_times

# Arguments and constants are in memory before the first operation.
_BEFORE_TIME = frozenset({"parameter", "constant"})


@dataclass(frozen=True)
class BuiltProblem:
    """A MappingProblem and how its parts correspond to the program.

    Attributes:
      problem: what planners see.
      program: the flattened Graph that it was made from.
      times: which steps are operations.
      buffer_of_storage: `[num_storages]` buffer of each storage; -1 for storages in memories that the target does not
        model, and for empty ones.
      given_copies: copies between memories that the dump carried and that `problem.given` states.
    """

    problem: MappingProblem
    program: FlatProgram
    times: OperationTimes
    buffer_of_storage: tuple[int, ...]
    given_copies: tuple[GivenCopy, ...]


def build_problem(graph: Graph, target: Target) -> MappingProblem:
    """Returns the problem of mapping a program's buffers to a target's memories; see `build`."""
    return build(graph, target).problem


@collection_paused()
def build(graph: Graph, target: Target) -> BuiltProblem:
    """Flattens a Graph, takes out the copies that it carries, costs every step, and states what is to be decided.

    Raises:
      GraphError: the Graph breaks a rule of the IR, or a value has a dimension of unknown size.
      PlanError: the program reads what nothing has written, see `MappingProblem.faults`.
    """
    check_sizes(graph)
    program = in_memories_of(target, flatten(graph))
    always = len(target.spaces)
    target = target.for_program({storage.memory_space for storage in program.storages})
    accesses = AccessIndex(program)
    written = written_storages(program)
    space_of = [target.space_of_xla(storage.memory_space) if storage.size > 0 else -1 for storage in program.storages]
    given_copies = [
        given_copy
        for given_copy in find_given_copies(program, accesses)
        if all(0 <= space_of[storage] < always for storage in (given_copy.source, *given_copy.destinations))
    ]
    timed = _timed_steps(program, accesses, space_of, given_copies)
    copying = {
        step
        for step, numbers in accesses.of_copies.items()
        if any(space_of[program.accesses[number].storage] >= 0 for number in numbers)
    }
    times = operation_times(program, timed, copying)
    storages_of_buffer, buffer_of = _merge(program, space_of, given_copies, times)
    operations, served_storage = _operations(graph, target, program, accesses, times, space_of, buffer_of)
    problem = MappingProblem(
        name=graph.name,
        target=target.name,
        spaces=memory_spaces(target),
        links=memory_links(target),
        regions=times.regions,
        operations=operations,
        buffers=tuple(
            _buffer(target, always, program, storages, space_of, written, times) for storages in storages_of_buffer
        ),
        clock=target.clock,
        cross_program_prefetches=target.cross_program_prefetches,
        assumptions=assumptions_of(program),
        notes=_notes(graph, target),
    )
    problem.check()
    given = given_plan(problem, program, times, given_copies, space_of, storages_of_buffer, served_storage)
    return BuiltProblem(problem.with_given(given), program, times, tuple(buffer_of), tuple(given_copies))


def _notes(graph: Graph, target: Target) -> tuple[str, ...]:
    """Returns what sizes and costs leave out."""
    note = partition_note(graph)
    return (*([note] if note else []), *uncosted(graph, target))


def memory_spaces(target: Target) -> tuple[MemorySpace, ...]:
    """Returns what planners see of a target's memories."""
    return tuple(MemorySpace(s.name, s.capacity, s.alignment, s.bandwidth, s.channel) for s in target.spaces)


def memory_links(target: Target) -> tuple[Link, ...]:
    """Returns what planners see of the ways to copy between a target's memories."""
    return tuple(Link(x.source, x.destination, x.bandwidth, x.latency, x.queue, x.channel) for x in target.links)


def _timed_steps(
    program: FlatProgram, accesses: AccessIndex, space_of: Sequence[int], given_copies: Sequence[GivenCopy]
) -> set[int]:
    """Returns the steps that are operations: what takes time or touches memory, and is no given copy."""
    moving = {step for given_copy in given_copies for step in given_copy.steps}
    timed = set()
    for t, step in enumerate(program.steps):
        if t in moving or step.instruction.opcode in _BEFORE_TIME:
            continue
        if any(space_of[program.accesses[number].storage] >= 0 for number in accesses.of_step[t]):
            timed.add(t)
    return timed


def _merge(
    program: FlatProgram, space_of: Sequence[int], given_copies: Sequence[GivenCopy], times: OperationTimes
) -> tuple[list[list[int]], list[int]]:
    """Joins storages that given copies connect; returns the storages of each buffer, and the buffer of each storage."""
    joined = DisjointSets(len(program.storages))
    for given_copy in given_copies:
        for destination in given_copy.destinations:
            joined.join(destination, given_copy.source)
    groups: dict[int, list[int]] = {}
    for storage in range(len(program.storages)):
        if space_of[storage] >= 0:
            groups.setdefault(joined.find(storage), []).append(storage)
    num_steps = len(program.steps)
    num_operations = len(times.steps)

    def first_time(storages: list[int]) -> int:
        return min(times.live(program.storages[s].start, program.storages[s].end, num_steps)[0] for s in storages)

    # What is neither touched nor left behind by an operation has no place in time.
    ordered = sorted(
        (first_time(storages), storages[0], storages)
        for storages in groups.values()
        if first_time(storages) < num_operations or any(program.storages[s].end > num_steps for s in storages)
    )
    storages_of_buffer = [storages for _, _, storages in ordered]
    buffer_of = [-1] * len(program.storages)
    for buffer, storages in enumerate(storages_of_buffer):
        for storage in storages:
            buffer_of[storage] = buffer
    return storages_of_buffer, buffer_of


def _buffer(
    target: Target,
    always: int,
    program: FlatProgram,
    storages: Sequence[int],
    space_of: Sequence[int],
    written: Collection[int],
    times: OperationTimes,
) -> Buffer:
    """Returns the buffer made of some storages, its first value that of the earliest.

    What lies in a memory beyond the first `always` ones was put there by the program, and stays there.
    """
    parts = [program.storages[s] for s in storages]
    ranges = [times.live(part.start, part.end, len(program.steps)) for part in parts]
    size = max(part.size for part in parts)
    initial = next((space_of[s] for s, p in zip(storages, parts, strict=True) if p.parameters or p.is_constant), None)
    final = next((space_of[s] for s, p in zip(storages, parts, strict=True) if p.result_indices), None)
    # The caller knows the address of an argument that it keeps, and of one whose memory a result takes over.
    persistent = any((part.parameters or part.is_constant) and part.end > len(program.steps) for part in parts)
    first = min(range(len(parts)), key=lambda i: (parts[i].start, i))
    is_written = any(storage in written for storage in storages)
    possible = [s for s, space in enumerate(target.spaces[:always]) if space.writable or not is_written]
    if space_of[storages[0]] >= always:
        possible = [space_of[storages[0]]]
    return Buffer(
        name=parts[first].name,
        size=size,
        start=min(start for start, _ in ranges),
        end=max(end for _, end in ranges),
        spaces=tuple(s for s in possible if s in (possible[0], initial, final) or size <= target.spaces[s].capacity),
        initial_space=initial,
        final_space=final,
        persistent=persistent,
        values=tuple(value for part in parts for value in part.values),
    )


def _operations(
    graph: Graph,
    target: Target,
    program: FlatProgram,
    accesses: AccessIndex,
    times: OperationTimes,
    space_of: Sequence[int],
    buffer_of: Sequence[int],
) -> tuple[tuple[Operation, ...], list[int]]:
    """Returns the costed operations, and for each of their accesses the storage that it touches in the dump."""
    costs = InstructionCosts(graph, target)
    idle = (0,) * len(target.spaces)
    operations: list[Operation] = []
    served_storage: list[int] = []
    for t, is_copying, name, region in zip(times.steps, times.is_copying, times.names, times.region_of, strict=True):
        if t < 0:
            operations.append(Operation(name, "point", 0.0, 0.0, idle, region, ()))
            continue
        step = program.steps[t]
        touched = [
            access
            for access in (program.accesses[number] for number in accesses.of(t, is_copying))
            if buffer_of[access.storage] >= 0
        ]
        parts = [
            Touched(access.bytes, space_of[access.storage], access.kind is not AccessKind.READ) for access in touched
        ]
        if is_copying:
            cost = costs.of_copies(parts)
        else:
            cost = costs.of(graph.computations[step.computation], step.instruction, parts)
        served_storage.extend(access.storage for access in touched)
        operations.append(
            Operation(
                name=name,
                opcode="copy" if is_copying else step.instruction.opcode,
                floor=cost.floor,
                overhead=cost.overhead,
                reserved=cost.reserved,
                region=region,
                accesses=tuple(
                    Access(buffer_of[access.storage], access.kind, access.bytes, seconds)
                    for access, seconds in zip(touched, cost.access_seconds, strict=True)
                ),
            )
        )
    return tuple(operations), served_storage
