"""From decisions to a Plan: stays of buffers in fast memory, and everything else at home.

The *home* of a buffer is the space where the program wants it: where an argument starts, where a result ends, and the
slow memory otherwise. A planner decides only on *stays* elsewhere. Each access that no stay serves is served at home,
and the residency at home lasts for as long as an access or a copy needs it. Offsets are found here.

    fast  ┤        ┌──────────────┐      ┌─────────┐
        prefetch   │     stay     │eviction  stay   │
    home  ┤ ┌──────┴──┐           └──────┴─────┐
            └─────────┘  (one residency, from the first to the last time that it is needed)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.collection import collection_paused
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import BEFORE, Copy, Plan, Residency
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.stays.chains import outlives
from memplan.planners.stays.must_fit import place_all
from memplan.planners.stays.packing import UNPLACED, Blocks, pack


@dataclass(frozen=True, slots=True)
class Stay:
    """A *stay*: a span of time that a buffer spends in a space which is not its home, and what that serves.

    Attributes:
      buffer, space: indices.
      start, end: half-open times.
      accesses: numbers of the accesses that it serves.
      prefetches: `(start, done)` of the copies from home that fill it.
      evictions: `(start, done)` of the copies that bring its value home.
      place: stays of one buffer and space with the same `place` lie at one offset; -1 for a place of its own.
      value: seconds that are lost if it finds no room.
      offset: in bytes; -1 if it is still to be found.
    """

    buffer: int
    space: int
    start: int
    end: int
    accesses: tuple[int, ...]
    prefetches: tuple[tuple[int, int], ...] = ()
    evictions: tuple[tuple[int, int], ...] = ()
    place: int = -1
    value: float = 0.0
    offset: int = UNPLACED


@dataclass(frozen=True)
class Assembly:
    """A plan, and the stays that did not fit.

    Attributes:
      plan: without these stays.
      left_out: indices of these stays; their accesses are served at home.
    """

    plan: Plan
    left_out: tuple[int, ...]


def home_of(problem: MappingProblem, buffer: int) -> int:
    """Returns the space that is a buffer's home: it lies there unless a stay moves it."""
    return problem.buffers[buffer].home


def home_offsets_of(problem: MappingProblem, plan: Plan) -> dict[int, int]:
    """Returns by buffer the offsets of those homes that are not in space 0, as far as a plan has them."""
    homes = {number: buffer.home for number, buffer in enumerate(problem.buffers) if buffer.home > 0}
    return {r.buffer: r.offset for r in plan.residencies if homes.get(r.buffer) == r.space}


@collection_paused()
def assemble(
    problem: MappingProblem,
    stays: Sequence[Stay],
    planner: str,
    info: dict[str, Any] | None = None,
    exact_effort: float = 0.0,
    home_offsets: Mapping[int, int] | None = None,
) -> Assembly:
    """Returns the plan that stays make, with homes and offsets.

    Each stay must be valid by itself, and the plan must be valid without it: what a stay writes and others need is
    evicted in time, and what it holds is copied from home or written there. Stays that find no room are left out.

    Args:
      problem: to be answered.
      stays: what was decided.
      planner: name of the planner that decided it.
      info: of the plan.
      exact_effort: see `packing.pack`.
      home_offsets: offsets of the buffers whose homes are not in space 0. If these and the offsets of all stays are
        known, they are kept; otherwise all are found here.

    Raises:
      PlannerError: the buffers do not fit their homes.
    """
    moved = (*stays, *_last_moves(problem, stays))
    offset_of_stay = np.full(len(moved), UNPLACED)
    homes_of: dict[int, list[int]] = {}
    for buffer in range(len(problem.buffers)):
        homes_of.setdefault(home_of(problem, buffer), []).append(buffer)
    fixed: dict[int, tuple[int, int, int]] = {}  # buffer: start, end and offset of its home
    for space in range(1, len(problem.spaces)):
        here = [number for number, stay in enumerate(moved) if stay.space == space]
        buffers = homes_of.get(space, [])
        offsets = np.array(
            [*((home_offsets or {}).get(buffer, UNPLACED) for buffer in buffers), *(moved[i].offset for i in here)],
            np.int64,
        )
        if (offsets == UNPLACED).any():
            offsets = _pack_stays(problem, space, moved, here, buffers, exact_effort)
        for buffer, offset in zip(buffers, offsets, strict=False):
            fixed[buffer] = (problem.buffers[buffer].start, problem.buffers[buffer].end, int(offset))
        offset_of_stay[here] = offsets[len(buffers) :]
    plan = _plan(problem, moved, offset_of_stay, fixed, planner, info)
    return Assembly(plan, tuple(np.flatnonzero(offset_of_stay[: len(stays)] == UNPLACED).tolist()))


def _last_moves(problem: MappingProblem, stays: Sequence[Stay]) -> list[Stay]:
    """Returns a stay at the end for each argument that is also a result and must end in another space."""
    n = problem.end
    there = {
        stay.buffer for stay in stays if stay.end == n + 1 and stay.space == problem.buffers[stay.buffer].final_space
    }
    moves = []
    for number, buffer in enumerate(problem.buffers):
        space = buffer.final_space
        if space is not None and space != home_of(problem, number) and number not in there:
            if (home_of(problem, number), space) not in problem.link_between:
                raise PlannerError(
                    f"{buffer.name} starts in {problem.spaces[home_of(problem, number)].name} and must end in "
                    f"{problem.spaces[space].name}, but the target has no link from one to the other"
                )
            moves.append(Stay(number, space, n, n + 1, (), prefetches=((n, n),), value=np.inf))
    return moves


def _pack_stays(
    problem: MappingProblem,
    space: int,
    stays: Sequence[Stay],
    here: Sequence[int],
    buffers: Sequence[int],
    exact_effort: float,
) -> np.ndarray:
    """Returns offsets of the homes of some buffers, which must fit, then of some stays."""
    homes = [problem.buffers[buffer] for buffer in buffers]
    chosen = [stays[number] for number in here]
    item = list(range(len(homes)))
    places: dict[tuple[int, int], int] = {}
    sizes = [home.size for home in homes]
    weights = [np.inf] * len(homes)
    for stay in chosen:
        key = (stay.buffer, stay.place) if stay.place >= 0 else None
        if key is not None and key in places:
            item.append(places[key])
            weights[places[key]] += stay.value
            continue
        if key is not None:
            places[key] = len(sizes)
        item.append(len(sizes))
        sizes.append(problem.buffers[stay.buffer].size)
        weights.append(max(stay.value, 1e-15))
    if not item:
        return np.zeros(0, np.int64)
    blocks = Blocks(
        start=np.array([*(home.start for home in homes), *(stay.start for stay in chosen)], np.int64),
        end=np.array([*(home.end for home in homes), *(stay.end for stay in chosen)], np.int64),
        item=np.array(item, np.int64),
        size=np.array(sizes, np.int64),
        weight=np.array(weights, np.float64),
    )
    offsets = pack(problem, space, blocks, exact_effort=exact_effort)[blocks.item]
    wanted = np.array([True] * len(homes) + [stay.value == np.inf for stay in chosen])
    if (offsets[wanted] == UNPLACED).any():
        # What must be there comes first, and nothing else is placed then.
        names = [home.name for home in homes] + [problem.buffers[stay.buffer].name for stay in chosen]
        sizes_of = blocks.size[blocks.item]
        rows = [(int(blocks.start[i]), int(blocks.end[i]), int(sizes_of[i])) for i in np.flatnonzero(wanted)]
        offsets = np.full(len(offsets), UNPLACED)
        offsets[wanted] = place_all(problem, space, [names[i] for i in np.flatnonzero(wanted)], rows)
    return offsets


def _plan(
    problem: MappingProblem,
    stays: Sequence[Stay],
    offset_of_stay: np.ndarray,
    fixed: dict[int, tuple[int, int, int]],
    planner: str,
    info: dict[str, Any] | None,
) -> Plan:
    served_by = [-1] * len(problem.accesses)
    copies: list[tuple[int, int, int, int, int]] = []  # start, done, stay, whether it is a prefetch, and buffer
    placed = [number for number, stay in enumerate(stays) if stay.space == 0 or offset_of_stay[number] != UNPLACED]
    ends_there = set()
    for number in placed:
        stay = stays[number]
        for access in stay.accesses:
            served_by[access] = number
        copies += [(start, done, number, 1, stay.buffer) for start, done in stay.prefetches]
        copies += [(start, done, number, 0, stay.buffer) for start, done in stay.evictions]
        if stay.end == problem.end + 1 and stay.space == problem.buffers[stay.buffer].final_space:
            ends_there.add(stay.buffer)

    needs = _home_needs(problem, served_by, copies, ends_there)
    slow = [(buffer, *needs[buffer]) for buffer in sorted(needs) if buffer not in fixed]
    num_homes = len(slow)
    slow += [
        (stays[number].buffer, stays[number].start, stays[number].end) for number in placed if stays[number].space == 0
    ]
    offsets = _pack_slow(problem, slow)

    residency_of: dict[int, int] = {}
    residencies: list[Residency] = []
    slow_stays = iter(offsets[num_homes:])
    for number in placed:
        stay = stays[number]
        residency_of[number] = len(residencies)
        offset = next(slow_stays) if stay.space == 0 else int(offset_of_stay[number])
        residencies.append(Residency(stay.buffer, stay.space, offset, stay.start, stay.end))
    home_residency: dict[int, int] = {}
    for resident, (first, last, offset) in sorted(fixed.items()):
        home_residency[resident] = len(residencies)
        residencies.append(Residency(resident, home_of(problem, resident), offset, first, last))
    for (resident, first, last), offset in zip(slow[:num_homes], offsets, strict=False):
        home_residency[resident] = len(residencies)
        residencies.append(Residency(resident, 0, offset, first, last))
    served = (
        residency_of[stay] if stay >= 0 else home_residency[access.buffer]
        for stay, (_, access) in zip(served_by, problem.accesses, strict=True)
    )
    made = []
    for first, done, number, is_prefetch, buffer in sorted(copies):
        home, away = home_residency[buffer], residency_of[number]
        made.append(Copy(home, away, first, done) if is_prefetch else Copy(away, home, first, done))
    return problem.answer(planner, residencies, made, served, info)


def _pack_slow(problem: MappingProblem, residencies: Sequence[tuple[int, int, int]]) -> list[int]:
    """Returns offsets in space 0 of residencies `(buffer, start, end)`; raises PlannerError if they do not fit."""
    start, end = (np.array([r[i] for r in residencies], np.int64) for i in (1, 2))
    size = np.array([problem.buffers[buffer].size for buffer, _, _ in residencies], np.int64)
    offsets = pack(problem, 0, Blocks.of(start, end, size), stack_lasting=True)
    if (offsets == UNPLACED).any():
        names = [problem.buffers[buffer].name for buffer, _, _ in residencies]
        rows = zip(*(column.tolist() for column in (start, end, size)), strict=True)
        offsets = place_all(problem, 0, names, list(rows))
    return offsets.tolist()


def _home_needs(
    problem: MappingProblem,
    served_by: Sequence[int],
    copies: Iterable[tuple[int, int, int, int, int]],
    ends_there: set[int],
) -> dict[int, tuple[int, int]]:
    """Returns when each buffer is needed at home: the span of all needs, with the loops at its borders."""
    n = problem.end
    first: dict[int, int] = {}
    last: dict[int, int] = {}

    def need(buffer: int, start: int, end: int) -> None:
        first[buffer] = min(first.get(buffer, start), start)
        last[buffer] = max(last.get(buffer, end), end)

    for (time, access), stay in zip(problem.accesses, served_by, strict=True):
        if stay < 0:
            need(access.buffer, time, time + 1)
    for start, done, _, is_prefetch, buffer in copies:
        if start != BEFORE:
            need(buffer, start, max(done, start + 1) if is_prefetch else done + 1)
    for number, described in enumerate(problem.buffers):
        if described.persistent:
            need(number, described.start, described.end)
        elif described.initial_space is not None:
            need(number, 0, 1)
        if described.final_space is not None and number not in ends_there:
            need(number, n, n + 1)
    return {buffer: _around_loops(problem, buffer, first[buffer], last[buffer]) for buffer in first}


def _around_loops(problem: MappingProblem, buffer: int, start: int, end: int) -> tuple[int, int]:
    """Extends [start, end) until it crosses no border of a loop that the buffer outlives."""
    described = problem.buffers[buffer]
    for time in (start, end - 1):
        if time >= problem.end:
            continue
        number = problem.operations[time].region
        while number > 0:
            region = problem.regions[number]
            if not outlives(described, region):
                break
            if region.kind is RegionKind.LOOP:
                start = min(start, max(region.start, described.start))
                end = max(end, min(region.end, described.end))
            number = region.parent
    return start, end
