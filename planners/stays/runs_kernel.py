"""The search for stays: which runs of a buffer's accesses a fast memory serves. Inner loops, compiled by numba.

The unit of decision is a *run*: neighbouring items of a chain (see `chains.py`) that one stay serves. `try_run` gives a
run its memory and its copies, or leaves everything as it was. What that takes is booked in `booking_kernel.py`, and
`copies_kernel.py` finds when its copies can be made.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memplan.compiler.kernels import entry, internal
from memplan.planners.stays.booking_kernel import TINY, book_run, has_room, serve
from memplan.planners.stays.copies_kernel import schedule_eviction, schedule_prefetch
from memplan.planners.stays.rules_kernel import duration, writer_to_evict
from memplan.planners.stays.tables import ITEM_ROW, NONE, StayTables

# Of a run that may be taken, see `score`.
SCORE_ROW = np.dtype([(name, np.float64) for name in ("saved", "freed", "copied", "held")], align=True)

# Runs that one run may take the place of, and chains that are looked at for them: a run over more is not tried.
_MOST_OLD_RUNS, _MOST_PENDING = 256, 64


@internal
def _old_runs(s: StayTables, low: int, high: int, old: np.ndarray) -> int:
    """Lists the runs of items [low, high] and of all chains inside them; returns how many, -1 if one is closed."""
    count, depth = 0, 0
    pending = np.empty(_MOST_PENDING, np.int64)
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


@internal
def _has_room_between(s: StayTables, low: int, high: int, size: int) -> bool:
    """Whether the room that a run of items [low, high] needs, beyond that of the runs inside of it, is free."""
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


@internal
def _with_touched_runs(s: StayTables, low: int, high: int) -> tuple[int, int]:
    """Extends items [low, high] by the runs that they touch; returns -1, -1 if that is a run or cannot be one."""
    if s.items[low].run != NONE:
        low = s.items[low].run
    if s.items[high].run != NONE:
        high = s.items[s.items[high].run].run_last
    item = s.items[low]
    if item.run == low and item.run_last >= high:
        return NONE, NONE
    around = s.chains[item.chain].parent
    while around != NONE:
        if s.items[around].run != NONE or s.items[around].closed:
            return NONE, NONE
        around = s.chains[s.items[around].chain].parent
    return low, high


@internal
def _serve_all(s: StayTables, low: int, high: int, served: np.ndarray) -> tuple[int, float, float]:
    """Serves the accesses of items [low, high] from the fast space.

    Args:
      served: is filled with those that were not served there before, by runs inside of loops.

    Returns:
      how many these are, the seconds of the program that they save, and the seconds of the channel that they free.
    """
    count, saved, freed = 0, 0.0, 0.0
    for i in range(s.items[low].first_access, s.items[high].last_access):
        access = s.order[i]
        if not s.accesses[access].is_fast:
            served[count] = access
            count += 1
            saved += serve(s, access, True)
            freed += s.accesses[access].traffic * s.operations[s.accesses[access].time].repetitions
    return count, saved, freed


@internal
def _schedule(
    s: StayTables,
    low: int,
    high: int,
    saved: float,
    freed: float,
    channel_price: float,
    tries: int,
    patience_share: float,
    stay: Any,
) -> bool:
    """Finds the times of a stay and its copies for items [low, high]; returns whether it is possible and pays.

    Args:
      saved: seconds of the program that it saves.
      freed: seconds of the channel that it frees, its own copies not subtracted.
      channel_price, tries, patience_share: see `try_all`.
      stay: ITEM_ROW that receives the times.
    """
    item = s.items[low]
    buffer = s.buffers[s.chains[item.chain].buffer]
    repetitions = s.slots[item.slot].repetitions
    stay.run_last, stay.run_start, stay.run_end = high, item.start, s.items[high].end
    stay.prefetch_start = stay.prefetch_done = stay.eviction_start = stay.eviction_done = NONE
    stay.late = 0.0
    if repetitions == 0.0:  # in a loop that never runs nothing is saved
        return False
    if not has_room(s, stay.run_start, stay.run_end, buffer.size):
        return False
    if item.reads:
        worth = saved + channel_price * (freed - buffer.prefetch_seconds * repetitions)
        if not schedule_prefetch(s, low, tries, patience_share * worth / repetitions, stay):
            return False
    if not schedule_eviction(s, low, high, tries, stay):
        return False
    copied = 0.0
    if stay.prefetch_start != NONE:
        copied += buffer.prefetch_seconds
    if stay.eviction_start != NONE:
        copied += buffer.eviction_seconds
    worth = saved - stay.late * repetitions + channel_price * (freed - copied * repetitions)
    return worth > TINY


@internal
def note(s: StayTables, first: int, last: int) -> None:
    """Writes into the journal that the run of items [first, last] is changed, if there is room."""
    count = s.changes[0]
    if count < len(s.journal):
        s.journal[count].run, s.journal[count].run_last = first, last
    s.changes[0] = count + 1


@internal
def take(s: StayTables, low: int, high: int, stay: Any) -> None:
    """Makes items [low, high] a run with the times of a stay. Their accesses must be served already."""
    item = s.items[low]
    for number in range(low, high + 1):
        s.items[number].run = low
    item.run_last, item.run_start, item.run_end = high, stay.run_start, stay.run_end
    item.prefetch_start, item.prefetch_done, item.late = stay.prefetch_start, stay.prefetch_done, stay.late
    item.eviction_start, item.eviction_done = stay.eviction_start, stay.eviction_done
    book_run(s, low, 1)
    note(s, low, high)


@internal
def try_run(
    s: StayTables, low: int, high: int, channel_price: float, tries: int, patience_share: float, stay: Any
) -> bool:
    """Gives items [low, high] of a chain one stay, together with the runs that they touch; returns whether it did.

    Args:
      channel_price, tries, patience_share: see `try_all`.
      stay: ITEM_ROW to work in.
    """
    low, high = _with_touched_runs(s, low, high)
    if low == NONE or not _has_room_between(s, low, high, s.buffers[s.chains[s.items[low].chain].buffer].size):
        return False
    old = np.empty(_MOST_OLD_RUNS, np.int64)
    num_old = _old_runs(s, low, high, old)
    if num_old == NONE:
        return False
    copied_before = 0.0
    for i in range(num_old):
        copied_before += book_run(s, old[i], -1)
    served = np.empty(s.items[high].last_access - s.items[low].first_access, np.int64)
    num_served, saved, freed = _serve_all(s, low, high, served)
    if not _schedule(s, low, high, saved, freed + copied_before, channel_price, tries, patience_share, stay):
        for i in range(num_served):
            serve(s, served[i], False)
        for i in range(num_old):
            book_run(s, old[num_old - 1 - i], 1)
        return False
    for i in range(num_old):
        note(s, old[i], s.items[old[i]].run_last)
        for inner in range(old[i], s.items[old[i]].run_last + 1):
            s.items[inner].run = NONE
    take(s, low, high, stay)
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
    """Gives runs a stay in some order, together with the runs that they touch.

    A run gets one if there is room, if its copies arrive in time or make an operation wait for no more than a share of
    what is gained, and if it pays: seconds saved, waits subtracted, and `channel_price` times the seconds that the
    channel is less busy, must be positive together. Otherwise nothing changes.

    Args:
      ranked: `[num_tried]` which runs, in this order.
      lows, highs: `[num_runs]` first and last item of each run.
      channel_price: seconds that a second of the link's time is worth.
      tries: starts of a copy that are looked at before it is given up.
      patience_share: of the gain, that an operation may wait for a copy.

    Returns:
      how many were taken.
    """
    taken = 0
    stay = np.zeros(1, ITEM_ROW)[0]
    for i in ranked:
        if try_run(s, lows[i], highs[i], channel_price, tries, patience_share, stay):
            taken += 1
    return taken


@entry
def drop(s: StayTables, run: int) -> None:
    """Serves a run at home again. Other runs are filled from home, where its value is then, so they stay valid."""
    book_run(s, run, -1)
    last = s.items[run].run_last
    note(s, run, last)
    for i in range(s.items[run].first_access, s.items[last].last_access):
        serve(s, s.order[i], False)
    for number in range(run, last + 1):
        s.items[number].run = NONE


@internal
def _gain(s: StayTables, run: int) -> float:
    """Returns the seconds of the program that a run saves, given all others, waits not subtracted."""
    gain = 0.0
    first, last = s.items[run].first_access, s.items[s.items[run].run_last].last_access
    for k in range(first, last):
        gain -= serve(s, s.order[k], False)
    for k in range(first, last):
        serve(s, s.order[k], True)
    return gain


@entry
def gains(s: StayTables, runs: np.ndarray, result: np.ndarray) -> None:
    """Writes the seconds of the program that each run saves, given all others, waits not subtracted."""
    for i in range(len(runs)):
        result[i] = _gain(s, runs[i])


@entry
def drop_useless(s: StayTables, runs: np.ndarray) -> int:
    """Serves at home again, one after another, those of some runs that save nothing; returns how many."""
    dropped = 0
    for i in range(len(runs)):
        if _gain(s, runs[i]) <= TINY:
            drop(s, runs[i])
            dropped += 1
    return dropped


@internal
def score(s: StayTables, low: int, high: int, elapsed: np.ndarray) -> tuple[float, float, float, float]:
    """Returns what a run would save and take, given what is decided, if there were room and time for its copies.

    Args:
      low, high: its first and last item.
      elapsed: `[n + 2]` seconds from the start of the program to each time, loops counted.

    Returns:
      saved: seconds of the program, each access by itself.
      freed: seconds of the channel, but for copies.
      copied: seconds of copies that come with it; negative if it makes more of them needless.
      held: size times seconds that are newly taken of the fast space.
    """
    saved, freed, copied = 0.0, 0.0, 0.0
    first, last = s.items[low], s.items[high]
    buffer = s.buffers[s.chains[first.chain].buffer]
    repetitions = s.slots[first.slot].repetitions
    for k in range(first.first_access, last.last_access):
        access = s.accesses[s.order[k]]
        if not access.is_fast:
            operation = s.operations[access.time]
            after = duration(operation.floor, operation.demand - access.saving)
            saved += (duration(operation.floor, operation.demand) - after) * operation.repetitions
            freed += access.traffic * operation.repetitions
    seconds = elapsed[last.end] - elapsed[first.start]
    if first.run != NONE:
        seconds -= elapsed[first.end] - elapsed[first.start]
    elif first.reads:
        copied += buffer.prefetch_seconds * repetitions
    if last.run == NONE:
        if writer_to_evict(s.items, s.chains, low, high) != NONE:
            copied += buffer.eviction_seconds * repetitions
    elif high > low:
        if s.items[last.run].prefetch_start != NONE:
            copied -= buffer.prefetch_seconds * repetitions
        seconds -= elapsed[last.end] - elapsed[last.start]
    return saved, freed, copied, max(seconds + max(copied, 0.0), 1e-12) * buffer.size


@entry
def score_all(s: StayTables, lows: np.ndarray, highs: np.ndarray, elapsed: np.ndarray, scores: np.ndarray) -> None:
    """Writes `score` of each run.

    Args:
      lows, highs: `[num_runs]` items.
      elapsed: `[n + 2]` see `score`.
      scores: `[num_runs]` SCORE_ROW, is filled.
    """
    for i in range(len(lows)):
        row = scores[i]
        row.saved, row.freed, row.copied, row.held = score(s, lows[i], highs[i], elapsed)
