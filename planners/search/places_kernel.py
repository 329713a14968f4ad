"""Offsets of runs while the search goes on, so that whatever it accepts is a plan. Compiled by numba.

Room is booked as the sum of sizes at each time, which says nothing about gaps. After each round, the runs whose times
did not change keep their places. The others take the gap that suits them best between those, and the runs that find
none are dropped. Runs that a neighbourhood gave up are placed again too, so the search moves offsets as it moves runs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.arrays_kernel import argsort
from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import internal
from memplan.planners.stays.rules_kernel import until_next_run
from memplan.planners.stays.runs_kernel import drop
from memplan.planners.stays.tables import NONE, StayTables

# Of what is placed: its half-open times, and its half-open units of the space.
PLACE_ROW = np.dtype([("start", np.int64), ("end", np.int64), ("offset", np.int64), ("top", np.int64)], align=True)


class Places(NamedTuple):
    """Where runs lie. In units of the alignment; for `n` operations.

    Attributes:
      start, end, offset: `[num_items]` half-open times and offset of the run that begins with an item, as last placed;
        a run with other times is yet to be placed. All three are part of the array that is saved and restored.
      fixed: `[num_homes]` PLACE_ROW of what is at home in the space.
      reserved: `[n + 2]` what operations keep for themselves.
      capacity: `[1]`.
      unsorted, blocks: `[2 * num_items + num_homes]` PLACE_ROW, scratch: what is placed; the second by offset.
      waiting: `[num_items]` scratch: runs to be placed.
      claim: `[num_items]` scratch.
      shuffle: `[num_items]` by what the claim of each run is multiplied.
      key, order, spare: `[2 * num_items + num_homes]` scratch.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    offset: NDArray[np.int64]
    fixed: NDArray[np.void]
    reserved: NDArray[np.int64]
    capacity: NDArray[np.int64]
    unsorted: NDArray[np.void]
    blocks: NDArray[np.void]
    waiting: NDArray[np.int64]
    claim: NDArray[np.float64]
    shuffle: NDArray[np.float64]
    key: NDArray[np.float64]
    order: NDArray[np.int64]
    spare: NDArray[np.int64]


by_reference(Places)


@internal
def _intervals(s: StayTables, run: int) -> tuple[int, int, int]:
    """Returns the half-open times of a run, and when it needs its place again until the end; `n + 1` for never."""
    item, after = s.items[run], len(s.operations) + 1
    if run != s.facts[0].kept_item:
        return item.run_start, item.run_end, after
    end, again = until_next_run(item.run_end, s.facts[0].kept_again, after)
    return item.run_start, end, again


@internal
def _write(blocks: np.ndarray, number: int, start: int, end: int, offset: int, size: int) -> None:
    block = blocks[number]
    block.start, block.end, block.offset, block.top = start, end, offset, offset + size


@internal
def _insert_block(blocks: np.ndarray, count: int, start: int, end: int, offset: int, size: int) -> int:
    """Puts a block among `count` that are sorted by offset; returns how many there are then."""
    i = count
    while i > 0 and blocks[i - 1].offset > offset:
        blocks[i] = blocks[i - 1]
        i -= 1
    _write(blocks, i, start, end, offset, size)
    return count + 1


@internal
def _find_gap(
    blocks: np.ndarray, count: int, start: int, end: int, again: int, low: int, high: int, size: int, best_fit: bool
) -> int:
    """Returns an offset in [low, high) between blocks, in the smallest or the lowest gap; -1 for none.

    Args:
      blocks: `[count]` sorted by offset.
      start, end, again: when the place is needed, see `_intervals`.
    """
    found, least = NONE, high + 1
    for i in range(count):
        block = blocks[i]
        if (block.start < end and block.end > start) or block.end > again:
            gap = block.offset - low
            if size <= gap < least:
                found, least = low, gap
                if not best_fit:
                    return found
            low = max(low, block.top)
    return low if size <= high - low < least else found


@internal
def _list_blocks(s: StayTables, p: Places, by_area: bool) -> tuple[int, int]:
    """Lists what is placed in `p.unsorted`, and the runs to be placed in `p.waiting`; returns how many of each."""
    # What is taken out of a tuple of arrays in a loop costs more than the loop itself.
    items, chains, buffers, n = s.items, s.chains, s.buffers, len(s.operations)
    starts, ends, offsets, waiting, claims, unsorted = p.start, p.end, p.offset, p.waiting, p.claim, p.unsorted
    count, num_waiting = len(p.fixed), 0
    for number in range(count):
        unsorted[number] = p.fixed[number]
    for run in range(len(items)):
        item = items[run]
        if item.run != run:
            starts[run] = NONE  # Others may take the place from now on.
            continue
        size = buffers[chains[item.chain].buffer].size
        if starts[run] == item.run_start and ends[run] == item.run_end:
            start, end, again = _intervals(s, run)
            _write(unsorted, count, start, end, offsets[run], size)
            count += 1
            if again <= n:
                _write(unsorted, count, again, n + 1, offsets[run], size)
                count += 1
        else:
            waiting[num_waiting] = run
            claim = float(item.run_end - item.run_start)
            if by_area:
                claim *= size
            claims[num_waiting] = -claim * p.shuffle[run]
            num_waiting += 1
    return count, num_waiting


@internal
def place_new(s: StayTables, p: Places, best_fit: bool, by_area: bool) -> int:
    """Places the runs whose times changed and drops those that find no place; returns how many were dropped.

    Args:
      best_fit: whether a run takes the smallest gap that holds it, rather than the lowest.
      by_area: whether they choose by size times duration, rather than by duration.
    """
    count, num_waiting = _list_blocks(s, p, by_area)
    if num_waiting == 0:
        return 0
    items, chains, buffers, n = s.items, s.chains, s.buffers, len(s.operations)
    starts, ends, offsets, waiting, reserved = p.start, p.end, p.offset, p.waiting, p.reserved
    blocks, capacity, dropped = p.blocks, p.capacity[0], 0
    for i in range(count):
        p.key[i] = p.unsorted[i].offset
    argsort(p.key, count, p.order, p.spare)
    for i in range(count):
        blocks[i] = p.unsorted[p.order[i]]
    argsort(p.claim, num_waiting, p.order, p.spare)
    for i in range(num_waiting):
        run = waiting[p.order[i]]
        item = items[run]
        size = buffers[chains[item.chain].buffer].size
        start, end, again = _intervals(s, run)
        low = 0
        for t in range(start, end):
            low = max(low, reserved[t])
        for t in range(again, n + 1):
            low = max(low, reserved[t])
        offset = _find_gap(blocks, count, start, end, again, low, capacity, size, best_fit)
        if offset == NONE:
            drop(s, run)
            starts[run] = NONE
            dropped += 1
            continue
        starts[run], ends[run], offsets[run] = item.run_start, item.run_end, offset
        count = _insert_block(blocks, count, start, end, offset, size)
        if again <= n:
            count = _insert_block(blocks, count, again, n + 1, offset, size)
    return dropped
