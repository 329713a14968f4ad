"""What runs take of the fast space, the link and the operations: bookings of each, compiled by numba.

Room is the sum of sizes at each time; offsets are found afterwards, as XLA's repacking does.

Copies are booked as in XLA's copy resource (`AsynchronousCopyResource` in its memory space assignment). A copy moves in
the slot where it starts and, with what is left of it, in the next ones, which delays the copies that start there; no
copy may make another late. There are two differences. A slot offers the time that its operation really leaves of the
link, given the memories that serve its accesses by now. A loop offers all its iterations to the copies that span it.

         idle time of slots   ▕███   ▕█▏     ▕████  ▕██
         copies                └─1───────────┘└──2──┘      1 is issued at the first slot, done before the fourth
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import entry, internal
from memplan.planners.stays.rules_kernel import duration
from memplan.planners.stays.tables import NONE, StayTables

TINY = 1e-15  # seconds that count as none

by_reference(StayTables)


@internal
def idle(s: StayTables, slot: int) -> float:
    """Returns the seconds that a slot leaves to copies."""
    if not s.slots[slot].is_operation:
        return s.slots[slot].idle
    t = s.slots[slot].time
    if t >= len(s.operations):
        return 0.0
    operation = s.operations[t]
    return max(0.0, duration(operation.floor, operation.demand) - operation.taken)


@entry
def refresh(s: StayTables) -> None:
    """Recomputes what the copies leave of every slot, from what is decided."""
    within = np.zeros(len(s.slots))  # idle seconds of its region before each slot
    for back in range(len(s.regions)):
        region = s.regions[len(s.regions) - 1 - back]  # children come after their parents
        total, left = 0.0, 0.0
        for slot in range(region.first, region.last):
            row = s.slots[slot]
            if not row.is_operation:
                offered = np.inf
                for i in range(row.inner_first, row.inner_last):
                    inner = s.regions[s.inner[i]]
                    room = 0.0
                    for u in range(inner.first, inner.last):
                        room += idle(s, u) - s.slots[u].arrivals
                    offered = min(offered, max(0.0, room))
                row.idle = offered * row.trips
            row.slack = np.inf
            row.backlog = left
            within[slot] = total
            total += idle(s, slot)
            left = max(0.0, left + row.arrivals - idle(s, slot))
    for run in range(len(s.items)):
        item = s.items[run]
        if item.run == run:
            for is_prefetch in (True, False):
                start = item.prefetch_start if is_prefetch else item.eviction_start
                done = item.prefetch_done if is_prefetch else item.eviction_done
                if start != NONE and not (is_prefetch and item.late > 0.0):
                    row = s.slots[start]
                    row.slack = min(row.slack, within[done] - within[start] - row.backlog - row.arrivals)


@internal
def delays_nobody(s: StayTables, start: int, end: int, seconds: float) -> bool:
    """Whether a further copy at slot `start` leaves the copies that start later, before slot `end`, in time."""
    extra = seconds
    for slot in range(start, end - 1):
        work = s.slots[slot].backlog + s.slots[slot].arrivals - idle(s, slot)
        before = max(0.0, work) if slot == start else s.slots[slot + 1].backlog
        extra = max(0.0, work + extra) - before
        if extra <= TINY:
            return True
        if s.slots[slot + 1].slack < extra:
            return False
    return True


@internal
def book_copy(s: StayTables, start: int, done: int, seconds: float) -> None:
    """Enters a copy; negative `seconds` take one out. The slots of its region must not end before `done`."""
    row = s.slots[start]
    if seconds > 0.0:
        room = -row.backlog - row.arrivals - seconds
        for slot in range(start, done):
            room += idle(s, slot)
        row.slack = min(row.slack, room)
    row.arrivals += seconds
    if row.arrivals < TINY:
        row.arrivals = 0.0
        row.slack = np.inf
    for slot in range(start, len(s.slots) - 1):
        left = max(0.0, s.slots[slot].backlog + s.slots[slot].arrivals - idle(s, slot))
        change = left - s.slots[slot + 1].backlog
        # The next region's first slot has no backlog: nothing is carried over to it.
        if abs(change) <= TINY or s.slots[slot + 1].time < s.slots[slot].time:
            break
        s.slots[slot + 1].backlog = left
        s.slots[slot + 1].slack -= change


@internal
def book_run(s: StayTables, run: int, sign: int) -> float:
    """Takes the room and the link time that a run remembers (`sign` 1), or gives them back (-1).

    Returns:
      the seconds of its copies, all repetitions.
    """
    item = s.items[run]
    buffer = s.buffers[s.chains[item.chain].buffer]
    for t in range(item.run_start, item.run_end):
        s.free[t] -= sign * buffer.size
    copied = 0.0
    if item.prefetch_start != NONE:
        copied += buffer.prefetch_seconds
        book_copy(s, item.prefetch_start, item.prefetch_done, sign * max(buffer.prefetch_seconds - item.late, 0.0))
    if item.eviction_start != NONE:
        copied += buffer.eviction_seconds
        book_copy(s, item.eviction_start, item.eviction_done, sign * buffer.eviction_seconds)
    return copied * s.slots[item.slot].repetitions


@internal
def has_room(s: StayTables, start: int, end: int, size: int) -> bool:
    """Whether `size` units are free at all times in [start, end)."""
    for t in range(start, end):  # noqa: SIM110
        if s.free[t] < size:
            return False
    return True


@internal
def serve(s: StayTables, access: int, fast: bool) -> float:
    """Serves an access from the fast space, or at home; returns the seconds of the program that this saves."""
    row = s.accesses[access]
    if row.is_fast == fast:
        return 0.0
    row.is_fast = fast
    operation = s.operations[row.time]
    before = duration(operation.floor, operation.demand)
    operation.demand -= row.saving if fast else -row.saving
    operation.taken -= row.traffic if fast else -row.traffic
    return (before - duration(operation.floor, operation.demand)) * operation.repetitions
