"""The operations on an arrangement: runs are put in and taken out, give way, and find gaps. Compiled by numba."""

from __future__ import annotations

from typing import Any

from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import internal
from memplan.planners.stays.arrangement import Arrangement
from memplan.planners.stays.booking_kernel import serve
from memplan.planners.stays.copies_kernel import earliest_prefetch, latest_eviction
from memplan.planners.stays.evaluation import Evaluation
from memplan.planners.stays.evaluation_kernel import decide_runs, latency_of_decided
from memplan.planners.stays.tables import NONE, StayTables

by_reference(Arrangement)


@internal
def set_times(s: StayTables, row: Any) -> None:
    """Sets the half-open times of a stay by its items and its copies."""
    start, end = s.items[row.run].start, s.items[row.run_last].end
    if row.prefetch_start != NONE:
        start = s.slots[row.prefetch_start].time
    if row.eviction_start != NONE:
        end = max(end, s.slots[row.eviction_done].time, s.slots[row.eviction_start].time + 1)
    row.run_start, row.run_end = start, end


@internal
def is_possible(s: StayTables, row: Any) -> bool:
    """Whether the copies of a run respect what is in the fast space before and after it."""
    if row.prefetch_start != NONE:
        earliest = earliest_prefetch(s, row.run)
        if earliest == NONE or row.prefetch_start < earliest:
            return False
    return row.eviction_start == NONE or row.eviction_done <= latest_eviction(s, row.run_last)


@internal
def size_of(s: StayTables, run: int) -> int:
    """Returns the units that a run takes."""
    return s.buffers[s.chains[s.items[run].chain].buffer].size


@internal
def write_row(s: StayTables, p: Arrangement, run: int, row: Any) -> None:
    """Writes the row of a run."""
    item = s.items[run]
    row.run, row.run_last, row.run_start, row.run_end = run, item.run_last, item.run_start, item.run_end
    row.prefetch_start, row.prefetch_done = item.prefetch_start, item.prefetch_done
    row.eviction_start, row.eviction_done = item.eviction_start, item.eviction_done
    row.offset = p.placed[p.position[run]].offset


@internal
def put_in(s: StayTables, p: Arrangement, row: Any) -> None:
    """Puts a run in where nothing is."""
    counts, run = p.counts[0], row.run
    item = s.items[run]
    for number in range(run, row.run_last + 1):
        s.items[number].run = run
    item.run_last, item.run_start, item.run_end, item.late = row.run_last, row.run_start, row.run_end, 0.0
    item.prefetch_start, item.prefetch_done = row.prefetch_start, row.prefetch_done
    item.eviction_start, item.eviction_done = row.eviction_start, row.eviction_done
    at = counts.placed
    while at > 0 and p.placed[at - 1].offset > row.offset:
        p.placed[at] = p.placed[at - 1]
        if p.placed[at].run != NONE:
            p.position[p.placed[at].run] = at
        at -= 1
    there = p.placed[at]
    there.run, there.start, there.end = run, row.run_start, row.run_end
    there.offset, there.top = row.offset, row.offset + size_of(s, run)
    there.first_access, there.last_access = item.first_access, s.items[row.run_last].last_access
    for i in range(there.first_access, there.last_access):
        counts.saved += serve(s, s.order[i], True)
    p.position[run] = at
    counts.placed += 1
    change = p.journal[counts.journal]
    write_row(s, p, run, change)
    change.is_added = True
    counts.journal += 1


@internal
def take_out(s: StayTables, p: Arrangement, run: int) -> None:
    """Takes a run out; its row is the last one of the journal."""
    counts = p.counts[0]
    change = p.journal[counts.journal]
    write_row(s, p, run, change)
    change.is_added = False
    counts.journal += 1
    at = p.position[run]
    there = p.placed[at]
    for i in range(there.first_access, there.last_access):
        counts.saved += serve(s, s.order[i], False)
    for number in range(run, change.run_last + 1):
        s.items[number].run = NONE
    p.position[run] = NONE
    counts.placed -= 1
    for after in range(at, counts.placed):
        p.placed[after] = p.placed[after + 1]
        if p.placed[after].run != NONE:
            p.position[p.placed[after].run] = after


@internal
def roll_back(s: StayTables, p: Arrangement) -> None:
    """Undoes what is in the journal, and empties it."""
    counts = p.counts[0]
    changes = counts.journal
    while changes > 0:
        changes -= 1
        change = p.journal[changes]
        counts.journal = changes + 1  # What undoes it is written behind it.
        if change.is_added:
            take_out(s, p, change.run)
        else:
            put_in(s, p, change)
    counts.journal = 0


@internal
def floor_of(p: Arrangement, start: int, end: int) -> int:
    """Returns the lowest offset that is not reserved at any of some times."""
    floor = 0
    for t in range(start, end):
        floor = max(floor, p.reserved[t])
    return floor


@internal
def is_within(p: Arrangement, row: Any, top: int) -> bool:
    """Whether a row lies in the space, above what is reserved, and in the times of the arrangement."""
    if row.run_start < p.counts[0].first or row.run_end > p.counts[0].last or top > p.capacity[0]:
        return False
    return bool(row.offset >= floor_of(p, row.run_start, row.run_end))


@internal
def _overlap(there: Any, row: Any, top: int) -> bool:
    """Whether what is placed and a row that ends at an offset take the same units at some time."""
    if there.start >= row.run_end or row.run_start >= there.end:
        return False
    return bool(there.offset < top and row.offset < there.top)


@internal
def is_free(s: StayTables, p: Arrangement, row: Any) -> bool:
    """Whether nothing lies where a row wants to, and nothing else serves its accesses."""
    top = row.offset + size_of(s, row.run)
    first, last = s.items[row.run].first_access, s.items[row.run_last].last_access
    if not is_within(p, row, top):
        return False
    for i in range(p.counts[0].placed):
        there = p.placed[i]
        if there.first_access < last and first < there.last_access:
            return False
        if _overlap(there, row, top):
            return False
    return True


@internal
def find_gap(s: StayTables, p: Arrangement, row: Any) -> bool:
    """Gives a row the offset of the smallest gap that holds it; returns whether there is one, and nothing else serves
    its accesses.
    """
    size, capacity = size_of(s, row.run), p.capacity[0]
    first, last = s.items[row.run].first_access, s.items[row.run_last].last_access
    start, end, placed = row.run_start, row.run_end, p.placed
    if start < p.counts[0].first or end > p.counts[0].last:
        return False
    best, least, top = NONE, capacity + 1, floor_of(p, start, end)
    for i in range(p.counts[0].placed):
        there = placed[i]
        if there.start < end and start < there.end:
            if there.first_access < last and first < there.last_access:
                return False
            if size <= there.offset - top < least:
                best, least = top, there.offset - top
            top = max(top, there.top)
    if size <= capacity - top < least:
        best = top
    row.offset = best
    return best != NONE


@internal
def make_way(s: StayTables, p: Arrangement, row: Any) -> bool:
    """Takes out what lies where a row wants to or serves its accesses, which then waits; returns whether that is
    possible.
    """
    counts, placed = p.counts[0], p.placed
    top = row.offset + size_of(s, row.run)
    first, last = s.items[row.run].first_access, s.items[row.run_last].last_access
    if not is_within(p, row, top):
        return False
    i = counts.placed - 1
    while i >= 0:
        there = placed[i]
        if _overlap(there, row, top) or (there.first_access < last and first < there.last_access):
            if there.run == NONE:
                return False
            take_out(s, p, there.run)
            p.waiting[counts.waiting] = p.journal[counts.journal - 1]
            counts.waiting += 1
        i -= 1
    return True


@internal
def place_waiting(s: StayTables, p: Arrangement) -> None:
    """Lets the runs that wait look for gaps, the largest first."""
    counts, waiting = p.counts[0], p.waiting
    for i in range(1, counts.waiting):
        at = i
        p.stay[1] = waiting[i]
        area = size_of(s, waiting[i].run) * (waiting[i].run_end - waiting[i].run_start)
        while at > 0:
            before = waiting[at - 1]
            if size_of(s, before.run) * (before.run_end - before.run_start) >= area:
                break
            waiting[at] = waiting[at - 1]
            at -= 1
        waiting[at] = p.stay[1]
    for i in range(counts.waiting):
        if is_possible(s, waiting[i]) and find_gap(s, p, waiting[i]):
            put_in(s, p, waiting[i])
    counts.waiting = 0


@internal
def remember_best(s: StayTables, p: Arrangement) -> None:
    """Makes the runs that are in the best arrangement."""
    counts = p.counts[0]
    counts.best = 0
    for i in range(counts.placed):
        if p.placed[i].run != NONE:
            write_row(s, p, p.placed[i].run, p.best[counts.best])
            counts.best += 1


@internal
def go_to_best(s: StayTables, p: Arrangement) -> None:
    """Puts the runs of the best arrangement in, in place of those that are in; the journal holds what changes."""
    counts = p.counts[0]
    i = counts.placed - 1
    while i >= 0:
        if p.placed[i].run != NONE:
            take_out(s, p, p.placed[i].run)
        i -= 1
    for i in range(counts.best):
        put_in(s, p, p.best[i])


@internal
def latency_after_changes(s: StayTables, e: Evaluation, p: Arrangement) -> float:
    """Returns the seconds of the program after what is in the journal; `keep` or `undo` of the evaluation follows."""
    decide_runs(s, e, p.journal, p.counts[0].journal)
    return latency_of_decided(e)
