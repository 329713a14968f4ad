"""Where the copies of a run can start and be done, so that they are in time and delay no other. Compiled by numba."""

from __future__ import annotations

from typing import Any

from memplan.compiler.kernels import internal
from memplan.planners.stays.booking_kernel import book_copy, delays_nobody, has_room, idle
from memplan.planners.stays.rules_kernel import writer_to_evict
from memplan.planners.stays.tables import NONE, StayTables


@internal
def operation_at_or_before(s: StayTables, slot: int, first: int) -> int:
    """Returns the last slot in [first, slot] that is an operation; -1 if there is none."""
    while slot >= first and not s.slots[slot].is_operation:
        slot -= 1
    return slot if slot >= first else NONE


@internal
def earliest_prefetch(s: StayTables, low: int) -> int:
    """Returns the first slot at which the copy that fills a run of items from `low` on may start; -1 for none."""
    item = s.items[low]
    if item.writer == NONE:
        return s.regions[s.chains[item.chain].region].first
    # Its value is at home after the operation that wrote it there, or after the eviction of the run that wrote it.
    run = s.items[item.writer].run
    return s.items[item.writer].ready if run == NONE else s.items[run].eviction_done


@internal
def latest_eviction(s: StayTables, high: int) -> int:
    """Returns the last slot at which the copy home of a run of items up to `high` may be done; -1 for none."""
    chain = s.chains[s.items[high].chain]
    region = s.regions[chain.region]
    latest = operation_at_or_before(s, region.last - 1, region.first)
    for following in range(high + 1, chain.last):
        other = s.items[following]
        if other.run == NONE:
            latest = min(latest, operation_at_or_before(s, other.wanted, region.first))
        elif other.run == following and other.prefetch_start != NONE:
            latest = min(latest, other.prefetch_start)
        if other.writes:
            break
    return latest


@internal
def _find_prefetch(s: StayTables, number: int, tries: int, patience: float) -> tuple[int, int, float]:
    """Finds a copy from home that fills a stay for an item.

    It walks back from the item, as long as there is room for the buffer, and adds up the time that slots offer. The
    latest start at which the copy is in time is taken, or else the one at which it is late by the least, if that is
    below `patience`.

    Returns:
      the slots at which it starts and is done, -1 for none, and the seconds by which it is late.
    """
    item = s.items[number]
    chain = s.chains[item.chain]
    buffer, region = s.buffers[chain.buffer], s.regions[chain.region]
    size, seconds = buffer.size, buffer.prefetch_seconds
    done = operation_at_or_before(s, item.slot, region.first)
    if done == NONE or not has_room(s, s.slots[done].time, item.start, size):
        return NONE, NONE, 0.0
    earliest = earliest_prefetch(s, number)
    if earliest == NONE:
        return NONE, NONE, 0.0
    offered = 0.0
    best, least = NONE, patience
    for slot in range(done, earliest - 1, -1):
        row = s.slots[slot]
        if slot < done:
            if not has_room(s, row.time, row.end, size):
                break
            offered += idle(s, slot)
        if not row.is_operation:
            continue
        # Of the copies that start at the same slot, those that are awaited first go first.
        late = row.backlog + seconds - offered + (row.arrivals if slot < done else 0.0)
        if late <= 0.0:
            if delays_nobody(s, slot, region.last, seconds):
                return slot, done, 0.0
            tries -= 1
            if tries == 0:
                break
        elif late < least:
            best, least = slot, late
    if best != NONE and delays_nobody(s, best, done, seconds):
        return best, done, least
    late = s.slots[done].backlog + seconds
    return (done, done, late) if late < patience else (NONE, NONE, 0.0)


@internal
def _find_eviction(s: StayTables, number: int, writer: int, run_end: int, tries: int) -> tuple[int, int]:
    """Finds a copy home for a run whose last item is `number`, as early as can be.

    It starts after the item that writes, and must be done before the value is wanted at home. The stay lasts so long.

    Returns:
      the slots at which it starts and is done, -1 for none.
    """
    chain = s.chains[s.items[number].chain]
    buffer, region = s.buffers[chain.buffer], s.regions[chain.region]
    latest = latest_eviction(s, number)
    start = s.items[writer].slot + 1
    while start <= latest and tries > 0:
        if not s.slots[start].is_operation:
            start += 1
            continue
        wanted = s.slots[start].backlog + s.slots[start].arrivals + buffer.eviction_seconds
        done = start
        while done < latest and wanted > 0.0:
            wanted -= idle(s, done)
            done += 1
        while done <= latest and not s.slots[done].is_operation:
            done += 1
        if wanted > 0.0 or done > latest:
            break  # Later starts leave even less time.
        until = max(s.slots[done].time, s.slots[start].time + 1)
        if until > run_end and not has_room(s, run_end, until, buffer.size):
            break
        if delays_nobody(s, start, region.last, buffer.eviction_seconds):
            return start, done
        tries -= 1
        start += 1
    return NONE, NONE


@internal
def schedule_prefetch(s: StayTables, low: int, tries: int, patience: float, stay: Any) -> bool:
    """Lets a stay begin with the copy that fills it, or with the program if the previous run left it there.

    Args:
      low: the item with which the run begins.
      tries, patience: see `_find_prefetch`.
      stay: ITEM_ROW whose run starts with the item; its times change.

    Returns:
      whether that is possible.
    """
    size = s.buffers[s.chains[s.items[low].chain].buffer].size
    if low == s.facts[0].kept_item:
        if not has_room(s, 0, stay.run_start, size):
            return False
        stay.run_start = 0
        return True
    if not s.facts[0].can_prefetch:
        return False
    stay.prefetch_start, stay.prefetch_done, stay.late = _find_prefetch(s, low, tries, patience)
    if stay.prefetch_start == NONE:
        return False
    stay.run_start = s.slots[stay.prefetch_start].time
    return True


@internal
def schedule_eviction(s: StayTables, low: int, high: int, tries: int, stay: Any) -> bool:
    """Lets a stay end with the copy that brings its value home, if the value is changed and wanted there.

    Args:
      low, high: the run's first and last item.
      tries: starts that are looked at.
      stay: ITEM_ROW whose prefetch is scheduled; its times change.

    Returns:
      whether that is possible.
    """
    writer = writer_to_evict(s.items, s.chains, low, high)
    if writer == NONE:
        return True
    if not s.facts[0].can_evict:
        return False
    # What the prefetch takes of the link is not there for the eviction.
    moved = max(s.buffers[s.chains[s.items[low].chain].buffer].prefetch_seconds - stay.late, 0.0)
    if stay.prefetch_start != NONE:
        book_copy(s, stay.prefetch_start, stay.prefetch_done, moved)
    stay.eviction_start, stay.eviction_done = _find_eviction(s, high, writer, stay.run_end, tries)
    if stay.prefetch_start != NONE:
        book_copy(s, stay.prefetch_start, stay.prefetch_done, -moved)
    if stay.eviction_start == NONE:
        return False
    stay.run_end = max(stay.run_end, s.slots[stay.eviction_done].time, s.slots[stay.eviction_start].time + 1)
    return True
