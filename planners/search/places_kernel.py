"""Offsets of runs while the search goes on, so that whatever it accepts is a plan. Compiled by numba.

Room is accounted by the sum of sizes at each time, which says nothing about gaps. After each round, runs whose time
did not change keep their place; the others take the gap that suits them best among those, and those that find none are
dropped. What a neighbourhood gave up is placed anew with it, so the search moves offsets as it moves runs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.kernels import entry, internal
from memplan.planners.stays.runs_kernel import drop
from memplan.planners.stays.tables import NONE, StayTables


class Places(NamedTuple):
    """Where runs lie. In units of the alignment; for `n` operations.

    Attributes:
      start, end, offset: `[num_items]` half-open times and offset of the run that begins with an item, as last placed;
        a run whose times are others is yet to be placed. All three are part of the array that is kept and restored.
      fixed: `[num_homes, 4]` start, end, offset and top of what is at home in the space.
      reserved: `[n + 2]` what operations keep for themselves.
      capacity: `[1]`.
      kept: `[2]` item whose run stays for the next run of the program, and when its copy for that starts; -1 for none.
      unsorted, blocks: `[2 * num_items + num_homes, 4]` scratch: start, end, offset and top of what is placed; the
        second by offset.
      waiting: `[num_items]` scratch: runs to be placed.
      claim: `[num_items]` scratch.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    offset: NDArray[np.int64]
    fixed: NDArray[np.int64]
    reserved: NDArray[np.int64]
    capacity: NDArray[np.int64]
    kept: NDArray[np.int64]
    unsorted: NDArray[np.int64]
    blocks: NDArray[np.int64]
    waiting: NDArray[np.int64]
    claim: NDArray[np.float64]


@internal
def _intervals(items: np.ndarray, run: int, kept: np.ndarray, n: int) -> tuple[int, int, int]:
    """Returns the half-open times of a run, and when it needs its place again until the end; `n + 1` for never."""
    item = items[run]
    if run != kept[0] or kept[1] == NONE:
        return item.run_start, item.run_end, n + 1
    if item.run_end >= kept[1]:
        return item.run_start, n + 1, n + 1
    return item.run_start, item.run_end, kept[1]


@internal
def _insert_block(blocks: np.ndarray, count: int, start: int, end: int, offset: int, top: int) -> int:
    """Puts a block among `count` that are sorted by offset; returns how many there are then."""
    i = count
    while i > 0 and blocks[i - 1, 2] > offset:
        for k in range(4):
            blocks[i, k] = blocks[i - 1, k]
        i -= 1
    blocks[i, 0], blocks[i, 1], blocks[i, 2], blocks[i, 3] = start, end, offset, top
    return count + 1


@internal
def _find_gap(
    blocks: np.ndarray, count: int, start: int, end: int, again: int, low: int, high: int, size: int, best_fit: bool
) -> int:
    """Returns an offset in [low, high) between blocks, in the smallest or the lowest gap; -1 for none.

    Args:
      blocks: `[count, 4]` sorted by offset.
      start, end, again: when the place is needed, see `_intervals`.
    """
    found, least = NONE, high + 1
    for i in range(count):
        if (blocks[i, 0] < end and blocks[i, 1] > start) or blocks[i, 1] > again:
            gap = blocks[i, 2] - low
            if size <= gap < least:
                found, least = low, gap
                if not best_fit:
                    return found
            low = max(low, blocks[i, 3])
    return low if size <= high - low < least else found


@internal
def _sort_blocks(blocks: np.ndarray, count: int, result: np.ndarray) -> None:
    """Writes blocks in the order of their offsets."""
    ranked = np.argsort(blocks[:count, 2])
    for i in range(count):
        for k in range(4):
            result[i, k] = blocks[ranked[i], k]


@entry
def place_new(s: StayTables, p: Places, best_fit: bool, by_area: bool, shuffle: np.ndarray) -> int:
    """Places the runs whose times changed and drops those that find no place; returns how many were dropped.

    Args:
      best_fit: whether a run takes the smallest gap that holds it, rather than the lowest.
      by_area: whether they choose by size times duration, rather than by duration.
      shuffle: `[num_items]` by what the claim of each is multiplied.
    """
    # What is taken out of a tuple of arrays in a loop costs more than the loop itself.
    items, chains, buffers, n = s.items, s.chains, s.buffers, len(s.operations)
    starts, ends, offsets, waiting, claims, reserved = p.start, p.end, p.offset, p.waiting, p.claim, p.reserved
    count = len(p.fixed)
    p.unsorted[:count] = p.fixed
    num_waiting = 0
    for run in range(len(items)):
        item = items[run]
        if item.run != run:
            starts[run] = NONE  # Others may take the place from now on.
            continue
        size = buffers[chains[item.chain].buffer].size
        if starts[run] == item.run_start and ends[run] == item.run_end:
            start, end, again = _intervals(items, run, p.kept, n)
            row = p.unsorted[count]
            row[0], row[1], row[2], row[3] = start, end, offsets[run], offsets[run] + size
            count += 1
            if again <= n:
                row = p.unsorted[count]
                row[0], row[1], row[2], row[3] = again, n + 1, offsets[run], offsets[run] + size
                count += 1
        else:
            waiting[num_waiting] = run
            claim = float(item.run_end - item.run_start)
            if by_area:
                claim *= size
            claims[num_waiting] = -claim * shuffle[run]
            num_waiting += 1
    if num_waiting == 0:
        return 0
    blocks, capacity, dropped = p.blocks, p.capacity[0], 0
    _sort_blocks(p.unsorted, count, blocks)
    for i in np.argsort(claims[:num_waiting]):
        run = waiting[i]
        item = items[run]
        size = buffers[chains[item.chain].buffer].size
        start, end, again = _intervals(items, run, p.kept, n)
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
        count = _insert_block(blocks, count, start, end, offset, offset + size)
        if again <= n:
            count = _insert_block(blocks, count, again, n + 1, offset, offset + size)
    return dropped
