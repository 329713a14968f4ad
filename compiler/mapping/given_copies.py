"""The copies between memories that a dump already carries.

A compiler that assigned memories left its decisions in the module as instructions. They are recognized here, so that a
value and its copies become one buffer again, and the copies become a mapping of that buffer:

    copy-start / copy-done                          the whole value, asynchronously
    slice-start × k / slice-done × k / ConcatBitcast   the whole value in k pieces ("sliced prefetch")
    copy                                            the whole value, synchronously

A copy counts only if it changes nothing but the memory space, and if the two storages can be one buffer: neither may be
overwritten while the content of the other is still needed.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from memplan.compiler.analysis.program import COPIED, AccessKind, FlatProgram
from memplan.compiler.ir import Shape
from memplan.compiler.mapping.disjoint_sets import DisjointSets


@dataclass(frozen=True, slots=True)
class GivenCopy:
    """A copy of one value from a storage to another, stated by the dump itself.

    Attributes:
      source: index of the storage that it is copied from.
      destinations: indices of the storages that it is copied to: one, or one per slice and the concatenation of them.
      start, done: steps at which the (first) copy starts and the (last) copy is awaited.
      steps: all steps that belong to it, ascending.
      cross_program: whether the previous run of the program makes it (`cross_program_prefetch_index`).
    """

    source: int
    destinations: tuple[int, ...]
    start: int
    done: int
    steps: tuple[int, ...]
    cross_program: bool = False


class AccessIndex:
    """Finds accesses, by their numbers in the program.

    Attributes:
      of_step: of each step itself, `[num_steps + 1]`.
      of_copies: of the implicit copies at the end of a step.
      of_storage: `[num_storages]`.
    """

    def __init__(self, program: FlatProgram):
        self.of_step: list[list[int]] = [[] for _ in range(len(program.steps) + 1)]
        self.of_copies: dict[int, list[int]] = {}
        self.of_storage: list[list[int]] = [[] for _ in program.storages]
        for number, access in enumerate(program.accesses):
            if access.operand == COPIED:
                self.of_copies.setdefault(access.time, []).append(number)
            else:
                self.of_step[access.time].append(number)
            self.of_storage[access.storage].append(number)

    def of(self, step: int, is_copying: bool) -> list[int]:
        """Returns those of an operation, as `OperationTimes` has it."""
        return self.of_copies[step] if is_copying else self.of_step[step]


def find_given_copies(program: FlatProgram, accesses: AccessIndex) -> list[GivenCopy]:
    """Returns the copies of a program, in order of their start; none in a program that no compiler has mapped."""
    copies = sorted(
        (copy for copy in _candidates(program, accesses) if _is_one_buffer(program, accesses, copy)),
        key=lambda copy: (copy.start, copy.done),
    )
    copies = _with_one_result(program, copies)
    while outdated := _outdated(program, accesses, copies):
        copies = [copy for i, copy in enumerate(copies) if i not in outdated]
    return copies


def _candidates(program: FlatProgram, accesses: AccessIndex) -> Iterator[GivenCopy]:
    # A computation that is called twice has two steps for each instruction: what starts a copy is the last one before.
    time_of: dict[tuple[str, int], int] = {}
    for t, step in enumerate(program.steps):
        time_of[step.computation, step.index] = t
        instruction = step.instruction
        instructions = program.graph.computations[step.computation].instructions
        if instruction.opcode == "copy":
            if _differ_in_space_only(instructions[instruction.operands[0]].shape, instruction.shape):
                yield from _given_copy(program, accesses, (t,), (t,))
        elif instruction.opcode == "copy-done":
            start = instructions[instruction.operands[0]]
            if start.opcode == "copy-start" and _differ_in_space_only(
                instructions[start.operands[0]].shape, instruction.shape
            ):
                yield from _given_copy(program, accesses, (time_of[step.computation, instruction.operands[0]],), (t,))
        elif instruction.opcode == "custom-call" and "ConcatBitcast" in instruction.attribute("custom_call_target"):
            starts, dones = [], []
            sources = set()
            for operand in instruction.operands:
                done = instructions[operand]
                if done.opcode != "slice-done" or instructions[done.operands[0]].opcode != "slice-start":
                    break
                sources.add(instructions[done.operands[0]].operands[0])
                starts.append(time_of[step.computation, done.operands[0]])
                dones.append(time_of[step.computation, operand])
            else:
                if len(sources) == 1 and _differ_in_space_only(instructions[sources.pop()].shape, instruction.shape):
                    yield from _given_copy(program, accesses, tuple(starts), (*dones, t))


def _differ_in_space_only(source: Shape, destination: Shape) -> bool:
    return (
        source.is_array
        and source.memory_space != destination.memory_space
        and source.with_memory_space(0) == destination.with_memory_space(0)
    )


def _given_copy(
    program: FlatProgram, accesses: AccessIndex, starts: tuple[int, ...], dones: tuple[int, ...]
) -> Iterator[GivenCopy]:
    """Yields the copy made of these steps, if they read one storage and fill storages of one other memory."""
    steps = tuple(sorted({*starts, *dones}))
    read: dict[int, None] = {}
    written: dict[int, None] = {}
    for t in steps:
        for number in accesses.of_step[t]:
            access = program.accesses[number]
            (read if access.kind is AccessKind.READ else written)[access.storage] = None
    sources = [storage for storage in read if storage not in written]
    if len(sources) != 1:
        return
    source_space = program.storages[sources[0]].memory_space
    leaves = [leaf for _, leaf in program.steps[dones[-1]].instruction.shape.leaves()]
    space = leaves[0].memory_space
    destinations = tuple(s for s in written if program.storages[s].memory_space == space)
    if destinations and space != source_space:
        cross_program = bool(program.steps[min(starts)].instruction.attribute("cross_program_prefetch_index"))
        yield GivenCopy(sources[0], destinations, min(starts), max(dones), steps, cross_program)


def _is_one_buffer(program: FlatProgram, accesses: AccessIndex, copy: GivenCopy) -> bool:
    """Whether the source and the destinations hold the same value whenever both are looked at.

    What another step writes allows one buffer under these conditions:

        it writes the source before the copy        the destination is not accessed between the write and the copy
        it writes the source after the copy         the destination is not accessed after the write
        it writes the destination after the copy    the source is dead by then
        it writes the destination before the copy   the source does not hold anything yet
    """
    source = program.storages[copy.source]
    _, writes = _others(program, accesses, copy.source, copy)
    for storage in copy.destinations:
        seen, overwritten = _others(program, accesses, storage, copy)
        for w in writes:
            after = bisect.bisect_right(seen, w)
            if w < copy.start and after < len(seen) and seen[after] < copy.start:
                return False
            if w >= copy.start and after < len(seen):
                return False
        for w in overwritten:
            if w >= copy.start and source.end > w + 1:
                return False
            if w < copy.start and source.start <= w:
                return False
    return True


def _others(program: FlatProgram, accesses: AccessIndex, storage: int, copy: GivenCopy) -> tuple[list[int], list[int]]:
    """Returns the ascending times at which steps outside `copy` access and write `storage`."""
    times, writes = [], []
    for number in accesses.of_storage[storage]:
        access = program.accesses[number]
        if access.time in copy.steps and access.operand != COPIED:
            continue
        times.append(access.time)
        if access.kind is not AccessKind.READ:
            writes.append(access.time)
    return times, writes


def _with_one_result(program: FlatProgram, copies: list[GivenCopy]) -> list[GivenCopy]:
    """Returns the copies that join no two results: the caller looks at both, each in its own memory."""
    joined = DisjointSets(len(program.storages))
    results = {number for number, storage in enumerate(program.storages) if storage.result_indices}
    kept = []
    for copy in copies:
        parts = {joined.find(storage) for storage in (copy.source, *copy.destinations)}
        returned = parts & results
        if len(returned) > 1:
            continue
        kept.append(copy)
        for part in parts:
            joined.join(part, copy.source)
        if returned:
            results.add(joined.find(copy.source))
    return kept


def _outdated(program: FlatProgram, accesses: AccessIndex, copies: list[GivenCopy]) -> set[int]:
    """Returns the copies because of which one buffer would have to hold two values at once.

    Several copies may join an old value's copies with a new value: a prefetch of a parameter that is still read after
    its successor was computed, and the successor's eviction to the parameter's own memory. A read is outdated if
    another storage of the buffer was written since its own was filled; the copies around that storage are returned.
    """
    joined = DisjointSets(len(program.storages))
    around: dict[int, list[int]] = {}
    prefetches: dict[int, list[int]] = {}
    reads: dict[int, list[int]] = {}
    moving: set[int] = set()
    for i, copy in enumerate(copies):
        moving.update(copy.steps)
        for storage in (copy.source, *copy.destinations):
            around.setdefault(storage, []).append(i)
            joined.join(storage, copy.source)
        for storage in copy.destinations:
            prefetches.setdefault(storage, []).append(copy.done)
        reads.setdefault(copy.source, []).append(copy.start)
    writes: dict[int, list[tuple[int, int]]] = {}
    for storage in around:
        for number in accesses.of_storage[storage]:
            access = program.accesses[number]
            if access.time in moving and access.operand != COPIED:
                continue
            if access.kind is not AccessKind.WRITE:
                reads.setdefault(storage, []).append(access.time)
            if access.kind is not AccessKind.READ:
                prefetches.setdefault(storage, []).append(access.time)
                writes.setdefault(joined.find(storage), []).append((access.time, storage))
    outdated: set[int] = set()
    for storage, times in reads.items():
        others = [t for t, written in writes.get(joined.find(storage), ()) if written != storage]
        if not others:
            continue
        others.sort()
        filled = sorted(prefetches.get(storage, ()))
        for time in times:
            prefetch = filled[bisect.bisect_left(filled, time) - 1] if filled and filled[0] < time else -1
            following = bisect.bisect_right(others, prefetch)
            if following < len(others) and others[following] < time:
                outdated.update(around[storage])
    return outdated
