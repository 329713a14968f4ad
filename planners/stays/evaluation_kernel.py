"""The latency of a search's tables: its lists are brought up to date, and the emulator's clock walks what that changes.

Rules and clock are those of `TimingEmulator.latency_of`, so the seconds are the same but for rounding. `latency_after`
evaluates a candidate against the reference; `keep` makes it the reference, and `undo` forgets it. `latency_of_tables`
walks the whole program, and makes that the reference.
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.arrays_kernel import fill
from memplan.compiler.kernels import internal
from memplan.planners.stays.evaluation import FAST, HOME, Evaluation
from memplan.planners.stays.evaluation_walk_kernel import walk_all, walk_changes
from memplan.planners.stays.rules_kernel import duration, idle_fraction, until_next_run
from memplan.planners.stays.tables import NONE, StayTables


@internal
def _note(times: np.ndarray, states: np.ndarray, t: int) -> None:
    """Notes that something is changed at a time."""
    state = states[0]
    times[t].is_changed = True
    state.first = min(state.first, t)
    state.last = max(state.last, t + 1)


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
    copy_lists, times, states = e.copy_lists, e.times, e.state
    row = copy_lists[number]
    row.old_start, row.old_done = row.start, row.done
    e.changed_copies[states[0].num_copies] = number
    states[0].num_copies += 1
    if row.start != NONE:
        _note(times, states, row.start)
        _note(times, states, row.done)
        _unlink(copy_lists, times, number)
    row.start, row.done = start, done
    if start != NONE:
        _note(times, states, start)
        _note(times, states, done)
        _link(copy_lists, times, number)


@internal
def _decide_copies_of(s: StayTables, e: Evaluation, number: int) -> None:
    """Lets the copies of the run that begins with an item be as the tables say."""
    num_items = len(s.items)
    item, prefetch, eviction = s.items[number], e.copy_lists[number], e.copy_lists[num_items + number]
    prefetch_start, prefetch_done, eviction_start, eviction_done = NONE, NONE, NONE, NONE
    if item.run == number:
        if item.prefetch_start != NONE:
            prefetch_start, prefetch_done = s.slots[item.prefetch_start].time, s.slots[item.prefetch_done].time
        if item.eviction_start != NONE:
            eviction_start, eviction_done = s.slots[item.eviction_start].time, s.slots[item.eviction_done].time
    if prefetch.start != prefetch_start or prefetch.done != prefetch_done:
        _decide(e, number, prefetch_start, prefetch_done)
    if eviction.start != eviction_start or eviction.done != eviction_done:
        _decide(e, num_items + number, eviction_start, eviction_done)


@internal
def decide_run(s: StayTables, e: Evaluation, first: int, last: int) -> None:
    """Lets items [first, last] be served, and the copies of a run that begins with the first, be as the tables say."""
    state = e.state[0]
    for i in range(s.items[first].first_access, s.items[last].last_access):
        access = s.order[i]
        row = s.accesses[access]
        place = FAST if row.is_fast else HOME
        if e.served[access] != place:
            e.served[access] = place
            e.changed_accesses[state.num_accesses] = access
            state.num_accesses += 1
            _note(e.times, e.state, row.time)
            _recompute(e, row.time)
    _decide_copies_of(s, e, first)


@internal
def decide_runs(s: StayTables, e: Evaluation, journal: np.ndarray, count: int) -> None:
    """Lets the first changes of a journal be as the tables say; each row has the first and the last item of a run."""
    for i in range(count):
        decide_run(s, e, journal[i].run, journal[i].run_last)


@internal
def latency_of_decided(e: Evaluation) -> float:
    """Returns the seconds of the program after each changed run went through `decide_run`; `keep` or `undo` follows."""
    state = e.state[0]
    state.candidate = walk_changes(e, state.first) if state.last > 0 else state.reference
    return float(state.candidate)


@internal
def _decide_kept(s: StayTables, e: Evaluation) -> None:
    """Lets the copy that leaves the kept buffer to the next run be as the tables say."""
    num_items = len(s.items)
    kept, n, start, done = s.facts[0].kept_item, len(s.operations), NONE, NONE
    if kept != NONE and s.items[kept].run == kept:
        _, again = until_next_run(s.items[kept].run_end, s.facts[0].kept_again, n + 1)
        if again <= n:
            start, done = again, n
            e.links.copies[2 * num_items].bytes = e.sizes[s.chains[s.items[kept].chain].buffer]
    if e.copy_lists[2 * num_items].start != start or e.copy_lists[2 * num_items].done != done:
        _decide(e, 2 * num_items, start, done)


@internal
def _decide_copies(s: StayTables, e: Evaluation) -> None:
    """Lets all copies be as the tables say."""
    num_items = len(s.items)
    for number in range(num_items):
        _decide_copies_of(s, e, number)
    _decide_kept(s, e)
    for i in range(len(e.fixed)):
        if e.copy_lists[2 * num_items + 1 + i].start == NONE:
            _decide(e, 2 * num_items + 1 + i, e.fixed[i].start, e.fixed[i].done)


@internal
def _recompute(e: Evaluation, t: int) -> None:
    """Writes what an operation takes, and what it leaves of the channels, given what serves its accesses."""
    operation, idle = e.schedule.operations[t], e.schedule.idle_fraction[t]
    served, costs, channels, taken = e.served, e.cost, e.channel, e.taken
    seconds = 0.0
    fill(idle, 0.0)
    for access in range(e.first_access[t], e.first_access[t + 1]):
        place = served[access]
        seconds += costs[access, place]
        channel = channels[access, place]
        if channel >= 0:
            idle[channel] += taken[access, place]
    operation.duration = duration(e.floor[t], e.overhead[t] + seconds)
    for channel in range(len(idle)):
        idle[channel] = idle_fraction(operation.duration, idle[channel])


@internal
def _decide_accesses(s: StayTables, e: Evaluation) -> None:
    """Lets all accesses be served as the tables say."""
    accesses, served, changed, count = s.accesses, e.served, e.changed_accesses, e.state[0].num_accesses
    last = NONE  # the operation of the last one that changed
    for access in range(len(accesses)):
        row = accesses[access]
        place = FAST if row.is_fast else HOME
        if served[access] == place:
            continue
        served[access] = place
        changed[count] = access
        count += 1
        if row.time != last:
            if last != NONE:
                _recompute(e, last)
            last = row.time
            _note(e.times, e.state, last)
    if last != NONE:
        _recompute(e, last)
    e.state[0].num_accesses = count


@internal
def _forget_changes(e: Evaluation) -> None:
    """Makes the lists of changes empty."""
    times, state = e.times, e.state[0]
    for t in range(state.first, state.last):
        times[t].is_changed = False
    state.num_copies = state.num_accesses = state.last = state.walked = 0
    state.first = len(times)


@internal
def latency_after(s: StayTables, e: Evaluation) -> float:
    """Returns the seconds that the program takes under what is decided; `keep` or `undo` must follow."""
    _decide_accesses(s, e)
    _decide_copies(s, e)
    return latency_of_decided(e)


@internal
def latency_after_journal(s: StayTables, e: Evaluation) -> float:
    """Returns what `latency_after` does, where the journal of the tables says what differs from the reference."""
    if s.changes[0] > len(s.journal):
        return latency_after(s, e)
    decide_runs(s, e, s.journal, s.changes[0])
    _decide_kept(s, e)
    return latency_of_decided(e)


@internal
def keep(e: Evaluation) -> None:
    """Makes the last candidate the reference."""
    times, marks, state = e.times, e.marks, e.state[0]
    shift = 0.0
    if state.last > 0:
        for t in range(state.begun, len(times) - 1):
            time = times[t]
            present, other = marks[time.side, t], marks[1 - time.side, t]
            if other.is_walked:
                shift = other.clock - present.clock
                time.side = 1 - time.side
                other.is_walked = False
            elif shift != 0.0:
                present.clock += shift
            elif t > state.walked:
                break
    state.reference = state.candidate
    _forget_changes(e)


@internal
def undo(e: Evaluation) -> None:
    """Forgets the last candidate."""
    copy_lists, times, marks, state = e.copy_lists, e.times, e.marks, e.state[0]
    for i in range(state.num_copies):
        number = e.changed_copies[i]
        row = copy_lists[number]
        if row.start != NONE:
            _unlink(copy_lists, times, number)
        row.start, row.done = row.old_start, row.old_done
        if row.start != NONE:
            _link(copy_lists, times, number)
    for i in range(state.num_accesses):
        access = e.changed_accesses[i]
        e.served[access] = HOME + FAST - e.served[access]
    for t in range(state.first, min(state.last, len(times) - 2)):
        if times[t].is_changed:
            _recompute(e, t)
    if state.last > 0:
        for t in range(state.begun, state.walked + 1):
            marks[1 - times[t].side, t].is_walked = False
    _forget_changes(e)


@internal
def latency_of_tables(s: StayTables, e: Evaluation) -> float:
    """Returns the seconds that the program takes under what is decided, and makes that the reference."""
    _decide_accesses(s, e)
    _decide_copies(s, e)
    _note(e.times, e.state, 0)
    e.state[0].candidate = walk_all(e)
    keep(e)
    return float(e.state[0].reference)
