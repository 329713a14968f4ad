"""Offsets of runs while the search goes on, so that whatever it accepts is a plan. Compiled by numba.

Room is accounted by the sum of sizes at each time, which says nothing about gaps. After each round, runs whose time
did not change keep their place; the others take the gap that suits them best among those, and those that find none are
dropped. What a neighbourhood gave up is placed anew with it, so the search moves offsets as it moves runs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from memplan.planners._search import drop
from memplan.planners._tables import NONE, Tables

# Functions that only compiled ones call need no entry from Python, which takes a good part of compiling them.
_INTERNAL = {"cache": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


class Places(NamedTuple):
    """Where runs lie. In units of the alignment; for `n` operations.

    Attributes:
      start, end, offset: `[num_items]` half-open times and offset of the run that begins with an item, as last placed;
        a run whose times are others is yet to be placed. All three are part of the array that is kept and restored.
      fixed: `[num_homes, 4]` start, end, offset and top of what is at home in the space.
      reserved: `[n + 2]` what operations keep for themselves.
      capacity: `[1]`.
      kept: `[2]` item whose run stays for the next run of the program, and when its copy for that starts; -1 for none.
      blocks: `[2 * num_items + num_homes, 4]` scratch: start, end, offset and top of what is placed.
      waiting: `[num_items]` scratch: runs to be placed.
      claim: `[num_items]` scratch.
      gaps: `[2 * num_items + num_homes, 2]` scratch: offset and top of what is in the way.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    offset: NDArray[np.int64]
    fixed: NDArray[np.int64]
    reserved: NDArray[np.int64]
    capacity: NDArray[np.int64]
    kept: NDArray[np.int64]
    blocks: NDArray[np.int64]
    waiting: NDArray[np.int64]
    claim: NDArray[np.float64]
    gaps: NDArray[np.int64]


@njit(**_INTERNAL)
def _intervals(s: Tables, p: Places, run: int) -> tuple[int, int, int]:
    """Returns the half-open times of a run, and when it needs its place again until the end; `n + 1` for never."""
    item, n = s.items[run], len(s.operations)
    if run != p.kept[0] or p.kept[1] == NONE:
        return item.run_start, item.run_end, n + 1
    if item.run_end >= p.kept[1]:
        return item.run_start, n + 1, n + 1
    return item.run_start, item.run_end, p.kept[1]


@njit(**_INTERNAL)
def _add_block(s: Tables, p: Places, run: int, count: int) -> int:
    start, end, again = _intervals(s, p, run)
    top = p.offset[run] + s.buffers[s.chains[s.items[run].chain].buffer].size
    p.blocks[count, 0], p.blocks[count, 1], p.blocks[count, 2], p.blocks[count, 3] = start, end, p.offset[run], top
    count += 1
    n = len(s.operations)
    if again <= n:
        p.blocks[count, 0], p.blocks[count, 1], p.blocks[count, 2], p.blocks[count, 3] = (
            again,
            n + 1,
            p.offset[run],
            top,
        )
        count += 1
    return count


@njit(**_INTERNAL)
def _find_gap(s: Tables, p: Places, run: int, count: int, best_fit: bool) -> int:
    """Returns an offset for a run between `count` blocks, in the smallest or the lowest gap; -1 for none."""
    start, end, again = _intervals(s, p, run)
    n = len(s.operations)
    size = s.buffers[s.chains[s.items[run].chain].buffer].size
    low = 0
    for t in range(start, end):
        low = max(low, p.reserved[t])
    for t in range(again, n + 1):
        low = max(low, p.reserved[t])
    num_gaps = 0
    for i in range(count):
        if (p.blocks[i, 0] < end and p.blocks[i, 1] > start) or p.blocks[i, 1] > again:
            # Insertion into what is sorted by offset: it is a few dozen at most.
            offset, top = p.blocks[i, 2], p.blocks[i, 3]
            k = num_gaps
            while k > 0 and p.gaps[k - 1, 0] > offset:
                p.gaps[k, 0], p.gaps[k, 1] = p.gaps[k - 1, 0], p.gaps[k - 1, 1]
                k -= 1
            p.gaps[k, 0], p.gaps[k, 1] = offset, top
            num_gaps += 1
    found, least = NONE, p.capacity[0] + 1
    for i in range(num_gaps + 1):
        high = p.gaps[i, 0] if i < num_gaps else p.capacity[0]
        gap = high - low
        if size <= gap < least:
            found, least = low, gap
            if not best_fit:
                break
        if i < num_gaps:
            low = max(low, p.gaps[i, 1])
    return found


@njit(cache=True)
def place_new(s: Tables, p: Places, best_fit: bool, by_area: bool, shuffle: np.ndarray) -> int:
    """Places the runs whose times changed and drops those that find no place; returns how many were dropped.

    Args:
      best_fit: whether a run takes the smallest gap that holds it, rather than the lowest.
      by_area: whether they choose by size times duration, rather than by duration.
      shuffle: `[num_items]` by what the claim of each is multiplied.
    """
    count = len(p.fixed)
    for i in range(count):
        for k in range(4):
            p.blocks[i, k] = p.fixed[i, k]
    num_waiting = 0
    for run in range(len(s.items)):
        item = s.items[run]
        if item.run != run:
            p.start[run] = NONE  # Others may take the place from now on.
            continue
        if p.start[run] == item.run_start and p.end[run] == item.run_end:
            count = _add_block(s, p, run, count)
        else:
            p.waiting[num_waiting] = run
            claim = float(item.run_end - item.run_start)
            if by_area:
                claim *= s.buffers[s.chains[item.chain].buffer].size
            p.claim[num_waiting] = -claim * shuffle[run]
            num_waiting += 1
    dropped = 0
    for i in np.argsort(p.claim[:num_waiting]):
        run = p.waiting[i]
        offset = _find_gap(s, p, run, count, best_fit)
        if offset == NONE:
            drop(s, run)
            p.start[run] = NONE
            dropped += 1
            continue
        p.start[run], p.end[run], p.offset[run] = s.items[run].run_start, s.items[run].run_end, offset
        count = _add_block(s, p, run, count)
    return dropped
