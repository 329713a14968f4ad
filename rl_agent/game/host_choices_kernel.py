"""The rules as loops over one game's arrays, compiled by numba: what is possible at a move.

See `host_kernel.py`. `b` is the board, `s` the state of a game.
"""

from __future__ import annotations

from typing import Any

from memplan.compiler.kernels import inlined
from memplan.rl_agent.game.moves import (
    ACTIONS,
    CLOSED,
    COPY,
    DROP,
    EVICTION,
    FORCED,
    LEADING,
    LOST,
    NEVER,
    NO_COPY,
    NONE,
    PASSED,
    PREFETCH,
)


@inlined
def _find_prefetch(b: Any, s: Any, low: int, high: int, ticks: int) -> tuple[int, int, int]:
    """Returns the first and last slot of the copy within `[low, high)` that starts latest, and its ticks of the last.

    `supply` is the supply of the slot at hand and all slots behind it. A copy that starts before the slot at hand can
    be stopped by a slot behind it: `lost` is the part of `supply` that such a copy cannot have.
    """
    left, owner, queue, supply, lost = s.left, s.owner, b.queue[PREFETCH], 0, 0
    for slot in range(high - 1, low - 1, -1):
        if left[slot] == PASSED:
            continue
        is_shared = owner[slot] == queue
        if left[slot] == CLOSED or not (is_shared or owner[slot] == NONE):
            lost = supply
            continue
        behind = supply
        supply += left[slot]
        needed = _needed(b, s, PREFETCH, slot, ticks)
        if left[slot] > 0 and supply - lost >= needed:
            return _ending(left, slot, needed)
        if is_shared:
            lost = max(lost, behind)
    return NONE, NONE, 0


@inlined
def _find_eviction(b: Any, s: Any, low: int, high: int, ticks: int) -> tuple[int, int, int]:
    """Returns the copy within slots `[low, high)` that starts earliest.

    A copy that starts between another's start and what stopped that one has no more than that one.
    """
    left, owner, queue = s.left, s.owner, b.queue[EVICTION]
    first, found, needed = low, 0, ticks
    for slot in range(low, high):
        if left[slot] == PASSED:
            continue
        is_shared = owner[slot] == queue
        if left[slot] == CLOSED or not (is_shared or owner[slot] == NONE):
            first, found = slot + 1, 0
            continue
        if found == 0:
            first, needed = slot, _needed(b, s, EVICTION, slot, ticks)
        found += left[slot]
        if found >= needed and found > 0:
            return _ending(left, first, needed)
        if is_shared and slot > first:
            first, found, needed = slot, left[slot], _needed(b, s, EVICTION, slot, ticks)
            if found >= needed and found > 0:
                return _ending(left, first, needed)
    return NONE, NONE, 0


@inlined
def _needed(b: Any, s: Any, way: int, first: int, ticks: int) -> int:
    """Returns the ticks that a copy takes which is issued before a slot: with another one, none for its latency."""
    return ticks - b.latency[way] if s.issued[first] == way else ticks


@inlined
def _find_late_eviction(left: Any, owner: Any, low: int, high: int, ticks: int) -> tuple[int, int]:
    """Returns the first and last of the slots of `[low, high)` that a late copy home has to itself; -1 for none."""
    start, supply, most = low, 0, ticks // 2
    first = last = NONE
    for slot in range(low, high):
        if left[slot] < 0 or owner[slot] != NONE or left[slot + 1] == PASSED:
            start, supply = slot + 1, 0
            continue
        supply += left[slot]
        if supply > most:
            most, first, last = supply, start, slot
    return first, last


@inlined
def _ending(left: Any, first: int, ticks: int) -> tuple[int, int, int]:
    """Returns a copy from a slot on that has as much as it takes."""
    slot, missing = first, ticks
    while left[slot] < missing:
        missing -= max(left[slot], 0)
        slot += 1
    return first, slot, missing


@inlined
def _most_kept(bottom: Any, start: int, end: int) -> int:
    """Returns the units that the operations of times `[start, end)` keep for themselves."""
    if start >= end:
        return 0
    level = 0
    while (2 << level) <= end - start:
        level += 1
    return max(bottom[level, start], bottom[level, end - (1 << level)])


@inlined
def _is_free(busy: Any, low: int, high: int, start: int) -> bool:
    for unit in range(low, high):  # noqa: SIM110
        if busy[unit] > start:
            return False
    return True


@inlined
def _run(
    busy: Any, held: Any, wanted_from: Any, low: int, size: int, start: int, end: int, is_good: bool, is_highest: bool
) -> int:
    """Returns the lowest or highest offset from `low` on of so many free units in a row; -1 if there is none.

    Among the units of an offset that will not do, the one that rules out most other offsets is looked for first.
    """
    units = len(busy)
    offset = units - size if is_highest else low
    while low <= offset <= units - size:
        taken = NONE
        for i in range(size):
            unit = offset + i if is_highest else offset + size - 1 - i
            if busy[unit] > start or (is_good and (held[unit] > start or wanted_from[start, unit] < end)):
                taken = unit
                break
        if taken == NONE:
            return offset
        offset = taken - size if is_highest else taken + 1
    return NONE


@inlined
def _fit(b: Any, busy: Any, held: Any, start: int, move: Any) -> int:
    """Returns the offset of a new residency that starts at some time; -1 if there is no room."""
    low, size, units = _most_kept(b.bottom, start, move.end), move.size, len(busy)
    place = move.place
    if place >= low and place >= 0 and place + size <= units and _is_free(busy, place, place + size, start):
        return place
    lasting = max(low, _most_kept(b.bottom, start, move.lasting))
    offset = _run(busy, held, b.wanted_from, lasting, size, start, move.end, True, move.is_long != 0)
    if offset == NONE and place != LOST:
        offset = _run(busy, held, b.wanted_from, low, size, start, move.end, False, move.is_long != 0)
    return offset


@inlined
def _wait(left: Any, duration: Any, latency: int, first: int, done: int, moving: float) -> float:
    """Returns the ticks that a copy is late which has slots `[first, done)` to itself and moves for so many."""
    moved = 0.0
    for slot in range(first, done):
        lasts = duration[slot]
        passed = min(latency, lasts)
        latency -= passed
        moved += left[slot] * (1.0 - passed / max(lasts, 1))
    return latency + max(0.0, moving - moved)


@inlined
def is_covered(s: Any, move: Any) -> bool:
    """Whether an item around is in fast memory as a whole."""
    return move.parent != NONE and (s.history[move.parent] & ACTIONS) != DROP


@inlined
def look(b: Any, moves: Any, s: Any) -> None:
    """Writes what is possible at the next move of a game."""
    s.is_dead = False
    s.is_late = s.leads = False
    s.wait = s.eviction_wait = 0.0
    legal = s.legal
    legal[:] = False
    if s.done:
        return
    number = s.move
    move = moves[number]
    past = s.history[number]
    if is_covered(s, move):
        legal[NO_COPY if number >= s.replay_until else past & ACTIONS] = True
        return
    row = move.row
    opened, written, ready = NONE, NONE, move.ready
    end = limit = offset = 0
    if not move.is_first:
        opened, written, ready = int(s.chain_opened[row]), int(s.chain_written[row]), int(s.chain_ready[row])
        end, limit, offset = int(s.chain_end[row]), int(s.chain_limit[row]), int(s.chain_offset[row])
    left, owner = s.left, s.owner
    s.eviction_first = s.eviction_last = NONE
    s.eviction_rest = 0
    can_drop = True
    if move.reads and opened != NONE and written != NONE:
        can_drop = False
        low = written + 1
        if move.eviction < NEVER:
            high = min(move.done, low + b.reach)
            first, last, rest = _find_eviction(b, s, low, high, move.eviction)
            if first == NONE and b.can_wait:
                first, last = _find_late_eviction(left, owner, low, high, move.eviction)
                if first != NONE:
                    rest, moving = left[last], move.eviction_seconds / b.tick
                    s.eviction_wait = _wait(left, s.duration, b.latency[EVICTION], first, last + 1, moving) * b.tick
            if first != NONE:
                until = b.awaited[last]
                can_drop = until <= end or (until <= limit and _most_kept(b.bottom, end, until) <= offset)
                s.eviction_first, s.eviction_last, s.eviction_rest = first, last, rest
                ready = last + 1
    can_copy = can_stay = False
    s.start, s.offset = move.start, NONE
    s.prefetch_first = s.prefetch_last = NONE
    s.prefetch_rest = 0
    if move.reads and not move.is_last:
        if opened != NONE and limit == b.forever:
            can_stay = move.end <= end or _most_kept(b.bottom, end, move.end) <= offset
        if can_drop:
            can_copy = _look_for_prefetch(b, s, move, ready)
    elif not move.is_last and (not move.is_stay or s.stays < b.most_stays):
        s.offset = _fit(b, s.busy_until, s.held_until, move.start, move)
        can_stay = s.offset != NONE
    only = NONE
    if number < s.replay_until:
        only = past & ACTIONS
    elif (past & FORCED) != 0 and can_drop:
        only = DROP
    elif not (can_copy or can_stay or can_drop):
        s.is_dead = True
        only = DROP
    if only != NONE:
        legal[only] = True
    else:
        legal[COPY], legal[NO_COPY], legal[DROP] = can_copy, can_stay, can_drop


@inlined
def _look_for_prefetch(b: Any, s: Any, move: Any, ready: int) -> bool:
    """Writes the copy that COPY makes, in time or late; returns whether there is one."""
    left, busy, held = s.left, s.busy_until, s.held_until
    times, done = b.slot_time, move.done
    low = max(ready, done - b.reach)
    if move.prefetch >= NEVER:
        return False
    first, last, rest = _find_prefetch(b, s, low, done, move.prefetch)
    if first != NONE:
        offset = _fit(b, busy, held, times[first], move)
        if offset != NONE:
            s.prefetch_first, s.prefetch_last, s.prefetch_rest = first, last, rest
            s.start, s.offset = times[first], offset
            return True
    if not b.can_wait or low > done:
        return False
    # A late copy begins with the copy that it follows, or when its place and all slots before the use are free; or it
    # begins at the use itself.
    can_follow = s.lead_done == done and s.lead_first >= low
    earliest = s.lead_first if can_follow else _earliest(b, s, move, low)
    for attempt in range(2):
        follows = can_follow and attempt == 0
        first = earliest if attempt == 0 else done
        lacking = move.prefetch
        if follows:
            lacking -= b.latency[PREFETCH]
        else:
            for slot in range(first, done):
                lacking -= left[slot]
        if lacking >= move.worth:
            continue
        offset = _fit(b, busy, held, times[first], move)
        if offset != NONE:
            s.prefetch_first, s.prefetch_last, s.prefetch_rest = first, done - 1, 0
            s.start, s.offset = times[first], offset
            s.is_late = True
            s.leads = follows or (first < done and lacking > LEADING * b.reach)
            s.wait = moving = move.prefetch_seconds
            if not follows:
                s.wait = _wait(left, s.duration, b.latency[PREFETCH], first, done, moving / b.tick) * b.tick
            return True
    return False


@inlined
def _earliest(b: Any, s: Any, move: Any, low: int) -> int:
    """Returns the slot, from one on, from which a move's place and all slots before the use are free."""
    until = 0
    if move.place >= 0:
        for unit in range(move.place, min(move.place + move.size, len(s.busy_until))):
            until = max(until, s.busy_until[unit])
    first = move.done
    while first > low and s.left[first - 1] >= 0 and s.owner[first - 1] == NONE:
        if b.slot_time[first - 1] < until:
            break
        first -= 1
    return first
