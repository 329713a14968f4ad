"""Rectangles of time and memory that compete in a window, rearranged by simulated annealing. Compiled by numba.

A rectangle is a run whose times are fixed. Those that are *placed* have an offset, and their accesses are served by the
fast memory. A round puts one rectangle where it is not: on the bottom, or above or below one that is alive at the same
time. What lies there gives way. Then what gave way, and some of those that were left out, look for gaps:

    memory ┤▓▓▓▓┌──────┐▒▒▒▒        ┌──────┐ put         gives way  ▓ ▒
           │▓▓▓▓│      │▒▒▒▒        │      │             looks for a gap  ▓ ▒ ░ …
           └────┴──────┴────► time  └──────┘

A round is kept if it saves time, or as the temperature allows (Kirkpatrick, Gelatt and Vecchi, "Optimization by
simulated annealing", 1983). What an access saves is what its operation gets shorter, given all other accesses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from memplan.compiler.kernels import entry, internal
from memplan.planners.stays.booking_kernel import serve
from memplan.planners.stays.random_kernel import below, uniform
from memplan.planners.stays.tables import NONE, StayTables

# A rectangle: its half-open times, its size in units, its offset, -1 where it is left out, the lowest offset that it
# may have, its half-open accesses in `StayTables.order`, and whether it stays where it is.
#   before: the offset at the start of the round. best: the offset in the best arrangement. mark: scratch.
RECTANGLE_ROW = np.dtype(
    [
        ("start", np.int64),
        ("end", np.int64),
        ("size", np.int64),
        ("offset", np.int64),
        ("floor", np.int64),
        ("first_access", np.int64),
        ("last_access", np.int64),
        ("is_fixed", np.bool_),
        ("before", np.int64),
        ("best", np.int64),
        ("mark", np.int64),
    ],
    align=True,
)

# Of those that were left out, how many look for a gap in each round.
_MOST_SEEKERS = 24


class RectangleScratch(NamedTuple):
    """What rounds work in.

    Attributes:
      waiting: rectangles that look for a gap.
      placed: rectangles that have an offset, and perhaps some that had one at the start of the round.
      low, high: of the rectangles that are alive at the same time as one.
      counts: `[1]` how many are in `placed`.
    """

    waiting: np.ndarray
    placed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray


@internal
def _serve_all(s: StayTables, row: Any, fast: bool) -> float:
    """Serves the accesses of a rectangle from the fast space or at home; returns the seconds that this saves."""
    saved = 0.0
    for i in range(row.first_access, row.last_access):
        saved += serve(s, s.order[i], fast)
    return saved


@internal
def _shares(a: Any, b: Any) -> bool:
    """Whether two rectangles serve the same access."""
    return a.first_access < b.last_access and b.first_access < a.last_access


@internal
def _meets(a: Any, b: Any) -> bool:
    """Whether two rectangles are alive at the same time."""
    return a.start < b.end and b.start < a.end


@internal
def _area(row: Any) -> int:
    return row.size * (row.end - row.start)


@internal
def _gap(rows: Any, row: Any, capacity: int, places: RectangleScratch) -> int:
    """Returns the offset of the smallest gap that holds a rectangle; -1 if there is none, or it is served already."""
    count, low, high = 0, places.low, places.high
    for i in range(places.counts[0]):
        there = rows[places.placed[i]]
        if there.offset == NONE:
            continue
        if _meets(row, there):
            if _shares(row, there):
                return NONE
            at = count
            while at > 0 and low[at - 1] > there.offset:
                low[at], high[at] = low[at - 1], high[at - 1]
                at -= 1
            low[at], high[at] = there.offset, there.offset + there.size
            count += 1
    best, least, top = NONE, capacity + 1, row.floor
    for i in range(count + 1):
        bottom = low[i] if i < count else capacity
        if row.size <= bottom - top < least:
            best, least = top, bottom - top
        if i < count:
            top = max(top, high[i])
    return best


@internal
def _drawn_place(rows: Any, row: Any, capacity: int, places: RectangleScratch, random: np.ndarray) -> int:
    """Returns a random offset for a rectangle: at the bottom or top, or beside one that is alive at the same time."""
    count = places.counts[0]
    drawn = below(random, count + 2)
    if drawn >= count:
        return row.floor if drawn == count else capacity - row.size
    for i in range(count):
        there = rows[places.placed[(drawn + i) % count]]
        if there.offset != row.offset and _meets(row, there):
            offset = there.offset + there.size if uniform(random) < 0.5 else there.offset - row.size
            return offset if row.floor <= offset <= capacity - row.size else NONE
    return NONE


@internal
def _collides(row: Any, offset: int, there: Any) -> bool:
    """Whether a rectangle at an offset would overlap a placed one."""
    return _meets(row, there) and there.offset < offset + row.size and offset < there.offset + there.size


@internal
def _put(s: StayTables, rows: Any, number: int, offset: int, places: RectangleScratch) -> tuple[int, float]:
    """Puts a rectangle at an offset. What lies there, or serves the same accesses, gives way.

    Returns:
      how many gave way, which are listed in `waiting`, and the seconds that are saved; -1 if something fixed is there.
    """
    row = rows[number]
    for i in range(places.counts[0]):
        there = rows[places.placed[i]]
        if there.is_fixed and _collides(row, offset, there):
            return NONE, 0.0
    count, saved = 0, 0.0
    for i in range(places.counts[0]):
        other = places.placed[i]
        there = rows[other]
        if other != number and not there.is_fixed and (_shares(row, there) or _collides(row, offset, there)):
            saved += _serve_all(s, there, False)
            there.offset = NONE
            places.waiting[count] = other
            count += 1
    saved += _place(s, rows, number, offset, places)
    return count, saved


@internal
def _place(s: StayTables, rows: Any, number: int, offset: int, places: RectangleScratch) -> float:
    """Places a rectangle where nothing is; returns the seconds that this saves."""
    rows[number].offset = offset
    places.placed[places.counts[0]] = number
    places.counts[0] += 1
    return _serve_all(s, rows[number], True)


@internal
def _fill(s: StayTables, rows: Any, count: int, capacity: int, places: RectangleScratch, random: np.ndarray) -> float:
    """Lets what gave way, and some of those that were left out, look for gaps; returns the seconds that this saves.

    Args:
      count: how many gave way.
    """
    waiting, saved = places.waiting, 0.0
    if count == 0:
        return 0.0
    start, end = rows[waiting[0]].start, rows[waiting[0]].end
    for i in range(1, count):
        start, end = min(start, rows[waiting[i]].start), max(end, rows[waiting[i]].end)
    for _ in range(_MOST_SEEKERS):
        other = below(random, len(rows))
        if rows[other].offset == NONE and rows[other].start < end and start < rows[other].end:
            waiting[count] = other
            count += 1
    for i in range(1, count):  # the largest first
        other, at = waiting[i], i
        while at > 0 and _area(rows[waiting[at - 1]]) < _area(rows[other]):
            waiting[at] = waiting[at - 1]
            at -= 1
        waiting[at] = other
    for i in range(count):
        other = waiting[i]
        if rows[other].offset == NONE:
            offset = _gap(rows, rows[other], capacity, places)
            if offset != NONE:
                saved += _place(s, rows, other, offset, places)
    return saved


@internal
def _settle(s: StayTables, rows: Any, is_kept: bool, is_best: bool, places: RectangleScratch) -> None:
    """Ends a round, whose changes are kept or undone."""
    if not is_kept:
        for number in range(len(rows)):
            row = rows[number]
            if row.before == NONE and row.offset != NONE:
                _serve_all(s, row, False)
    count = 0
    for number in range(len(rows)):
        row = rows[number]
        if is_kept:
            row.before = row.offset
        else:
            if row.before != NONE and row.offset == NONE:
                _serve_all(s, row, True)
            row.offset = row.before
        if is_best:
            row.best = row.offset
        if row.offset != NONE:
            places.placed[count] = number
            count += 1
    places.counts[0] = count


@entry
def rearrange(
    s: StayTables,
    rows: Any,
    capacity: int,
    rounds: int,
    temperature: float,
    cooling: float,
    random: np.ndarray,
) -> float:
    """Rearranges rectangles; the best arrangement is in `best` afterwards, and the tables serve the last one.

    Args:
      s: tables in which the accesses of what is placed are served by the fast space.
      rows: `[num_rectangles]` RECTANGLE_ROW.
      capacity: units of the fast space.
      rounds: how many to make.
      temperature: seconds, of the first round.
      cooling: by what the temperature is multiplied after each round.
      random: `[1] uint64` state of the random numbers.

    Returns:
      the seconds that the best arrangement saves against the first one.
    """
    count = len(rows)
    places = RectangleScratch(
        np.empty(2 * count + 64, np.int64),
        np.empty(3 * count + 64, np.int64),
        np.empty(3 * count + 64, np.int64),
        np.empty(3 * count + 64, np.int64),
        np.zeros(1, np.int64),
    )
    now, best = 0.0, 0.0
    for number in range(count):
        rows[number].before = rows[number].offset
    _settle(s, rows, True, True, places)
    for _ in range(rounds):
        number = below(random, count)
        temperature *= cooling
        row = rows[number]
        if row.is_fixed:
            continue
        offset = _drawn_place(rows, row, capacity, places, random)
        if offset == NONE or offset == row.offset:
            continue
        num_waiting, saved = _put(s, rows, number, offset, places)
        if num_waiting == NONE:
            continue
        saved += _fill(s, rows, num_waiting, capacity, places, random)
        is_kept = saved >= 0.0 or uniform(random) < np.exp(saved / temperature)
        if is_kept:
            now += saved
        _settle(s, rows, is_kept, now > best, places)
        best = max(best, now)
    return best
