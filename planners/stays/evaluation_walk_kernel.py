"""The walk over what a candidate changes, with marks at which it may begin and end. Compiled by numba.

The clock is the emulator's (`timing_kernel.py`), whose loops, branches and queues are used as they are. This file says
how a walk begins at a mark, finds its copies in lists instead of arrays, and ends. Loops and conditionals are walked as
a whole: marks are outside of them.

What is in flight at two marks is the same, but for rounding, if it is the same copies in the same order in each queue,
with as many bytes left of each and as long to wait. The clock may differ, since nothing that follows depends on it.
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.by_reference import by_reference
from memplan.compiler.emulator.timing_kernel import NEVER, append, drain, enter_regions, issue, leave_regions
from memplan.compiler.emulator.timing_rows import LinkState, ScheduleRows
from memplan.compiler.kernels import internal
from memplan.planners.stays.evaluation import Evaluation
from memplan.planners.stays.tables import NONE

# The part of the latency by which what is left of two copies may differ to count as the same.
_ROUNDING = 1e-14

by_reference(Evaluation)


@internal
def _clear(copies: np.ndarray, queues: np.ndarray) -> None:
    """Empties the queues."""
    for q in range(len(queues)):
        number = queues[q].head
        while number >= 0:
            copies[number].is_pending = False
            number = copies[number].next
        queues[q].head = -1
        queues[q].tail = -1


@internal
def _load(e: Evaluation, t: int, clock: float) -> None:
    """Brings the queues into the state of the reference at a mark."""
    _clear(e.links.copies, e.links.queues)
    side = e.times[t].side
    for i in range(e.marks[side, t].count):
        flight = e.in_flight[side, t, i]
        copy = e.links.copies[flight.number]
        copy.is_pending = True
        copy.remaining = flight.remaining
        copy.lowest = flight.remaining
        copy.ready = clock + flight.wait
        append(flight.number, e.links)


@internal
def _write(
    marks: np.ndarray, t: int, in_flight: np.ndarray, copies: np.ndarray, queues: np.ndarray, clock: float
) -> None:
    """Writes the present state as the candidate's mark of a time."""
    mark = marks[t]
    mark.clock = clock
    mark.is_walked = True
    mark.count = 0
    for q in range(len(queues)):
        number = queues[q].head
        while number >= 0:
            if mark.count == in_flight.shape[1]:
                mark.count = NONE
                return
            flight, copy = in_flight[t, mark.count], copies[number]
            flight.number, flight.remaining = number, copy.remaining
            flight.wait = max(0.0, copy.ready - clock)
            mark.count += 1
            number = copy.next


@internal
def _are_alike(one: np.ndarray, other: np.ndarray, count: int, copies: np.ndarray, seconds: float) -> bool:
    """Whether two marks have the same copies in flight, with what is left of them but for some seconds."""
    for i in range(count):
        a, b = one[i], other[i]
        if a.number != b.number or abs(a.wait - b.wait) > seconds:
            return False
        if abs(a.remaining - b.remaining) > seconds * copies[a.number].bandwidth:
            return False
    return True


@internal
def _mark_before(times: np.ndarray, marks: np.ndarray, t: int) -> int:
    """Returns the last time up to `t` with a mark of the reference from which a walk can begin."""
    t = times[t].mark
    while marks[times[t].side, t].count == NONE:
        t = times[t - 1].mark
    return t


@internal
def _next_change(times: np.ndarray, t: int) -> int:
    """Returns the first time from `t` on at which something is changed; `n + 1` if there is none."""
    while t < len(times) - 1 and not times[t].is_changed:
        t += 1
    return t


@internal
def _run_operation(
    times: np.ndarray, t: int, copy_lists: np.ndarray, schedule: ScheduleRows, clock: float, links: LinkState
) -> float:
    """Awaits and issues the copies of a time and runs its operation, as in `timing_kernel.run_operation`."""
    time, duration = times[t], schedule.operations[t].duration
    number = time.first_awaited
    while number >= 0:
        clock = drain(clock, NEVER, number, links.whole, links)
        number = copy_lists[number].next_awaited
    number = time.first_issued
    while number >= 0:
        issue(number, clock, links)
        if copy_lists[number].start == copy_lists[number].done:
            clock = drain(clock, NEVER, number, links.whole, links)
        number = copy_lists[number].next_issued
    if duration > 0.0:
        clock = drain(clock, clock + duration, NONE, schedule.idle_fraction[t], links)
    return clock


@internal
def _walk(e: Evaluation, t: int, change: int) -> float:
    """Walks from a mark at `t` on until nothing differs from the reference any more; returns the program's seconds.

    Args:
      change: first time at which something is changed; -1 if there is no reference.
    """
    schedule, links, stack = e.schedule, e.links, e.stack
    # What is taken out of a tuple of arrays in a loop costs more than the loop itself.
    operations, copies, queues = schedule.operations, links.copies, links.queues
    times, copy_lists, marks, in_flight = e.times, e.copy_lists, e.marks, e.in_flight
    n = len(times) - 2
    rounding = _ROUNDING * e.state[0].reference
    clock = float(marks[times[t].side, t].clock)
    _load(e, t, clock)
    begin, depth, stalled = t, np.int64(0), 0.0
    opened = operations[t].opens
    while True:
        if depth == 0 and t != begin:
            side = times[t].side
            known, mark = marks[side, t], marks[1 - side, t]
            _write(marks[1 - side], t, in_flight[1 - side], copies, queues, clock)
            e.state[0].walked = t
            if change != NONE and mark.count == known.count != NONE:
                if _are_alike(in_flight[side, t], in_flight[1 - side, t], mark.count, copies, rounding):
                    change = _next_change(times, max(t, change))
                    shift = clock - known.clock
                    if change > n:
                        return float(e.state[0].reference + shift)
                    begin = _mark_before(times, marks, change)
                    if begin > t:
                        t = begin
                        clock = marks[times[t].side, t].clock + shift
                        opened = operations[t].opens
                        _load(e, t, clock)
        is_skipped, t, depth = enter_regions(t, opened, depth, clock, stalled, schedule, links, stack)
        if not is_skipped:
            clock = _run_operation(times, t, copy_lists, schedule, clock, links)
            if t == n:
                return float(clock)
            t += 1
        if depth == 0:
            opened = operations[t].opens
        else:
            t, opened, depth, clock, stalled = leave_regions(t, depth, clock, stalled, schedule, links, stack)


@internal
def walk_changes(e: Evaluation, first: int) -> float:
    """Returns the seconds of a candidate that differs from the reference, at `first` for the first time."""
    state = e.state[0]
    state.begun = _mark_before(e.times, e.marks, first)
    return _walk(e, state.begun, first)


@internal
def walk_all(e: Evaluation) -> float:
    """Returns the seconds of the whole program, and marks all of its times."""
    e.state[0].begun = 0
    return _walk(e, 0, NONE)
