"""The neighbourhoods of `search`: each gives up some runs and decides again around them. Compiled by numba.

Ruin and recreate (Schrimpf et al., 2000): what a neighbourhood gives up leaves room over some span of time, and the
candidates that touch it compete for that room in a randomized greedy order, by `runs_kernel.try_run`.

    WINDOW    most runs in some part of time
    SCATTER   a few runs, anywhere or around one time
    BUFFER    all runs of one buffer
    INSERT    those in the way of one run that is left out, which then goes first
    SPLIT     one use of a run; what is left of it on both sides goes first
    SHIFT     nothing: the copy that fills a run starts earlier or later
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.arrays_kernel import argsort
from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import entry, internal
from memplan.planners.stays.booking_kernel import book_run, has_room, refresh, serve
from memplan.planners.stays.random_kernel import below, uniform
from memplan.planners.stays.rules import CHANNEL_PRICE, TRIES
from memplan.planners.stays.rules_kernel import duration
from memplan.planners.stays.runs_kernel import drop, note, score, take, try_run
from memplan.planners.stays.tables import NONE, StayTables

WINDOW, SCATTER, BUFFER, INSERT, SPLIT, SHIFT = range(6)
NUM_KINDS = 6

# Of what a neighbourhood gave up: the half-open times at which there is room now, and the half-open items that no
# candidate may hold, so that the same run does not come back at once.
SPAN_ROW = np.dtype(
    [("start", np.int64), ("end", np.int64), ("first_barred", np.int64), ("last_barred", np.int64)], align=True
)


class Neighbourhoods(NamedTuple):
    """What the neighbourhoods need beside the tables. For `n` operations and `num_runs` candidates.

    Attributes:
      lows, highs: `[num_runs]` items of the runs that compete.
      starts, ends: `[num_runs]` half-open times of these items.
      prior: `[num_items]` by how much the claim of a run that begins with each item is multiplied.
      capacity: `[1]` largest room that there is at any time, in units of the alignment.
      low, high, key, order, spare: `[num_runs + num_chains + 2]` scratch: the candidates of one round.
      stay: `[1]` ITEM_ROW, scratch.
      elapsed: `[n + 2]` scratch: seconds from the start of the program to each time.
      span: `[1]` SPAN_ROW of the present round.
      random: `[1] uint64` state of the random numbers.
    """

    lows: NDArray[np.int64]
    highs: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    prior: NDArray[np.float64]
    capacity: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    key: NDArray[np.float64]
    order: NDArray[np.int64]
    spare: NDArray[np.int64]
    stay: NDArray[np.void]
    elapsed: NDArray[np.float64]
    span: NDArray[np.void]
    random: NDArray[np.uint64]


by_reference(Neighbourhoods)


@internal
def _give_up(s: StayTables, h: Neighbourhoods, run: int) -> None:
    """Drops a run, and remembers when there is room now."""
    span = h.span[0]
    span.start = min(span.start, s.items[run].run_start)
    span.end = max(span.end, s.items[run].run_end)
    drop(s, run)


@internal
def _random_run(s: StayTables, random: np.ndarray) -> int:
    """Returns a run; -1 if there is none."""
    items = s.items
    count = 0
    for number in range(len(items)):
        if items[number].run == number:
            count += 1
    if count == 0:
        return NONE
    left = below(random, count)
    for number in range(len(items)):
        if items[number].run == number:
            if left == 0:
                return number
            left -= 1
    return NONE


@internal
def _ruin_window(s: StayTables, h: Neighbourhoods, start: int, end: int, share: float) -> None:
    """Gives up a random share of the runs in [start, end)."""
    items, random = s.items, h.random
    for number in range(len(items)):
        item = items[number]
        if item.run == number and item.run_start < end and item.run_end > start and uniform(random) < share:
            _give_up(s, h, number)


@internal
def _ruin_few(s: StayTables, h: Neighbourhoods) -> bool:
    """Gives up a few runs, half of the time around one time, and may bar the first; returns whether there was any."""
    first = _random_run(s, h.random)
    if first == NONE:
        return False
    chain = s.chains[s.items[first].chain]
    if uniform(h.random) < 0.5:
        h.span[0].first_barred, h.span[0].last_barred = first, s.items[first].run_last + 1
    elif uniform(h.random) < 0.3:
        h.span[0].first_barred, h.span[0].last_barred = chain.first, chain.last
    time = s.items[first].run_start
    _give_up(s, h, first)
    if uniform(h.random) < 0.5:
        _ruin_window(s, h, time, time + 1, 0.3)
        return True
    while uniform(h.random) < 0.6:
        run = _random_run(s, h.random)
        if run != NONE:
            _give_up(s, h, run)
    return True


@internal
def _ruin_buffer(s: StayTables, h: Neighbourhoods) -> bool:
    """Gives up all runs of a buffer; returns whether there was any."""
    run = _random_run(s, h.random)
    if run == NONE:
        return False
    buffer = s.chains[s.items[run].chain].buffer
    chain = s.chains[s.items[run].chain]
    if uniform(h.random) < 0.5:
        h.span[0].first_barred, h.span[0].last_barred = chain.first, chain.last
    for number in range(len(s.chains)):
        other = s.chains[number]
        if other.buffer == buffer:
            for item in range(other.first, other.last):
                if s.items[item].run == item:
                    _give_up(s, h, item)
    return True


@internal
def _make_room(s: StayTables, h: Neighbourhoods, start: int, end: int, size: int) -> bool:
    """Gives up random runs in [start, end) until `size` units are free; returns whether they are."""
    items, free, random = s.items, s.free, h.random
    for t in range(start, end):
        while free[t] < size:
            seen, chosen = 0, NONE
            for number in range(len(items)):
                item = items[number]
                if item.run == number and item.run_start <= t < item.run_end:
                    seen += 1
                    if below(random, seen) == 0:
                        chosen = number
            if chosen == NONE:
                return False
            _give_up(s, h, chosen)
    return True


@internal
def _try_one(s: StayTables, h: Neighbourhoods, low: int, high: int) -> bool:
    """Gives items [low, high] a stay if possible."""
    return try_run(s, low, high, 1.0, TRIES, 1.0, h.stay[0])


@internal
def _insert(s: StayTables, h: Neighbourhoods) -> bool:
    """Makes room for a run that is left out and takes it; returns whether that was possible."""
    num_chains = len(s.chains)
    for _ in range(20):
        if uniform(h.random) < 0.6:
            candidate = below(h.random, len(h.lows))
            low, high = h.lows[candidate], h.highs[candidate]
        else:
            chain = s.chains[below(h.random, num_chains)]
            if chain.last == chain.first:
                continue
            low = chain.first + below(h.random, chain.last - chain.first)
            high = low + below(h.random, min(chain.last - low, 6))
        run = s.items[low].run
        if run == NONE or s.items[run].run_last < high:
            break
    else:
        return False
    size = s.buffers[s.chains[s.items[low].chain].buffer].size
    # Runs of the loops and conditionals around it give way, too.
    around = s.chains[s.items[low].chain].parent
    while around != NONE:
        if s.items[around].run != NONE:
            _give_up(s, h, s.items[around].run)
        around = s.chains[s.items[around].chain].parent
    lead = 0
    if s.items[low].reads and s.items[low].run == NONE and uniform(h.random) < 0.7:
        lead = 1 + below(h.random, 8)
    start = max(s.items[low].start - lead, 0)
    end = s.items[high].end
    # Runs of its own items are given up first, since they have their memory already.
    for number in range(low, high + 1):
        if s.items[number].run != NONE:
            _give_up(s, h, s.items[number].run)
    if not _make_room(s, h, start, end, size):
        return False
    if not _try_one(s, h, low, high):
        return False
    span = h.span[0]
    span.start = min(span.start, s.items[low].start)
    span.end = max(span.end, s.items[low].end)
    return True


@internal
def _split(s: StayTables, h: Neighbourhoods) -> bool:
    """Takes one use out of a run; returns whether there was one."""
    run = _random_run(s, h.random)
    if run == NONE:
        return False
    last = s.items[run].run_last
    item = run + below(h.random, last - run + 1)
    _give_up(s, h, run)
    if item > run:
        _try_one(s, h, run, item - 1)
    if item < last:
        _try_one(s, h, item + 1, last)
    h.span[0].first_barred, h.span[0].last_barred = item, item + 1
    return True


@internal
def _shift(s: StayTables, h: Neighbourhoods) -> bool:
    """Lets the copy that fills a run start at another slot nearby; returns whether that is possible."""
    for _ in range(20):
        run = _random_run(s, h.random)
        if run == NONE:
            return False
        if s.items[run].prefetch_start != NONE:
            break
    else:
        return False
    item = s.items[run]
    chain = s.chains[item.chain]
    earliest = s.regions[chain.region].first
    if item.writer != NONE:
        writer = s.items[item.writer].run
        earliest = s.items[item.writer].ready if writer == NONE else s.items[writer].eviction_done
    step = 1 + below(h.random, 1 << (1 + below(h.random, 5)))
    slot = item.prefetch_start - step if uniform(h.random) < 0.6 else item.prefetch_start + step
    slot = max(earliest, min(slot, item.prefetch_done))
    while slot > earliest and not s.slots[slot].is_operation:
        slot -= 1
    if slot < earliest or slot == item.prefetch_start or not s.slots[slot].is_operation:
        return False
    start = s.slots[slot].time
    if start < item.run_start and not has_room(s, start, item.run_start, s.buffers[chain.buffer].size):
        return False
    h.span[0].start, h.span[0].end = min(start, item.run_start), max(start, item.run_start)
    book_run(s, run, -1)
    item.run_start, item.prefetch_start, item.late = start, slot, 0.0
    book_run(s, run, 1)
    note(s, run, item.run_last)
    return True


@internal
def _candidates(s: StayTables, h: Neighbourhoods) -> int:
    """Lists the runs that touch the span and are not taken, and a random one of each chain; returns how many."""
    # What is taken out of a tuple of arrays in a loop costs more than the loop itself.
    items, chains, lows, highs, starts, ends = s.items, s.chains, h.lows, h.highs, h.starts, h.ends
    listed_low, listed_high, random = h.low, h.high, h.random
    start, end, first, last = h.span[0].start, h.span[0].end, h.span[0].first_barred, h.span[0].last_barred
    count = 0
    for candidate in range(len(lows)):
        if starts[candidate] >= end or ends[candidate] <= start:
            continue
        low, high = lows[candidate], highs[candidate]
        if low < last and high >= first:
            continue
        run = items[low].run
        if run == NONE or items[run].run_last < high:
            listed_low[count], listed_high[count] = low, high
            count += 1
    for number in range(len(chains)):
        chain = chains[number]
        length = chain.last - chain.first
        if length < 4 or items[chain.first].start >= end or items[chain.last - 1].end <= start:
            continue
        low = chain.first + below(random, length - 2)
        high = low + 2 + below(random, chain.last - low - 2)
        run = items[low].run
        if (run == NONE or items[run].run_last < high) and not (low < last and high >= first):
            listed_low[count], listed_high[count] = low, high
            count += 1
    return count


@internal
def _recreate(s: StayTables, h: Neighbourhoods) -> None:
    """Lets the runs that touch the span compete, in a random greedy order."""
    refresh(s)
    n = len(s.operations)
    seconds = 0.0
    operations, elapsed, low, high, keys, order, prior = (
        s.operations,
        h.elapsed,
        h.low,
        h.high,
        h.key,
        h.order,
        h.prior,
    )
    for t in range(n):
        elapsed[t] = seconds
        operation = operations[t]
        seconds += duration(operation.floor, operation.demand) * operation.repetitions
    elapsed[n] = elapsed[n + 1] = seconds
    patience = 0.0 if uniform(h.random) < 0.2 else 0.25 if uniform(h.random) < 0.4 else 1.0
    price = CHANNEL_PRICE * 10.0 ** (1.5 * uniform(h.random) - 1.0)
    channel_weight = 10.0 ** (2.0 * uniform(h.random) - 1.0)
    noise = 2.0 * uniform(h.random)
    by_density = uniform(h.random) < 0.85
    for _ in range(1 if uniform(h.random) < 0.6 else 2):
        count = _candidates(s, h)
        num_worthy = 0
        for i in range(count):
            saved, freed, copied, held = score(s, low[i], high[i], elapsed)
            worth = saved + price * (freed - copied)
            if not worth > 0.0:
                continue
            key = worth * prior[low[i]]
            if by_density:
                key /= held / h.capacity[0] + channel_weight * max(copied, 0.0) + 1e-30
            keys[num_worthy] = -key * np.exp(noise * (uniform(h.random) - 0.5))
            low[num_worthy], high[num_worthy] = low[i], high[i]
            num_worthy += 1
        argsort(keys, num_worthy, order, h.spare)
        taken = 0
        for i in range(num_worthy):
            if try_run(s, low[order[i]], high[order[i]], price, TRIES, patience, h.stay[0]):
                taken += 1
        if taken == 0:
            break


@internal
def go_to_neighbour(s: StayTables, h: Neighbourhoods, kind: int) -> bool:
    """Goes to a neighbour; returns whether there was one. If not, the tables may be left half changed."""
    n = len(s.operations)
    span = h.span[0]
    span.start, span.end, span.first_barred, span.last_barred = n + 1, 0, NONE, NONE
    if kind == WINDOW:
        width = max(2, int(n * 2.0 ** -(1.0 + 7.0 * uniform(h.random))))
        start = below(h.random, n + width) - width
        span.start, span.end = max(start, 0), min(start + width, n + 1)
        _ruin_window(s, h, span.start, span.end, 0.7)
        ok = True
    elif kind == SCATTER:
        ok = _ruin_few(s, h)
    elif kind == BUFFER:
        ok = _ruin_buffer(s, h)
    elif kind == INSERT:
        ok = _insert(s, h)
    elif kind == SPLIT:
        ok = _split(s, h)
    else:
        ok = _shift(s, h)
    if ok and not (kind == SHIFT and uniform(h.random) < 0.5):
        _recreate(s, h)
    return ok


@entry
def take_again(s: StayTables, rows: np.ndarray) -> None:
    """Takes runs as in other tables of the same frame, except those that are not possible here.

    Args:
      rows: ITEM_ROW of the first item of each run.
    """
    for i in range(len(rows)):
        row = rows[i]
        item = s.items[row.run]
        chain = s.chains[item.chain]
        if item.reads and (row.run == s.facts[0].kept_item) == (row.prefetch_start != NONE):
            continue
        if not has_room(s, row.run_start, row.run_end, s.buffers[chain.buffer].size):
            continue
        for k in range(item.first_access, s.items[row.run_last].last_access):
            serve(s, s.order[k], True)
        take(s, row.run, row.run_last, row)
