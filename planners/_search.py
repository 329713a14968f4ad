"""The search for stays: which runs of a buffer's accesses a fast memory serves. Inner loops, compiled by numba.

The unit of decision is a *run*: neighbouring items of a chain (see `_chains.py`) that one stay serves. `try_run` gives
a run its memory and its copies, or leaves everything as it was. Room is accounted by the sum of sizes at each time;
offsets are found afterwards, as XLA's repacking does.

Copies are accounted for as XLA's copy resource does (`AsynchronousCopyResource` in its memory space assignment): what a
copy cannot move in the slot where it starts is left to the next slots, and delays those after it; no copy may become
late. Two differences: the time that a slot offers is what the operation really leaves of the link, given what is served
from where by now, and a loop offers all its iterations to the copies that span it.

         idle time of slots   ▕███   ▕█▏     ▕████  ▕██
         copies                └─1───────────┘└──2──┘      1 is issued at the first slot, done before the fourth
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

NONE = -1
_FAR = np.int64(2) ** 62


class Model(NamedTuple):
    """What does not change during the search. Arrays as in `Slots` and `Chains`, and:

    Attributes:
      end_time: `n`.
      slot_repetitions: `[num_slots]` how often the slot's region runs.
      operation_repetitions: `[n]`.
      trips: `[num_slots]` of a loop, its iterations for each execution of the slot.
      inner_first, inner_last: `[num_slots]` half-open range in `inner` of the regions that a slot stands for.
      inner: regions, by slot.
      floor: `[n]` seconds.
      access_time: `[num_accesses]`.
      saving: `[num_accesses]` seconds of memory time that serving it from the fast space saves.
      traffic: `[num_accesses]` seconds that it takes of the link's channel when served at home.
      size: `[num_buffers]` in units of the alignment.
      fill_seconds, spill_seconds: `[num_buffers]` of a copy from home, and of one back.
      can_fill, can_spill: whether there is a link from home, and one back.
      kept_buffer: buffer that is in the fast space when the program starts (cross-program prefetch); -1 for none.
    """

    end_time: int
    slot_time: np.ndarray
    slot_end: np.ndarray
    is_operation: np.ndarray
    slot_repetitions: np.ndarray
    operation_repetitions: np.ndarray
    trips: np.ndarray
    inner_first: np.ndarray
    inner_last: np.ndarray
    inner: np.ndarray
    region_first: np.ndarray
    region_last: np.ndarray
    chain_buffer: np.ndarray
    chain_region: np.ndarray
    chain_first: np.ndarray
    chain_last: np.ndarray
    needs_home: np.ndarray
    chain_parent: np.ndarray
    item_chain: np.ndarray
    item_slot: np.ndarray
    item_start: np.ndarray
    item_end: np.ndarray
    reads: np.ndarray
    writes: np.ndarray
    writer: np.ndarray
    first_access: np.ndarray
    last_access: np.ndarray
    accesses: np.ndarray
    first_child: np.ndarray
    last_child: np.ndarray
    children: np.ndarray
    floor: np.ndarray
    access_time: np.ndarray
    saving: np.ndarray
    traffic: np.ndarray
    size: np.ndarray
    fill_seconds: np.ndarray
    spill_seconds: np.ndarray
    can_fill: bool
    can_spill: bool
    kept_buffer: int


class State(NamedTuple):
    """What the search has decided. A run is named by its first item.

    Attributes:
      free: `[n + 1]` room in the fast space, in units of the alignment.
      demand: `[n]` overhead and memory time of operations, seconds.
      taken: `[n]` seconds that operations take of the link's channel.
      is_fast: `[num_accesses]`.
      run: `[num_items]` the run that an item belongs to, -1 for none.
      run_last: `[num_items]` last item of a run.
      run_start, run_end: `[num_items]` half-open time of its stay.
      fill_start, fill_done: `[num_items]` slots of the copy that fills it; -1 for none.
      spill_start, spill_done: `[num_items]` slots of the copy home; -1 for none.
      idle: `[num_slots]` what a loop or conditional offers to copies that span it, as last computed.
      arrivals: `[num_slots]` seconds of copies that start at a slot.
      backlog: `[num_slots]` seconds of earlier copies that are left when a slot begins.
      slack: `[num_slots]` by how much copies that start at a slot may be delayed before one is late.
      closed: `[num_items]` whether another fast space serves an item, so that this one must not.
      ready: `[num_items]` slot from which the value that an item writes is at home, if no run here has the item.
      wanted: `[num_items]` slot by which an item wants the value at home, if no run here has it.
    """

    free: np.ndarray
    demand: np.ndarray
    taken: np.ndarray
    is_fast: np.ndarray
    run: np.ndarray
    run_last: np.ndarray
    run_start: np.ndarray
    run_end: np.ndarray
    fill_start: np.ndarray
    fill_done: np.ndarray
    spill_start: np.ndarray
    spill_done: np.ndarray
    idle: np.ndarray
    arrivals: np.ndarray
    backlog: np.ndarray
    slack: np.ndarray
    closed: np.ndarray
    ready: np.ndarray
    wanted: np.ndarray


@njit(cache=True)
def _idle(m: Model, s: State, slot: int) -> float:
    """Returns the seconds that a slot leaves to copies."""
    if not m.is_operation[slot]:
        return s.idle[slot]
    t = m.slot_time[slot]
    if t >= m.end_time:
        return 0.0
    return max(0.0, max(m.floor[t], s.demand[t]) - s.taken[t])


@njit(cache=True)
def refresh(m: Model, s: State) -> None:
    """Recomputes what the copies leave of every slot, from what is decided."""
    s.slack[:] = np.inf
    num_regions = len(m.region_first)
    within = np.zeros(len(s.idle))  # idle seconds up to a slot of its region
    for back in range(num_regions):
        region = num_regions - 1 - back  # children come after their parents
        total = 0.0
        left = 0.0
        for slot in range(m.region_first[region], m.region_last[region]):
            if not m.is_operation[slot]:
                offered = np.inf
                for i in range(m.inner_first[slot], m.inner_last[slot]):
                    inner = m.inner[i]
                    copies, room = 0.0, 0.0
                    for u in range(m.region_first[inner], m.region_last[inner]):
                        copies += s.arrivals[u]
                        room += _idle(m, s, u)
                    offered = min(offered, max(0.0, room - copies))
                s.idle[slot] = offered * m.trips[slot]
            within[slot] = total
            s.backlog[slot] = left
            idle = _idle(m, s, slot)
            total += idle
            left = max(0.0, left + s.arrivals[slot] - idle)
    for item in range(len(s.run)):
        if s.run[item] == item:
            if s.fill_start[item] != NONE:
                start, done = s.fill_start[item], s.fill_done[item]
                slack = within[done] - within[start] - s.backlog[start] - s.arrivals[start]
                s.slack[start] = min(s.slack[start], slack)
            if s.spill_start[item] != NONE:
                start, done = s.spill_start[item], s.spill_done[item]
                slack = within[done] - within[start] - s.backlog[start] - s.arrivals[start]
                s.slack[start] = min(s.slack[start], slack)


@njit(cache=True)
def _delays_nobody(m: Model, s: State, start: int, end: int, seconds: float) -> bool:
    """Whether a further copy at slot `start` leaves all copies after it in time. `end` is that of the region's slots."""
    extra = seconds
    for slot in range(start, end - 1):
        left = max(0.0, s.backlog[slot] + s.arrivals[slot] + extra - _idle(m, s, slot))
        before = (
            s.backlog[slot + 1] if slot > start else max(0.0, s.backlog[slot] + s.arrivals[slot] - _idle(m, s, slot))
        )
        extra = left - before
        if extra <= 1e-15:
            return True
        if s.slack[slot + 1] < extra:
            return False
    return True


@njit(cache=True)
def _book(m: Model, s: State, start: int, end: int, seconds: float, slack: float) -> None:
    """Enters a copy at slot `start`; negative `seconds` take one out."""
    s.arrivals[start] += seconds
    if s.arrivals[start] < 1e-15:
        s.arrivals[start] = 0.0
        s.slack[start] = np.inf
    s.slack[start] = min(s.slack[start], slack)
    for slot in range(start, end - 1):
        left = max(0.0, s.backlog[slot] + s.arrivals[slot] - _idle(m, s, slot))
        change = left - s.backlog[slot + 1]
        if abs(change) <= 1e-15:
            break
        s.backlog[slot + 1] = left
        s.slack[slot + 1] -= change


@njit(cache=True)
def _take(s: State, start: int, end: int, size: int) -> None:
    for t in range(start, end):
        s.free[t] -= size


@njit(cache=True)
def _has_room(s: State, start: int, end: int, size: int) -> bool:
    for t in range(start, end):  # noqa: SIM110
        if s.free[t] < size:
            return False
    return True


@njit(cache=True)
def _serve(m: Model, s: State, item: int, fast: bool) -> tuple[float, float]:
    """Serves an item from the fast space, or at home; returns what that saves: seconds of the program, and of the link."""
    saved, freed = 0.0, 0.0
    for i in range(m.first_access[item], m.last_access[item]):
        access = m.accesses[i]
        if s.is_fast[access] == fast:
            continue
        s.is_fast[access] = fast
        t = m.access_time[access]
        sign = 1.0 if fast else -1.0
        before = max(m.floor[t], s.demand[t])
        s.demand[t] -= sign * m.saving[access]
        s.taken[t] -= sign * m.traffic[access]
        saved += (before - max(m.floor[t], s.demand[t])) * m.operation_repetitions[t]
        freed += sign * m.traffic[access] * m.operation_repetitions[t]
    return saved, freed


@njit(cache=True)
def _release(m: Model, s: State, run: int) -> float:
    """Gives back a run's memory and copies, but remembers them; returns the seconds of copies in a run of the program."""
    chain = m.item_chain[run]
    buffer, end = m.chain_buffer[chain], m.region_last[m.chain_region[chain]]
    _take(s, s.run_start[run], s.run_end[run], -m.size[buffer])
    copied = 0.0
    if s.spill_start[run] != NONE:
        _book(m, s, s.spill_start[run], end, -m.spill_seconds[buffer], np.inf)
        copied += m.spill_seconds[buffer]
    if s.fill_start[run] != NONE:
        _book(m, s, s.fill_start[run], end, -m.fill_seconds[buffer], np.inf)
        copied += m.fill_seconds[buffer]
    return copied * m.slot_repetitions[m.item_slot[run]]


@njit(cache=True)
def _claim(m: Model, s: State, run: int) -> float:
    """Takes the memory and copies that a run remembers; returns the seconds of copies in a run of the program."""
    chain = m.item_chain[run]
    buffer, end = m.chain_buffer[chain], m.region_last[m.chain_region[chain]]
    _take(s, s.run_start[run], s.run_end[run], m.size[buffer])
    copied = 0.0
    for is_fill in (True, False):
        start = s.fill_start[run] if is_fill else s.spill_start[run]
        if start == NONE:
            continue
        done = s.fill_done[run] if is_fill else s.spill_done[run]
        seconds = m.fill_seconds[buffer] if is_fill else m.spill_seconds[buffer]
        room = 0.0
        for slot in range(start, done):
            room += _idle(m, s, slot)
        slack = room - s.backlog[start] - s.arrivals[start] - seconds
        _book(m, s, start, end, seconds, slack)
        copied += seconds
    return copied * m.slot_repetitions[m.item_slot[run]]


@njit(cache=True)
def _operation_at_or_before(m: Model, slot: int, first: int) -> int:
    """Returns the last slot in [first, slot] that is an operation; -1 if there is none."""
    while slot >= first and not m.is_operation[slot]:
        slot -= 1
    return slot if slot >= first else NONE


@njit(cache=True)
def _find_fill(m: Model, s: State, item: int, tries: int) -> tuple[int, int]:
    """Returns the slots of a copy from home that fills a stay for `item`, as late as it can start; -1, -1 for none.

    Walks back from the item: while there is room for the buffer, the time that slots offer adds up.
    """
    chain = m.item_chain[item]
    buffer, region = m.chain_buffer[chain], m.chain_region[chain]
    first, last, size = m.region_first[region], m.region_last[region], m.size[buffer]
    done = _operation_at_or_before(m, m.item_slot[item], first)
    if done == NONE or not _has_room(s, m.slot_time[done], m.item_start[item], size):
        return NONE, NONE
    earliest = first
    writer = m.writer[item]
    if writer != NONE:
        # Its value is at home after the operation that wrote it there, or after the spill of the run that wrote it.
        run = s.run[writer]
        earliest = s.ready[writer] if run == NONE else s.spill_done[run]
        if run != NONE and earliest == NONE:
            return NONE, NONE
    seconds = m.fill_seconds[buffer]
    offered = 0.0
    slot = done
    while slot >= earliest:
        if slot < done:
            if not _has_room(s, m.slot_time[slot], m.slot_end[slot], size):
                break
            offered += _idle(m, s, slot)
        if m.is_operation[slot] and offered >= s.backlog[slot] + s.arrivals[slot] + seconds:
            if _delays_nobody(m, s, slot, last, seconds):
                return slot, done
            tries -= 1
            if tries == 0:
                break
        slot -= 1
    return NONE, NONE


@njit(cache=True)
def _find_spill(m: Model, s: State, item: int, run_end: int, tries: int) -> tuple[int, int]:
    """Returns the slots of a copy home for a run whose last item is `item`, as early as it can be; -1, -1 for none.

    It starts after the last write and must be done before the value is wanted at home. The stay lasts until then.
    """
    chain = m.item_chain[item]
    buffer, region = m.chain_buffer[chain], m.chain_region[chain]
    first, last, size = m.region_first[region], m.region_last[region], m.size[buffer]
    writer = item if m.writes[item] else m.writer[item]
    latest = _operation_at_or_before(m, last - 1, first)
    for following in range(item + 1, m.chain_last[chain]):
        if s.run[following] == NONE:
            latest = min(latest, _operation_at_or_before(m, s.wanted[following], first))
        elif s.run[following] == following and s.fill_start[following] != NONE:
            latest = min(latest, s.fill_start[following])
        if m.writes[following]:
            break
    seconds = m.spill_seconds[buffer]
    start = m.item_slot[writer] + 1
    while start <= latest and tries > 0:
        if not m.is_operation[start]:
            start += 1
            continue
        wanted = s.backlog[start] + s.arrivals[start] + seconds
        done = start
        while done < latest and wanted > 0.0:
            wanted -= _idle(m, s, done)
            done += 1
        if wanted > 0.0:
            return NONE, NONE  # Later starts leave even less time.
        while done <= latest and not m.is_operation[done]:
            done += 1
        if done > latest:
            return NONE, NONE
        until = max(m.slot_time[done], m.slot_time[start] + 1)
        if until > run_end and not _has_room(s, run_end, until, size):
            return NONE, NONE
        if _delays_nobody(m, s, start, last, seconds):
            return start, done
        tries -= 1
        start += 1
    return NONE, NONE


@njit(cache=True)
def _wanted_at_home(m: Model, item: int) -> bool:
    """Whether the value that a chain's item leaves is wanted at home if no stay carries it on to the next item."""
    chain = m.item_chain[item]
    if item + 1 < m.chain_last[chain]:
        return m.reads[item + 1]
    return m.needs_home[chain]


@njit(cache=True)
def _runs_inside(m: Model, s: State, low: int, high: int, found: np.ndarray, count: int) -> int:
    """Appends the runs inside of items [low, high], to all depths; returns the new count, -1 if one is closed."""
    pending = np.empty(64, np.int64)
    for item in range(low, high + 1):
        depth = 0
        for i in range(m.first_child[item], m.last_child[item]):
            if depth == len(pending):
                return NONE
            pending[depth] = m.children[i]
            depth += 1
        while depth > 0:
            depth -= 1
            chain = pending[depth]
            for inner in range(m.chain_first[chain], m.chain_last[chain]):
                if s.closed[inner]:
                    return NONE
                if s.run[inner] == inner:
                    if count == len(found):
                        return NONE
                    found[count] = inner
                    count += 1
                for i in range(m.first_child[inner], m.last_child[inner]):
                    if depth == len(pending):
                        return NONE
                    pending[depth] = m.children[i]
                    depth += 1
    return count


@njit(cache=True)
def try_run(m: Model, s: State, low: int, high: int, channel_price: float, tries: int) -> bool:
    """Gives items [low, high] of a chain one stay, together with the runs that they touch; returns whether it did.

    It does so if there is room, if all copies arrive in time, and if it pays: seconds saved, and `channel_price` times
    the seconds that the channel is less busy, must be positive together. Otherwise nothing changes.
    """
    if s.run[low] != NONE:
        low = s.run[low]
    if s.run[high] != NONE:
        high = s.run_last[s.run[high]]
    if s.run[low] == low and s.run_last[low] >= high:
        return False
    chain = m.item_chain[low]
    buffer = m.chain_buffer[chain]
    around = m.chain_parent[chain]
    while around != NONE:
        if s.run[around] != NONE or s.closed[around]:
            return False
        around = m.chain_parent[m.item_chain[around]]
    size = m.size[buffer]
    for item in range(low, high + 1):
        if s.closed[item]:
            return False
        # Between runs the room must be there, whatever happens at the ends.
        if s.run[item] == NONE and m.first_child[item] == m.last_child[item]:
            if not _has_room(s, m.item_start[item], m.item_end[item], size):
                return False
        if item < high and (s.run[item] == NONE or s.run[item] != s.run[item + 1]):
            start = m.item_end[item] if s.run[item] == NONE else max(m.item_end[item], s.run_end[s.run[item]])
            end = m.item_start[item + 1]
            if s.run[item + 1] != NONE:
                end = min(end, s.run_start[s.run[item + 1]])
            if not _has_room(s, start, end, size):
                return False

    old = np.empty(256, np.int64)
    count = 0
    for item in range(low, high + 1):
        if s.run[item] == item:
            if count == len(old):
                return False
            old[count] = item
            count += 1
    own = count
    count = _runs_inside(m, s, low, high, old, count)
    if count == NONE:
        return False
    copied_before = 0.0
    for i in range(count):
        copied_before += _release(m, s, old[i])
    saved, freed = 0.0, 0.0
    newly = np.zeros(high + 1 - low, np.bool_)
    for item in range(low, high + 1):
        if s.run[item] == NONE:
            newly[item - low] = True
    # Accesses inside that runs there serve already are no news: remember which, to undo exactly.
    news = np.empty(0, np.int64)
    total = 0
    for item in range(low, high + 1):
        if newly[item - low]:
            total += m.last_access[item] - m.first_access[item]
    news = np.empty(total, np.int64)
    total = 0
    for item in range(low, high + 1):
        if newly[item - low]:
            for i in range(m.first_access[item], m.last_access[item]):
                if not s.is_fast[m.accesses[i]]:
                    news[total] = m.accesses[i]
                    total += 1
            one_saved, one_freed = _serve(m, s, item, True)
            saved += one_saved
            freed += one_freed

    ok = _has_room(s, m.item_start[low], m.item_end[high], size)
    run_start, run_end = m.item_start[low], m.item_end[high]
    fill_start, fill_done, spill_start, spill_done = NONE, NONE, NONE, NONE
    copied = 0.0
    if ok and m.reads[low]:
        if buffer == m.kept_buffer and low == m.chain_first[chain] and m.chain_parent[chain] == NONE:
            ok = _has_room(s, 0, run_start, size)
            run_start = 0
        else:
            if m.can_fill:
                fill_start, fill_done = _find_fill(m, s, low, tries)
            ok = fill_start != NONE
            if ok:
                run_start = m.slot_time[fill_start]
                copied += m.fill_seconds[buffer]
    writer = high if m.writes[high] else m.writer[high]
    if ok and writer >= low and _wanted_at_home(m, high):
        ok = m.can_spill
        if ok:
            # What the fill takes of the link counts for the spill.
            end = m.region_last[m.chain_region[chain]]
            if fill_start != NONE:
                _book(m, s, fill_start, end, m.fill_seconds[buffer], np.inf)
            spill_start, spill_done = _find_spill(m, s, high, run_end, tries)
            if fill_start != NONE:
                _book(m, s, fill_start, end, -m.fill_seconds[buffer], np.inf)
            ok = spill_start != NONE
            if ok:
                run_end = max(run_end, m.slot_time[spill_done], m.slot_time[spill_start] + 1)
                copied += m.spill_seconds[buffer]
    if ok:
        more_copied = copied * m.slot_repetitions[m.item_slot[low]] - copied_before
        ok = saved + channel_price * (freed - more_copied) > 1e-15
    if not ok:
        for i in range(total):
            access = news[i]
            s.is_fast[access] = False
            t = m.access_time[access]
            s.demand[t] += m.saving[access]
            s.taken[t] += m.traffic[access]
        for i in range(count):
            _claim(m, s, old[count - 1 - i])
        return False
    for i in range(own, count):
        inner = old[i]
        for item in range(inner, s.run_last[inner] + 1):
            s.run[item] = NONE
    for item in range(low, high + 1):
        s.run[item] = low
    s.run_last[low] = high
    s.run_start[low], s.run_end[low] = run_start, run_end
    s.fill_start[low], s.fill_done[low] = fill_start, fill_done
    s.spill_start[low], s.spill_done[low] = spill_start, spill_done
    _claim(m, s, low)
    return True


@njit(cache=True)
def drop_run(m: Model, s: State, run: int) -> None:
    """Serves a run at home again. The plan stays valid: other runs are filled from home, where its value now is."""
    _release(m, s, run)
    for item in range(run, s.run_last[run] + 1):
        _serve(m, s, item, False)
        s.run[item] = NONE


@njit(cache=True)
def try_all(
    m: Model, s: State, order: np.ndarray, lows: np.ndarray, highs: np.ndarray, channel_price: float, tries: int
) -> int:
    """Tries runs in an order; returns how many were taken."""
    taken = 0
    for i in range(len(order)):
        if try_run(m, s, lows[order[i]], highs[order[i]], channel_price, tries):
            taken += 1
    return taken


@njit(cache=True)
def score(
    m: Model, s: State, lows: np.ndarray, highs: np.ndarray, elapsed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns what each run would save and take if nothing stood in its way, given what is decided.

    Args:
      lows, highs: `[num_runs]` items.
      elapsed: `[n + 2]` seconds from the start of the program to each time, loops counted.

    Returns:
      saved: `[num_runs]` seconds of the program.
      freed: `[num_runs]` seconds of the channel, but for copies.
      copied: `[num_runs]` seconds of copies that come with it; negative if it makes more of them needless.
      held: `[num_runs]` size times seconds that are newly taken of the fast space.
    """
    count = len(lows)
    saved, freed, copied, held = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count)
    for i in range(count):
        low, high = lows[i], highs[i]
        chain = m.item_chain[low]
        buffer = m.chain_buffer[chain]
        repetitions = m.slot_repetitions[m.item_slot[low]]
        start, end = m.item_start[low], m.item_end[high]
        for item in range(low, high + 1):
            if s.run[item] == NONE:
                for k in range(m.first_access[item], m.last_access[item]):
                    access = m.accesses[k]
                    if s.is_fast[access]:
                        continue
                    t = m.access_time[access]
                    before = max(m.floor[t], s.demand[t])
                    saved[i] += (before - max(m.floor[t], s.demand[t] - m.saving[access])) * m.operation_repetitions[t]
                    freed[i] += m.traffic[access] * m.operation_repetitions[t]
        seconds = elapsed[end] - elapsed[start]
        if s.run[low] != NONE:
            seconds -= elapsed[m.item_end[low]] - elapsed[start]
        elif m.reads[low]:
            copied[i] += m.fill_seconds[buffer] * repetitions
        if s.run[high] == NONE:
            writer = high if m.writes[high] else m.writer[high]
            if writer >= low and _wanted_at_home(m, high):
                copied[i] += m.spill_seconds[buffer] * repetitions
        elif high > low:
            if s.fill_start[s.run[high]] != NONE:
                copied[i] -= m.fill_seconds[buffer] * repetitions
            seconds -= elapsed[end] - elapsed[m.item_start[high]]
        held[i] = max(seconds + max(copied[i], 0.0), 1e-12) * m.size[buffer]
    return saved, freed, copied, held


@njit(cache=True)
def gain(m: Model, s: State, run: int) -> float:
    """Returns the seconds of the program that a run saves, given all others."""
    lost = 0.0
    for item in range(run, s.run_last[run] + 1):
        lost -= _serve(m, s, item, False)[0]
    for item in range(run, s.run_last[run] + 1):
        _serve(m, s, item, True)
    return lost
