"""The mapping that a dump carries: what the compiler that wrote it decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memplan.compiler.analysis.program import FlatProgram
from memplan.compiler.mapping.given_copies import GivenCopy
from memplan.compiler.mapping.plan import BEFORE, Copy, Plan, Residency
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.times import OperationTimes

NO_OFFSET = -1


def given_plan(
    problem: MappingProblem,
    program: FlatProgram,
    times: OperationTimes,
    given_copies: Sequence[GivenCopy],
    space_of_storage: Sequence[int],
    storages_of_buffer: Sequence[Sequence[int]],
    served_storage: Sequence[int],
) -> Plan:
    """Returns the mapping that memory spaces and copies of the program state, offsets left open.

    Args:
      problem: the problem, its `given` not yet set.
      program: the flattened program.
      times: the problem's time.
      given_copies: copies between memories.
      space_of_storage: `[num_storages]` index of the space that holds it.
      storages_of_buffer: `[num_buffers]` the storages that are one buffer.
      served_storage: `[num_accesses]` storage that each access of the problem touches.

    Storages of one buffer become its residencies. Those filled by one copy in several pieces become one.
    """
    num_steps = len(program.steps)
    pieces_of = {storage: i for i, given_copy in enumerate(given_copies) for storage in given_copy.destinations}
    # A copy needs both its ends for as long as it takes, which may be longer than any access needs them.
    needed_until: dict[int, int] = {}
    for given_copy in given_copies:
        start, done = times.at(given_copy.start), times.at(given_copy.done)
        needed_until[given_copy.source] = max(needed_until.get(given_copy.source, 0), done, start + 1)
        for storage in given_copy.destinations:
            needed_until[storage] = max(needed_until.get(storage, 0), done + 1)
    _leave_behind(problem, program, times, given_copies, needed_until)

    residencies: list[Residency] = []
    residency_of: dict[int, int] = {}
    for buffer, storages in enumerate(storages_of_buffer):
        residency_of_copy: dict[int, int] = {}
        for storage in storages:
            start, end = times.live(program.storages[storage].start, program.storages[storage].end, num_steps)
            end = max(end, needed_until.get(storage, 0))
            copy_number = pieces_of.get(storage, -1)
            existing = residency_of_copy.get(copy_number, -1)
            if existing >= 0:
                old = residencies[existing]
                residencies[existing] = Residency(
                    buffer, old.space, NO_OFFSET, min(old.start, start), max(old.end, end)
                )
                residency_of[storage] = existing
                continue
            residency_of[storage] = len(residencies)
            if copy_number >= 0:
                residency_of_copy[copy_number] = len(residencies)
            residencies.append(Residency(buffer, space_of_storage[storage], NO_OFFSET, start, end))

    copies = []
    for given_copy in given_copies:
        source, destination = residency_of[given_copy.source], residency_of[given_copy.destinations[0]]
        if given_copy.cross_program:
            residencies[destination] = replace(residencies[destination], start=0)
            copies.append(Copy(source, destination, BEFORE, 0))
        else:
            copies.append(Copy(source, destination, times.at(given_copy.start), times.at(given_copy.done)))
    copies.sort(key=lambda copy: (copy.start, copy.done))
    return problem.answer("given", residencies, copies, (residency_of[storage] for storage in served_storage))


def _leave_behind(
    problem: MappingProblem,
    program: FlatProgram,
    times: OperationTimes,
    given_copies: Sequence[GivenCopy],
    needed_until: dict[int, int],
) -> None:
    """Lets what the next run of the program finds in a fast memory last until the end of this one.

    It is the destination of a cross-program prefetch itself, unless a later copy fills the place again.
    """
    for given_copy in given_copies:
        if not given_copy.cross_program:
            continue
        space = program.storages[given_copy.destinations[0]].memory_space
        again = [
            other
            for other in given_copies
            if other.source == given_copy.source
            and not other.cross_program
            and program.storages[other.destinations[0]].memory_space == space
            and times.at(other.done) >= problem.end
        ]
        for storage in (again[-1] if again else given_copy).destinations:
            needed_until[storage] = problem.end + 1
