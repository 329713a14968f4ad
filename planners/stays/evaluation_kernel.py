"""The latency of a search's tables: brings its lists up to date, and walks what that changes with the emulator's clock.

The same rules and the same kernel as `TimingEmulator.latency_of`, so the same seconds but for rounding; what is saved
is the way there. `latency_after` evaluates a candidate against the reference; `keep` makes it the reference, and `undo`
forgets it. `latency_of_tables` walks all, and makes that the reference.
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.kernels import entry, internal
from memplan.planners.stays.evaluation import Evaluation
from memplan.planners.stays.evaluation_walk_kernel import walk_all, walk_changes
from memplan.planners.stays.tables import NONE, StayTables

# Of `Evaluation.counts`.
_COPIES, _ACCESSES, _FIRST, _LAST = range(4)


@internal
def _note(times: np.ndarray, counts: np.ndarray, t: int) -> None:
    times[t].is_changed = True
    counts[_FIRST] = min(counts[_FIRST], t)
    counts[_LAST] = max(counts[_LAST], t + 1)


@internal
def _unlink(copy_lists: np.ndarray, times: np.ndarray, number: int) -> None:
    """Takes a copy out of the lists of its times."""
    row = copy_lists[number]
    time = times[row.start]
    if time.first_issued == number:
        time.first_issued = row.next_issued
    else:
        before = time.first_issued
        while copy_lists[before].next_issued != number:
            before = copy_lists[before].next_issued
        copy_lists[before].next_issued = row.next_issued
    if row.done == row.start:
        return
    time = times[row.done]
    if time.first_awaited == number:
        time.first_awaited = row.next_awaited
    else:
        before = time.first_awaited
        while copy_lists[before].next_awaited != number:
            before = copy_lists[before].next_awaited
        copy_lists[before].next_awaited = row.next_awaited


@internal
def _link(copy_lists: np.ndarray, times: np.ndarray, number: int) -> None:
    """Puts a copy into the lists of its times: issued by when they are done, awaited by when they start."""
    row = copy_lists[number]
    time = times[row.start]
    before, after = NONE, time.first_issued
    while after != NONE and (
        copy_lists[after].done < row.done or (copy_lists[after].done == row.done and after < number)
    ):
        before, after = after, copy_lists[after].next_issued
    row.next_issued = after
    if before == NONE:
        time.first_issued = number
    else:
        copy_lists[before].next_issued = number
    if row.done == row.start:
        return
    time = times[row.done]
    before, after = NONE, time.first_awaited
    while after != NONE and (
        copy_lists[after].start < row.start or (copy_lists[after].start == row.start and after < number)
    ):
        before, after = after, copy_lists[after].next_awaited
    row.next_awaited = after
    if before == NONE:
        time.first_awaited = number
    else:
        copy_lists[before].next_awaited = number


@internal
def _decide(e: Evaluation, number: int, start: int, done: int) -> None:
    """Lets a copy have other times; -1, -1 for none."""
    copy_lists, times, counts = e.copy_lists, e.times, e.counts
    row = copy_lists[number]
    row.old_start, row.old_done = row.start, row.done
    e.changed_copies[counts[_COPIES]] = number
    counts[_COPIES] += 1
    if row.start != NONE:
        _note(times, counts, row.start)
        _note(times, counts, row.done)
        _unlink(copy_lists, times, number)
    row.start, row.done = start, done
    if start != NONE:
        _note(times, counts, start)
        _note(times, counts, done)
        _link(copy_lists, times, number)


@internal
def _decide_copies(s: StayTables, e: Evaluation) -> None:
    """Lets all copies be as the tables say."""
    # What is taken out of a tuple of arrays in a loop costs more than the loop itself.
    items, slots, copy_lists = s.items, s.slots, e.copy_lists
    num_items = len(items)
    for number in range(num_items):
        item, prefetch, eviction = items[number], copy_lists[number], copy_lists[num_items + number]
        prefetch_start, prefetch_done, eviction_start, eviction_done = NONE, NONE, NONE, NONE
        if item.run == number:
            if item.prefetch_start != NONE:
                prefetch_start, prefetch_done = slots[item.prefetch_start].time, slots[item.prefetch_done].time
            if item.eviction_start != NONE:
                eviction_start, eviction_done = slots[item.eviction_start].time, slots[item.eviction_done].time
        if prefetch.start != prefetch_start or prefetch.done != prefetch_done:
            _decide(e, number, prefetch_start, prefetch_done)
        if eviction.start != eviction_start or eviction.done != eviction_done:
            _decide(e, num_items + number, eviction_start, eviction_done)
    kept, start, done = e.kept_item[0], NONE, NONE
    if (
        kept != NONE
        and e.prefetch_again[0] != NONE
        and items[kept].run == kept
        and items[kept].run_end < e.prefetch_again[0]
    ):
        start, done = e.prefetch_again[0], len(s.operations)
        e.links.copies[2 * num_items].bytes = e.sizes[s.chains[items[kept].chain].buffer]
    if copy_lists[2 * num_items].start != start or copy_lists[2 * num_items].done != done:
        _decide(e, 2 * num_items, start, done)
    for i in range(len(e.fixed)):
        if copy_lists[2 * num_items + 1 + i].start == NONE:
            _decide(e, 2 * num_items + 1 + i, e.fixed[i, 0], e.fixed[i, 1])


@internal
def _recompute(e: Evaluation, t: int) -> None:
    """Writes what an operation takes, and what it leaves of the channels, given what serves its accesses."""
    operation, idle = e.schedule.operations[t], e.schedule.idle_fraction[t]
    served, costs, channels, taken = e.served, e.cost, e.channel, e.taken
    seconds = 0.0
    idle[:] = 0.0
    for access in range(e.first_access[t], e.first_access[t + 1]):
        place = served[access]
        seconds += costs[access, place]
        channel = channels[access, place]
        if channel >= 0:
            idle[channel] += taken[access, place]
    operation.duration = max(e.floor[t], e.overhead[t] + seconds)
    for channel in range(len(idle)):
        left = 1.0 - idle[channel] / operation.duration if operation.duration > 0.0 else 0.0
        idle[channel] = max(left, 0.0)


@internal
def _decide_accesses(s: StayTables, e: Evaluation) -> None:
    """Lets all accesses be served as the tables say."""
    accesses, served, changed, count = s.accesses, e.served, e.changed_accesses, e.counts[_ACCESSES]
    last = NONE  # the operation of the last one that changed
    for access in range(len(accesses)):
        row = accesses[access]
        place = 1 if row.is_fast else 0
        if served[access] == place:
            continue
        served[access] = place
        changed[count] = access
        count += 1
        if row.time != last:
            if last != NONE:
                _recompute(e, last)
            last = row.time
            _note(e.times, e.counts, last)
    if last != NONE:
        _recompute(e, last)
    e.counts[_ACCESSES] = count


@internal
def _forget_changes(e: Evaluation) -> None:
    times, counts = e.times, e.counts
    for t in range(counts[_FIRST], counts[_LAST]):
        times[t].is_changed = False
    counts[_COPIES] = counts[_ACCESSES] = counts[_LAST] = 0
    counts[_FIRST] = len(times)


@entry
def latency_after(s: StayTables, e: Evaluation) -> float:
    """Returns the seconds that the program takes under what is decided; `keep` or `undo` must follow."""
    _decide_accesses(s, e)
    _decide_copies(s, e)
    e.latency[1] = walk_changes(e, e.counts[_FIRST]) if e.counts[_LAST] > 0 else e.latency[0]
    return float(e.latency[1])


@entry
def keep(e: Evaluation) -> None:
    """Makes the last candidate the reference."""
    times, marks = e.times, e.marks
    shift = 0.0
    if e.counts[_LAST] > 0:
        for t in range(times[e.counts[_FIRST]].mark, len(times) - 1):
            time = times[t]
            present, other = marks[time.side, t], marks[1 - time.side, t]
            if other.is_walked:
                shift = other.clock - present.clock
                time.side = 1 - time.side
                other.is_walked = False
            else:
                present.clock += shift
    e.latency[0] = e.latency[1]
    _forget_changes(e)


@entry
def undo(e: Evaluation) -> None:
    """Forgets the last candidate."""
    copy_lists, times, marks = e.copy_lists, e.times, e.marks
    for i in range(e.counts[_COPIES]):
        number = e.changed_copies[i]
        row = copy_lists[number]
        if row.start != NONE:
            _unlink(copy_lists, times, number)
        row.start, row.done = row.old_start, row.old_done
        if row.start != NONE:
            _link(copy_lists, times, number)
    for i in range(e.counts[_ACCESSES]):
        access = e.changed_accesses[i]
        e.served[access] = 1 - e.served[access]
    for t in range(e.counts[_FIRST], min(e.counts[_LAST], len(times) - 2)):
        if times[t].is_changed:
            _recompute(e, t)
    if e.counts[_LAST] > 0:
        for t in range(len(times)):
            marks[1 - times[t].side, t].is_walked = False
    _forget_changes(e)


@entry
def latency_of_tables(s: StayTables, e: Evaluation) -> float:
    """Returns the seconds that the program takes under what is decided, and makes that the reference."""
    _decide_accesses(s, e)
    _decide_copies(s, e)
    _note(e.times, e.counts, 0)
    e.latency[1] = walk_all(e)
    keep(e)
    return float(e.latency[0])
