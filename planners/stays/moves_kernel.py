"""Moves on an arrangement of runs. Compiled by numba.

A move puts one run where it is not: another run of accesses, a run at another offset or with other times of its
copies, or the two parts of a run that is cut. What lies there gives way. Then what gave way, and some runs that were
left out, look for gaps:

    memory ┤▓▓▓▓┌──────┐▒▒▒▒        ┌──────┐ put         gives way  ▓ ▒
           │▓▓▓▓│      │▒▒▒▒        │      │             looks for a gap  ▓ ▒ ░ …
           └────┴──────┴────► time  └──────┘

`rearrangement_kernel.py` decides which moves are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memplan.compiler.kernels import internal
from memplan.planners.stays.arrangement import Arrangement
from memplan.planners.stays.arrangement_kernel import (
    find_gap,
    floor_of,
    is_free,
    is_possible,
    make_way,
    place_waiting,
    put_in,
    set_times,
    size_of,
    take_out,
    write_row,
)
from memplan.planners.stays.booking_kernel import idle
from memplan.planners.stays.copies_kernel import earliest_prefetch, latest_eviction, operation_at_or_before
from memplan.planners.stays.random_kernel import below, uniform
from memplan.planners.stays.rules_kernel import writer_to_evict
from memplan.planners.stays.tables import NONE, StayTables

# The shares of moves that change the times of copies, that change an offset, that cut a run, and that drop some.
_RETIMES, _RESHELVES, _CUTS, _DROPS = 0.3, 0.15, 0.08, 0.12

# The share of random offsets that are at the bottom or at the top.
_EDGES = 0.25

# How many runs that were left out look for a gap after each move.
_SEEKERS = 12

# The seconds that operations leave to a copy, as a multiple of those that it takes: the least, and the range as a power
# of 2.
_LEAST_STRETCH, _STRETCHES = 0.5, 3.0

# The longest way of a start or an end of a copy, as a power of 2 in slots.
_WAYS = 6.0


@internal
def _draw_prefetch(s: StayTables, row: Any, random: np.ndarray) -> bool:
    """Gives a run the copy that fills it, if one is needed; returns whether it is possible."""
    item = s.items[row.run]
    row.prefetch_start = row.prefetch_done = NONE
    if not item.reads:
        return True
    region = s.regions[s.chains[item.chain].region]
    done, earliest = operation_at_or_before(s, item.slot, region.first), earliest_prefetch(s, row.run)
    if not s.facts[0].can_prefetch or done == NONE or earliest == NONE or earliest > done:
        return False
    wanted = s.buffers[s.chains[item.chain].buffer].prefetch_seconds
    wanted *= _LEAST_STRETCH * 2.0 ** (_STRETCHES * uniform(random))
    start = slot = done
    while slot > earliest and wanted > 0.0:
        slot -= 1
        wanted -= idle(s, slot)
        if s.slots[slot].is_operation:
            start = slot
    row.prefetch_start, row.prefetch_done = start, done
    return True


@internal
def _draw_eviction(s: StayTables, row: Any, random: np.ndarray) -> bool:
    """Gives a run the copy that brings its value home, if one is needed; returns whether it is possible."""
    row.eviction_start = row.eviction_done = NONE
    writer = writer_to_evict(s.items, s.chains, row.run, row.run_last)
    if writer == NONE:
        return True
    start, latest = s.items[writer].slot + 1, latest_eviction(s, row.run_last)
    while start <= latest and not s.slots[start].is_operation:
        start += 1
    if not s.facts[0].can_evict or start > latest:
        return False
    wanted = s.buffers[s.chains[s.items[row.run].chain].buffer].eviction_seconds
    wanted *= _LEAST_STRETCH * 2.0 ** (_STRETCHES * uniform(random))
    done = slot = start
    while slot < latest and wanted > 0.0:
        wanted -= idle(s, slot)
        slot += 1
        if s.slots[slot].is_operation:
            done = slot
    row.eviction_start, row.eviction_done = start, done
    return True


@internal
def _draw_copies(s: StayTables, row: Any, random: np.ndarray) -> bool:
    """Gives a run its copies and its times; returns whether that is possible."""
    if not _draw_prefetch(s, row, random) or not _draw_eviction(s, row, random):
        return False
    set_times(s, row)
    return True


@internal
def _draw_run(p: Arrangement, random: np.ndarray) -> int:
    """Returns a random run; -1 if there is none."""
    return p.placed[below(random, p.counts[0].placed)].run if p.counts[0].placed else NONE


@internal
def _draw_offset(s: StayTables, p: Arrangement, row: Any, random: np.ndarray) -> bool:
    """Gives a row a random offset: at the bottom or top, or beside what is alive at the same time."""
    count, size, capacity = p.counts[0].placed, size_of(s, row.run), p.capacity[0]
    edge = uniform(random)
    if edge < _EDGES or count == 0:
        row.offset = floor_of(p, row.run_start, row.run_end) if edge < 0.5 * _EDGES else capacity - size
        return True
    drawn = below(random, count)
    for i in range(count):
        there = p.placed[(drawn + i) % count]
        if there.start < row.run_end and row.run_start < there.end:
            row.offset = there.top if uniform(random) < 0.5 else there.offset - size
            return bool(row.offset >= 0 and row.offset + size <= capacity)
    return False


@internal
def _extend(s: StayTables, row: Any, random: np.ndarray) -> None:
    """Lets a run of items grow, by neighbours or by the runs that these belong to."""
    chain = s.chains[s.items[row.run].chain]
    drawn = uniform(random)
    if drawn < 0.15:
        row.run, row.run_last = chain.first, chain.last - 1
    elif drawn < 0.6:
        while row.run_last + 1 < chain.last:
            row.run_last += 1
            run = s.items[row.run_last].run
            if run != NONE:
                row.run_last = s.items[run].run_last
            if uniform(random) < 0.5:
                break
    else:
        while row.run > chain.first:
            row.run -= 1
            if s.items[row.run].run != NONE:
                row.run = s.items[row.run].run
            if uniform(random) < 0.5:
                break


@internal
def _is_open(p: Arrangement, row: Any) -> bool:
    """Whether all items of a row may have a stay."""
    for number in range(row.run, row.run_last + 1):  # noqa: SIM110
        if not p.is_open[number]:
            return False
    return True


@internal
def _take(s: StayTables, p: Arrangement, pool: np.ndarray, row: Any) -> bool:
    """Puts in a run around a random item; returns whether it did."""
    item = pool[below(p.random, len(pool))]
    row.run = row.run_last = item
    run = s.items[item].run
    if run != NONE:
        if p.position[run] == NONE:
            return False
        row.run, row.run_last = run, s.items[run].run_last
    if run != NONE or uniform(p.random) < 0.5:
        _extend(s, row, p.random)
    if not _is_open(p, row):
        return False
    if run != NONE and row.run == run and row.run_last == s.items[run].run_last:
        take_out(s, p, run)  # The whole chain is a run already.
        return True
    row.run_start, row.run_end = s.items[row.run].start, s.items[row.run_last].end
    # What serves the accesses gives way first, for its copies are not those of the new run.
    i = p.counts[0].placed - 1
    first, last = s.items[row.run].first_access, s.items[row.run_last].last_access
    offset = NONE
    while i >= 0:
        there = p.placed[i]
        if there.first_access < last and first < there.last_access:
            if there.run == NONE:
                return False
            offset = there.offset
            take_out(s, p, there.run)
        i -= 1
    if not _draw_copies(s, row, p.random):
        return False
    return _put(s, p, row, offset)


@internal
def _put(s: StayTables, p: Arrangement, row: Any, offset: int) -> bool:
    """Puts a run in: at an offset if it is free, in a gap, or where others give way; returns whether it did.

    Args:
      offset: -1 for none.
    """
    row.offset = offset
    if offset == NONE or not is_free(s, p, row):
        if not (uniform(p.random) < 0.5 and find_gap(s, p, row)):
            row.offset = offset
            if offset == NONE or uniform(p.random) < 0.5:
                if not _draw_offset(s, p, row, p.random):
                    return False
            if not make_way(s, p, row):
                return False
    if not is_possible(s, row):
        return False
    put_in(s, p, row)
    return True


@internal
def _way(random: np.ndarray) -> int:
    """Returns by how many slots the time of a copy changes."""
    way = int(2.0 ** (_WAYS * uniform(random)))
    return way if uniform(random) < 0.5 else -way


@internal
def _retime(s: StayTables, p: Arrangement, row: Any) -> bool:
    """Lets a copy of a random run start earlier or later, or be done so; returns whether it did."""
    run = _draw_run(p, p.random)
    if run == NONE:
        return False
    write_row(s, p, run, row)
    has_prefetch, has_eviction = row.prefetch_start != NONE, row.eviction_start != NONE
    if not has_prefetch and not has_eviction:
        return False
    take_out(s, p, run)
    if has_prefetch and (not has_eviction or uniform(p.random) < 0.6):
        earliest = earliest_prefetch(s, run)
        start = min(max(row.prefetch_start + _way(p.random), earliest), row.prefetch_done)
        while not s.slots[start].is_operation:
            start += 1
        if start == row.prefetch_start:
            return False
        row.prefetch_start = start
    else:
        latest = latest_eviction(s, row.run_last)
        done = max(min(row.eviction_done + _way(p.random), latest), row.eviction_start)
        while not s.slots[done].is_operation:
            done -= 1
        if done == row.eviction_done:
            return False
        row.eviction_done = done
    set_times(s, row)
    return _put(s, p, row, row.offset)


@internal
def _reshelve(s: StayTables, p: Arrangement, row: Any) -> bool:
    """Gives a random run another offset; returns whether it did."""
    run = _draw_run(p, p.random)
    if run == NONE:
        return False
    write_row(s, p, run, row)
    before = row.offset
    if not _draw_offset(s, p, row, p.random) or row.offset == before:
        return False
    take_out(s, p, run)
    if not make_way(s, p, row) or not is_possible(s, row):
        return False
    put_in(s, p, row)
    return True


@internal
def _cut(s: StayTables, p: Arrangement, row: Any) -> bool:
    """Cuts a random run in two, which both get copies where they need them; returns whether it did."""
    run = _draw_run(p, p.random)
    if run == NONE or s.items[run].run_last == run:
        return False
    write_row(s, p, run, row)
    last, offset = row.run_last, row.offset
    cut = run + below(p.random, last - run)
    take_out(s, p, run)
    row.run_last = cut
    is_changed = _draw_copies(s, row, p.random) and (is_free(s, p, row) or find_gap(s, p, row))
    if is_changed:
        put_in(s, p, row)
    row.run, row.run_last, row.offset = cut + 1, last, offset
    if _draw_copies(s, row, p.random) and is_possible(s, row) and (is_free(s, p, row) or find_gap(s, p, row)):
        put_in(s, p, row)
        is_changed = True
    return is_changed


@internal
def _drop(s: StayTables, p: Arrangement) -> bool:
    """Takes out a random run, and perhaps others that are alive at the same time; returns whether there is one."""
    run = _draw_run(p, p.random)
    if run == NONE:
        return False
    start, end = s.items[run].run_start, s.items[run].run_end
    take_out(s, p, run)
    while uniform(p.random) < 0.4:
        other = _draw_run(p, p.random)
        if other != NONE and s.items[other].run_start < end and start < s.items[other].run_end:
            take_out(s, p, other)
    return True


@internal
def _first_after(s: StayTables, pool: np.ndarray, time: int) -> int:
    """Returns how many items of a pool start before a time."""
    low, high = 0, len(pool)
    while low < high:
        middle = (low + high) // 2
        if s.items[pool[middle]].start < time:
            low = middle + 1
        else:
            high = middle
    return low


@internal
def _seek(s: StayTables, p: Arrangement, pool: np.ndarray, row: Any) -> None:
    """Lets some runs that were left out look for the room that what was taken out left."""
    start, end = len(p.reserved), 0
    for i in range(p.counts[0].journal):
        change = p.journal[i]
        if not change.is_added:
            start, end = min(start, change.run_start), max(end, change.run_end)
    first, last = _first_after(s, pool, start), _first_after(s, pool, 2 * end - start)
    if first >= last:
        return
    for _ in range(_SEEKERS):
        item = pool[first + below(p.random, last - first)]
        if s.items[item].run != NONE:
            continue
        row.run = row.run_last = item
        if uniform(p.random) < 0.4:
            _extend(s, row, p.random)
            if not _is_open(p, row):
                continue
        if _draw_copies(s, row, p.random) and find_gap(s, p, row):
            put_in(s, p, row)


@internal
def make_move(s: StayTables, p: Arrangement, pool: np.ndarray) -> bool:
    """Makes a random move, which the journal holds; returns whether there is one."""
    row, kind, counts = p.stay[0], uniform(p.random), p.counts[0]
    counts.waiting, counts.saved = 0, 0.0
    if kind < _RETIMES:
        is_made = _retime(s, p, row)
    elif kind < _RETIMES + _RESHELVES:
        is_made = _reshelve(s, p, row)
    elif kind < _RETIMES + _RESHELVES + _CUTS:
        is_made = _cut(s, p, row)
    elif kind < _RETIMES + _RESHELVES + _CUTS + _DROPS:
        is_made = _drop(s, p)
    else:
        is_made = _take(s, p, pool, row)
    if is_made:
        place_waiting(s, p)
        _seek(s, p, pool, row)
    return is_made
