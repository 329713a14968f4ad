"""The search for stays: which runs of a buffer's accesses a fast memory serves. Inner loops, compiled by numba.

The unit of decision is a *run*: neighbouring items of a chain (see `chains.py`) that one stay serves. `_try_run` gives
a run its memory and its copies, or leaves everything as it was. Room is accounted by the sum of sizes at each time;
offsets are found afterwards, as XLA's repacking does.

Copies are accounted for as XLA's copy resource does (`AsynchronousCopyResource` in its memory space assignment): what a
copy cannot move in the slot where it starts is left to the next slots, and delays those after it; no copy may make
another late. Differences: the time that a slot offers is what the operation really leaves of the link, given what is
served from where by now; a loop offers all its iterations to the copies that span it; and an operation may wait for its
own copy, if that pays.

         idle time of slots   ▕███   ▕█▏     ▕████  ▕██
         copies                └─1───────────┘└──2──┘      1 is issued at the first slot, done before the fourth
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.kernels import entry
from memplan.planners.stays.tables import NONE, StayTables

_TINY = 1e-15  # seconds


@entry
def _idle(s: StayTables, slot: int) -> float:
    """Returns the seconds that a slot leaves to copies."""
    if not s.slots[slot].is_operation:
        return s.slots[slot].idle
    t = s.slots[slot].time
    if t >= len(s.operations):
        return 0.0
    operation = s.operations[t]
    return max(0.0, max(operation.floor, operation.demand) - operation.taken)


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
                        room += _idle(s, u) - s.slots[u].arrivals
                    offered = min(offered, max(0.0, room))
                row.idle = offered * row.trips
            row.slack = np.inf
            row.backlog = left
            within[slot] = total
            total += _idle(s, slot)
            left = max(0.0, left + row.arrivals - _idle(s, slot))
    for run in range(len(s.items)):
        item = s.items[run]
        if item.run == run:
            for is_prefetch in (True, False):
                start = item.prefetch_start if is_prefetch else item.eviction_start
                done = item.prefetch_done if is_prefetch else item.eviction_done
                if start != NONE and not (is_prefetch and item.late > 0.0):
                    row = s.slots[start]
                    row.slack = min(row.slack, within[done] - within[start] - row.backlog - row.arrivals)


@entry
def _delays_nobody(s: StayTables, start: int, end: int, seconds: float) -> bool:
    """Whether a further copy at slot `start` leaves the copies that start later, before slot `end`, in time."""
    extra = seconds
    for slot in range(start, end - 1):
        work = s.slots[slot].backlog + s.slots[slot].arrivals - _idle(s, slot)
        before = max(0.0, work) if slot == start else s.slots[slot + 1].backlog
        extra = max(0.0, work + extra) - before
        if extra <= _TINY:
            return True
        if s.slots[slot + 1].slack < extra:
            return False
    return True


@entry
def _book(s: StayTables, start: int, done: int, seconds: float) -> None:
    """Enters a copy; negative `seconds` take one out. The slots of its region must not end before `done`."""
    row = s.slots[start]
    if seconds > 0.0:
        room = -row.backlog - row.arrivals - seconds
        for slot in range(start, done):
            room += _idle(s, slot)
        row.slack = min(row.slack, room)
    row.arrivals += seconds
    if row.arrivals < _TINY:
        row.arrivals = 0.0
        row.slack = np.inf
    for slot in range(start, len(s.slots) - 1):
        left = max(0.0, s.slots[slot].backlog + s.slots[slot].arrivals - _idle(s, slot))
        change = left - s.slots[slot + 1].backlog
        # The next region's first slot has no backlog: nothing is carried over to it.
        if abs(change) <= _TINY or s.slots[slot + 1].time < s.slots[slot].time:
            break
        s.slots[slot + 1].backlog = left
        s.slots[slot + 1].slack -= change


@entry
def book_run(s: StayTables, run: int, sign: int) -> float:
    """Takes the memory and copies that a run remembers, or gives them back; returns the seconds of its copies."""
    item = s.items[run]
    buffer = s.buffers[s.chains[item.chain].buffer]
    for t in range(item.run_start, item.run_end):
        s.free[t] -= sign * buffer.size
    copied = 0.0
    if item.prefetch_start != NONE:
        copied += buffer.prefetch_seconds
        _book(s, item.prefetch_start, item.prefetch_done, sign * max(buffer.prefetch_seconds - item.late, 0.0))
    if item.eviction_start != NONE:
        copied += buffer.eviction_seconds
        _book(s, item.eviction_start, item.eviction_done, sign * buffer.eviction_seconds)
    return copied * s.slots[item.slot].repetitions


@entry
def has_room(s: StayTables, start: int, end: int, size: int) -> bool:
    for t in range(start, end):  # noqa: SIM110
        if s.free[t] < size:
            return False
    return True


@entry
def serve(s: StayTables, access: int, fast: bool) -> float:
    """Serves an access from the fast space, or at home; returns the seconds of the program that this saves."""
    row = s.accesses[access]
    if row.is_fast == fast:
        return 0.0
    row.is_fast = fast
    operation = s.operations[row.time]
    before = max(operation.floor, operation.demand)
    operation.demand -= row.saving if fast else -row.saving
    operation.taken -= row.traffic if fast else -row.traffic
    return (before - max(operation.floor, operation.demand)) * operation.repetitions


@entry
def _operation_at_or_before(s: StayTables, slot: int, first: int) -> int:
    """Returns the last slot in [first, slot] that is an operation; -1 if there is none."""
    while slot >= first and not s.slots[slot].is_operation:
        slot -= 1
    return slot if slot >= first else NONE


@entry
def _find_prefetch(s: StayTables, number: int, tries: int, patience: float) -> tuple[int, int, float]:
    """Returns the slots of a copy from home that fills a stay for an item, and by how much it is late; -1, -1 for none.

    Walks back from the item, as long as there is room for the buffer, adding up the time that slots offer: the latest
    start at which the copy is in time, else the one at which it is late by the least, if that is below `patience`.
    """
    item = s.items[number]
    chain = s.chains[item.chain]
    buffer, region = s.buffers[chain.buffer], s.regions[chain.region]
    size, seconds = buffer.size, buffer.prefetch_seconds
    done = _operation_at_or_before(s, item.slot, region.first)
    if done == NONE or not has_room(s, s.slots[done].time, item.start, size):
        return NONE, NONE, 0.0
    earliest = region.first
    if item.writer != NONE:
        # Its value is at home after the operation that wrote it there, or after the eviction of the run that wrote it.
        run = s.items[item.writer].run
        earliest = s.items[item.writer].ready if run == NONE else s.items[run].eviction_done
        if earliest == NONE:
            return NONE, NONE, 0.0
    offered = 0.0
    best, least = NONE, patience
    for slot in range(done, earliest - 1, -1):
        row = s.slots[slot]
        if slot < done:
            if not has_room(s, row.time, row.end, size):
                break
            offered += _idle(s, slot)
        if not row.is_operation:
            continue
        # Of the copies that start at the same slot, those that are awaited first go first.
        late = row.backlog + seconds - offered + (row.arrivals if slot < done else 0.0)
        if late <= 0.0:
            if _delays_nobody(s, slot, region.last, seconds):
                return slot, done, 0.0
            tries -= 1
            if tries == 0:
                break
        elif late < least:
            best, least = slot, late
    if best != NONE and _delays_nobody(s, best, done, seconds):
        return best, done, least
    late = s.slots[done].backlog + seconds
    return (done, done, late) if late < patience else (NONE, NONE, 0.0)


@entry
def _find_eviction(s: StayTables, number: int, run_end: int, tries: int) -> tuple[int, int]:
    """Returns the slots of a copy home for a run whose last item is `number`, as early as can be; -1, -1 for none.

    It starts after the last write and must be done before the value is wanted at home. The stay lasts until then.
    """
    item = s.items[number]
    chain = s.chains[item.chain]
    buffer, region = s.buffers[chain.buffer], s.regions[chain.region]
    latest = _operation_at_or_before(s, region.last - 1, region.first)
    for following in range(number + 1, chain.last):
        other = s.items[following]
        if other.run == NONE:
            latest = min(latest, _operation_at_or_before(s, other.wanted, region.first))
        elif other.run == following and other.prefetch_start != NONE:
            latest = min(latest, other.prefetch_start)
        if other.writes:
            break
    start = s.items[number if item.writes else item.writer].slot + 1
    while start <= latest and tries > 0:
        if not s.slots[start].is_operation:
            start += 1
            continue
        wanted = s.slots[start].backlog + s.slots[start].arrivals + buffer.eviction_seconds
        done = start
        while done < latest and wanted > 0.0:
            wanted -= _idle(s, done)
            done += 1
        while done <= latest and not s.slots[done].is_operation:
            done += 1
        if wanted > 0.0 or done > latest:
            break  # Later starts leave even less time.
        until = max(s.slots[done].time, s.slots[start].time + 1)
        if until > run_end and not has_room(s, run_end, until, buffer.size):
            break
        if _delays_nobody(s, start, region.last, buffer.eviction_seconds):
            return start, done
        tries -= 1
        start += 1
    return NONE, NONE


@entry
def _wants_eviction(s: StayTables, low: int, high: int) -> bool:
    """Whether a run of items [low, high] changes a value that is wanted at home afterwards."""
    last = s.items[high]
    writer = high if last.writes else last.writer
    if writer < low:
        return False
    chain = s.chains[last.chain]
    return s.items[high + 1].reads if high + 1 < chain.last else chain.needs_home


@entry
def _old_runs(s: StayTables, low: int, high: int, old: np.ndarray) -> int:
    """Lists the runs of items [low, high] and of all chains inside them; returns how many, -1 if one is closed."""
    count, depth = 0, 0
    pending = np.empty(64, np.int64)
    for number in range(low, high + 1):
        first, last = number, number + 1
        while True:
            for inner in range(first, last):
                item = s.items[inner]
                full = count == len(old) or depth + item.last_child - item.first_child > len(pending)
                if item.closed or full:
                    return NONE
                if item.run == inner:
                    old[count] = inner
                    count += 1
                for i in range(item.first_child, item.last_child):
                    pending[depth] = s.children[i]
                    depth += 1
            if depth == 0:
                break
            depth -= 1
            chain = s.chains[pending[depth]]
            first, last = chain.first, chain.last
    return count


@entry
def _has_room_between(s: StayTables, low: int, high: int, size: int) -> bool:
    """Whether what a run of items [low, high] needs beyond the runs that it would absorb is free."""
    for number in range(low, high + 1):
        item = s.items[number]
        if item.run == NONE and item.first_child == item.last_child and not has_room(s, item.start, item.end, size):
            return False
        if number < high:
            following = s.items[number + 1]
            start, end = item.end, following.start
            if item.run != NONE:
                start = max(start, s.items[item.run].run_end)
            if following.run != NONE:
                end = min(end, s.items[following.run].run_start)
            if not has_room(s, start, end, size):
                return False
    return True


@entry
def _try_run(s: StayTables, low: int, high: int, channel_price: float, tries: int, patience_share: float) -> bool:
    """Gives items [low, high] of a chain one stay, together with the runs that they touch; returns whether it did.

    It does so if there is room, if copies arrive in time or make an operation wait for no more than a share of what is
    gained, and if it pays: seconds saved, waits subtracted, and `channel_price` times the seconds that the channel is
    less busy, must be positive together. Otherwise nothing changes.
    """
    if s.items[low].run != NONE:
        low = s.items[low].run
    if s.items[high].run != NONE:
        high = s.items[s.items[high].run].run_last
    item = s.items[low]
    if item.run == low and item.run_last >= high:
        return False
    chain = s.chains[item.chain]
    around = chain.parent
    while around != NONE:
        if s.items[around].run != NONE or s.items[around].closed:
            return False
        around = s.chains[s.items[around].chain].parent
    buffer = s.buffers[chain.buffer]
    if not _has_room_between(s, low, high, buffer.size):
        return False
    old = np.empty(256, np.int64)
    count = _old_runs(s, low, high, old)
    if count == NONE:
        return False

    copied_before = 0.0
    for i in range(count):
        copied_before += book_run(s, old[i], -1)
    # Accesses inside that inner runs serve already are no news: remember which are, to undo exactly.
    first, last = item.first_access, s.items[high].last_access
    news = np.empty(last - first, np.int64)
    num_news = 0
    saved, freed = 0.0, 0.0
    for i in range(first, last):
        access = s.order[i]
        if not s.accesses[access].is_fast:
            news[num_news] = access
            num_news += 1
            saved += serve(s, access, True)
            freed += s.accesses[access].traffic * s.operations[s.accesses[access].time].repetitions

    repetitions = s.slots[item.slot].repetitions
    run_start, run_end = item.start, s.items[high].end
    prefetch_start, prefetch_done, eviction_start, eviction_done, late, copied = NONE, NONE, NONE, NONE, 0.0, 0.0
    ok = has_room(s, run_start, run_end, buffer.size)
    if ok and item.reads:
        if chain.buffer == s.facts[0].kept_buffer and low == chain.first and chain.parent == NONE:
            ok = has_room(s, 0, run_start, buffer.size)
            run_start = 0
        else:
            worth = saved + channel_price * (freed + copied_before - buffer.prefetch_seconds * repetitions)
            patience = patience_share * worth / repetitions
            if s.facts[0].can_prefetch:
                prefetch_start, prefetch_done, late = _find_prefetch(s, low, tries, patience)
            ok = prefetch_start != NONE
            if ok:
                run_start = s.slots[prefetch_start].time
                copied += buffer.prefetch_seconds
    if ok and _wants_eviction(s, low, high):
        if s.facts[0].can_evict:
            if prefetch_start != NONE:  # What the prefetch takes of the link is not there for the eviction.
                _book(s, prefetch_start, prefetch_done, max(buffer.prefetch_seconds - late, 0.0))
            eviction_start, eviction_done = _find_eviction(s, high, run_end, tries)
            if prefetch_start != NONE:
                _book(s, prefetch_start, prefetch_done, -max(buffer.prefetch_seconds - late, 0.0))
        ok = eviction_start != NONE
        if ok:
            run_end = max(run_end, s.slots[eviction_done].time, s.slots[eviction_start].time + 1)
            copied += buffer.eviction_seconds
    if ok:
        worth = saved - late * repetitions + channel_price * (freed + copied_before - copied * repetitions)
        ok = worth > _TINY
    if not ok:
        for i in range(num_news):
            serve(s, news[i], False)
        for i in range(count):
            book_run(s, old[count - 1 - i], 1)
        return False
    for i in range(count):
        for inner in range(old[i], s.items[old[i]].run_last + 1):
            s.items[inner].run = NONE
    for number in range(low, high + 1):
        s.items[number].run = low
    item.run_last, item.run_start, item.run_end = high, run_start, run_end
    item.prefetch_start, item.prefetch_done, item.late = prefetch_start, prefetch_done, late
    item.eviction_start, item.eviction_done = eviction_start, eviction_done
    book_run(s, low, 1)
    return True


@entry
def try_all(
    s: StayTables,
    ranked: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
    channel_price: float,
    tries: int,
    patience_share: float,
) -> int:
    """Tries runs in an order; returns how many were taken."""
    taken = 0
    for i in ranked:
        if _try_run(s, lows[i], highs[i], channel_price, tries, patience_share):
            taken += 1
    return taken


@entry
def drop(s: StayTables, run: int) -> None:
    """Serves a run at home again. The plan stays valid: other runs are filled from home, where its value is then."""
    book_run(s, run, -1)
    last = s.items[run].run_last
    for i in range(s.items[run].first_access, s.items[last].last_access):
        serve(s, s.order[i], False)
    for number in range(run, last + 1):
        s.items[number].run = NONE


@entry
def gains(s: StayTables, runs: np.ndarray) -> np.ndarray:
    """Returns the seconds of the program that each run saves, given all others, waits not subtracted."""
    result = np.zeros(len(runs))
    for i in range(len(runs)):
        run = runs[i]
        first, last = s.items[run].first_access, s.items[s.items[run].run_last].last_access
        for k in range(first, last):
            result[i] -= serve(s, s.order[k], False)
        for k in range(first, last):
            serve(s, s.order[k], True)
    return result


@entry
def drop_useless(s: StayTables, runs: np.ndarray) -> int:
    """Serves at home again, one after another, those of some runs that save nothing; returns how many."""
    dropped = 0
    for i in range(len(runs)):
        if gains(s, runs[i : i + 1])[0] <= _TINY:
            drop(s, runs[i])
            dropped += 1
    return dropped


@entry
def score(
    s: StayTables, lows: np.ndarray, highs: np.ndarray, elapsed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns what each run would save and take if nothing stood in its way, given what is decided.

    Args:
      lows, highs: `[num_runs]` items.
      elapsed: `[n + 2]` seconds from the start of the program to each time, loops counted.

    Returns:
      saved: `[num_runs]` seconds of the program, each access by itself.
      freed: `[num_runs]` seconds of the channel, but for copies.
      copied: `[num_runs]` seconds of copies that come with it; negative if it makes more of them needless.
      held: `[num_runs]` size times seconds that are newly taken of the fast space.
    """
    count = len(lows)
    saved, freed, copied, held = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count)
    for i in range(count):
        low, high = lows[i], highs[i]
        first, last = s.items[low], s.items[high]
        buffer = s.buffers[s.chains[first.chain].buffer]
        repetitions = s.slots[first.slot].repetitions
        for k in range(first.first_access, last.last_access):
            access = s.accesses[s.order[k]]
            if not access.is_fast:
                operation = s.operations[access.time]
                after = max(operation.floor, operation.demand - access.saving)
                saved[i] += (max(operation.floor, operation.demand) - after) * operation.repetitions
                freed[i] += access.traffic * operation.repetitions
        seconds = elapsed[last.end] - elapsed[first.start]
        if first.run != NONE:
            seconds -= elapsed[first.end] - elapsed[first.start]
        elif first.reads:
            copied[i] += buffer.prefetch_seconds * repetitions
        if last.run == NONE:
            if _wants_eviction(s, low, high):
                copied[i] += buffer.eviction_seconds * repetitions
        elif high > low:
            if s.items[last.run].prefetch_start != NONE:
                copied[i] -= buffer.prefetch_seconds * repetitions
            seconds -= elapsed[last.end] - elapsed[last.start]
        held[i] = max(seconds + max(copied[i], 0.0), 1e-12) * buffer.size
    return saved, freed, copied, held
