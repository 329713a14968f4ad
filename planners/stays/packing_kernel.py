"""Offsets: rectangles of given time and size, packed so that none overlap. The inner loops, compiled by numba.

Time is fixed; only the offset is to be found. An *item* is a block of bytes that is taken during one or several
intervals of time. All quantities are in units of the space's alignment.

    offset
      ▲   ┌───────┐
      │   │ item 1│   ┌──────┐
      │ ┌─┴────┬──┴───┴──┐   │  ◄─ item 2 takes the same bytes twice
      │ │item 0│         │   │
      └─┴──────┴─────────┴───┴──► time
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.kernels import entry

UNPLACED = -1


@entry
def _insert(tree: np.ndarray, leaves: int, position: int, end: int) -> None:
    """Makes the interval at a position of the start order visible: nodes hold the latest end below them."""
    node = leaves + position
    while node >= 1 and tree[node] < end:
        tree[node] = end
        node >>= 1


@entry
def _overlapping(
    tree: np.ndarray, leaves: int, starts: np.ndarray, start: int, end: int, found: np.ndarray, count: int
) -> int:
    """Appends the positions of visible intervals that overlap [start, end) to `found[count:]`; returns its new end."""
    # Those that start early enough are a prefix of the positions: the nodes that make it up, then down where an end is
    # late enough.
    stack = np.empty(160, np.int64)
    depth = 0
    low, high = leaves, leaves + int(np.searchsorted(starts, end))
    while low < high:
        if low & 1:
            stack[depth] = low
            depth += 1
            low += 1
        if high & 1:
            high -= 1
            stack[depth] = high
            depth += 1
        low >>= 1
        high >>= 1
    while depth > 0:
        depth -= 1
        node = stack[depth]
        if tree[node] <= start:
            continue
        if node >= leaves:
            found[count] = node - leaves
            count += 1
        else:
            stack[depth] = 2 * node
            stack[depth + 1] = 2 * node + 1
            depth += 2
    return count


@entry
def place(
    order: np.ndarray,
    first_interval: np.ndarray,
    position_of: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    item_at: np.ndarray,
    size: np.ndarray,
    floor: np.ndarray,
    capacity: int,
    best_fit: bool,
) -> np.ndarray:
    """Places items one after another, each in the gap that suits it best among those placed before.

    Args:
      order: `[num_items]` items in the order in which they choose.
      first_interval: `[num_items + 1]` where each item's intervals begin in `position_of`.
      position_of: `[num_intervals]` position of each interval in the order of starts.
      starts, ends: `[num_intervals]` half-open times, ascending by start.
      item_at: `[num_intervals]` item of the interval at a position.
      size, floor: `[num_items]` what each takes, and the lowest offset that it may have.
      capacity: of the space.
      best_fit: whether to take the smallest gap that is large enough, otherwise the lowest one.

    Returns:
      `[num_items]` offsets, `UNPLACED` for those that found no gap.
    """
    num_items, num_intervals = len(size), len(starts)
    leaves = 1
    while leaves < num_intervals:
        leaves *= 2
    tree = np.full(2 * leaves, -1, np.int64)
    offsets = np.full(num_items, UNPLACED, np.int64)
    found = np.empty(num_intervals + 1, np.int64)
    seen = np.full(num_items, -1, np.int64)
    neighbours = np.empty(num_items + 1, np.int64)
    keys = np.empty(num_items + 1, np.int64)
    for rank in range(len(order)):
        item = order[rank]
        others = 0
        for i in range(first_interval[item], first_interval[item + 1]):
            position = position_of[i]
            count = _overlapping(tree, leaves, starts, starts[position], ends[position], found, 0)
            # One that meets several intervals of the item is found several times.
            for k in range(count):
                other = item_at[found[k]]
                if seen[other] != rank:
                    seen[other] = rank
                    keys[others] = offsets[other]
                    neighbours[others] = other
                    others += 1
        ascending = np.argsort(keys[:others])
        lowest = floor[item]
        chosen, chosen_gap = UNPLACED, np.int64(2) ** 62
        for i in range(others + 1):
            if i < others:
                other = neighbours[ascending[i]]
                top = offsets[other]
            else:
                top = capacity
            gap = top - lowest
            if gap >= size[item] and (chosen == UNPLACED or (best_fit and gap < chosen_gap)):
                chosen, chosen_gap = lowest, gap
                if not best_fit:
                    break
            if i < others:
                lowest = max(lowest, offsets[other] + size[other])
        if chosen == UNPLACED:
            continue
        offsets[item] = chosen
        for i in range(first_interval[item], first_interval[item + 1]):
            _insert(tree, leaves, position_of[i], ends[position_of[i]])
    return offsets
