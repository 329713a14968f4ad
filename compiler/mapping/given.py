"""The mapping that a dump carries: what the compiler that wrote it decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memplan.compiler.analysis.program import FlatProgram
from memplan.compiler.mapping.moves import Move
from memplan.compiler.mapping.plan import BEFORE, Copy, Plan, Residency
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.times import OperationTimes

NO_OFFSET = -1


def given_plan(
    problem: MappingProblem,
    program: FlatProgram,
    times: OperationTimes,
    moves: Sequence[Move],
    space_of_storage: Sequence[int],
    storages_of_buffer: Sequence[Sequence[int]],
    served_storage: Sequence[int],
) -> Plan:
    """Returns the mapping that memory spaces and moves of the program state, offsets left open.

    Args:
      problem: the problem, its `given` not yet set.
      program: the flattened program.
      times: the problem's time.
      moves: copies between memories.
      space_of_storage: `[num_storages]` index of the space that holds it.
      storages_of_buffer: `[num_buffers]` the storages that are one buffer.
      served_storage: `[num_accesses]` storage that each access of the problem touches.

    Storages of one buffer become its residencies. Those filled by one move in several pieces become one.
    """
    num_steps = len(program.steps)
    pieces_of = {storage: i for i, move in enumerate(moves) for storage in move.destinations}
    # A move needs both its ends for as long as it takes, which may be longer than anybody else needs them.
    needed_until: dict[int, int] = {}
    for move in moves:
        start, done = times.at(move.start), times.at(move.done)
        needed_until[move.source] = max(needed_until.get(move.source, 0), done, start + 1)
        for storage in move.destinations:
            needed_until[storage] = max(needed_until.get(storage, 0), done + 1)
    _leave_behind(problem, program, times, moves, needed_until)

    residencies: list[Residency] = []
    residency_of: dict[int, int] = {}
    for buffer, storages in enumerate(storages_of_buffer):
        residency_of_move: dict[int, int] = {}
        for storage in storages:
            start, end = times.live(program.storages[storage].start, program.storages[storage].end, num_steps)
            end = max(end, needed_until.get(storage, 0))
            move_number = pieces_of.get(storage, -1)
            existing = residency_of_move.get(move_number, -1)
            if existing >= 0:
                old = residencies[existing]
                residencies[existing] = Residency(
                    buffer, old.space, NO_OFFSET, min(old.start, start), max(old.end, end)
                )
                residency_of[storage] = existing
                continue
            residency_of[storage] = len(residencies)
            if move_number >= 0:
                residency_of_move[move_number] = len(residencies)
            residencies.append(Residency(buffer, space_of_storage[storage], NO_OFFSET, start, end))

    copies = []
    for move in moves:
        source, destination = residency_of[move.source], residency_of[move.destinations[0]]
        if move.cross_program:
            residencies[destination] = replace(residencies[destination], start=0)
            copies.append(Copy(source, destination, BEFORE, 0))
        else:
            copies.append(Copy(source, destination, times.at(move.start), times.at(move.done)))
    copies.sort(key=lambda copy: (copy.start, copy.done))
    return Plan(
        problem=problem.fingerprint,
        name=problem.name,
        target=problem.target,
        planner="given",
        residencies=tuple(residencies),
        copies=tuple(copies),
        served=tuple(residency_of[storage] for storage in served_storage),
    )


def _leave_behind(
    problem: MappingProblem,
    program: FlatProgram,
    times: OperationTimes,
    moves: Sequence[Move],
    needed_until: dict[int, int],
) -> None:
    """Lets what the next run of the program finds in a fast memory last until the end of this one.

    It is the destination of a cross-program prefetch itself, unless a later move fills the place again.
    """
    for move in moves:
        if not move.cross_program:
            continue
        space = program.storages[move.destinations[0]].memory_space
        again = [
            other
            for other in moves
            if other.source == move.source
            and not other.cross_program
            and program.storages[other.destinations[0]].memory_space == space
            and times.at(other.done) >= problem.end
        ]
        for storage in (again[-1] if again else move).destinations:
            needed_until[storage] = problem.end + 1
