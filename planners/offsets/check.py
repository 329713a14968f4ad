"""Checks packings by a sweep over time, which shares no code with the methods that find packings."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np

from memplan.planners.offsets.instance import Instance, Integers


def check(instance: Instance, offsets: Sequence[int] | Integers, capacity: int | None = None) -> list[str]:
    """Returns in words which rules a packing breaks; an empty list means that it is right.

    Where many blocks overlap, not every pair of them is named.

    Args:
      instance: what was packed.
      offsets: `[num_blocks]` bytes.
      capacity: bytes that no block may exceed, if given.
    """
    if len(offsets) != len(instance):
        return [f"{len(offsets)} offsets for {len(instance)} blocks"]
    low = [int(offset) for offset in offsets]
    sizes, ids = instance.size.tolist(), instance.ids
    wrong = []
    for number, name in enumerate(ids):
        if low[number] < 0:
            wrong.append(f"{name}: offset {low[number]} is negative")
        if low[number] % int(instance.alignment[number]):
            wrong.append(f"{name}: offset {low[number]} is no multiple of {instance.alignment[number]}")
        if instance.fixed[number] >= 0 and low[number] != instance.fixed[number]:
            wrong.append(f"{name}: offset {low[number]} is not the fixed one, {instance.fixed[number]}")
        if capacity is not None and sizes[number] > 0 and low[number] + sizes[number] > capacity:
            wrong.append(f"{name}: it ends at {low[number] + sizes[number]}, over the capacity of {capacity}")
    gaps: dict[int, list[tuple[int, int, int, int]]] = {}
    columns = (instance.gap_block, instance.gap_lower, instance.gap_upper, instance.gap_low, instance.gap_high)
    for number, *gap in zip(*(column.tolist() for column in columns), strict=True):
        gaps.setdefault(number, []).append(tuple(gap))
    # The bytes that are taken at a time: an event per start and end of a piece, `(time, starts, bottom, top, block)`.
    events: list[tuple[int, int, int, int, int]] = []

    def take(number: int, first: int, last: int, bottom: int, top: int) -> None:
        if first < last and bottom < top:
            placed = (low[number] + bottom, low[number] + top, number)
            events.extend([(first, 1, *placed), (last, 0, *placed)])

    for number in np.flatnonzero(instance.size > 0).tolist():
        time = int(instance.lower[number])
        for first, last, bottom, top in gaps.get(number, []):
            take(number, time, first, 0, sizes[number])
            take(number, first, last, bottom, top)
            time = last
        take(number, time, int(instance.upper[number]), 0, sizes[number])
    alive: list[tuple[int, int, int]] = []
    for time, starts, *placed in sorted(events):
        entry = (placed[0], placed[1], placed[2])
        index = bisect.bisect_left(alive, entry)
        if not starts:
            alive.pop(index)
            continue
        # What is alive does not overlap each other, so only the neighbours can overlap what is new.
        for bottom, top, other in alive[max(index - 1, 0) : index + 1]:
            if bottom < entry[1] and entry[0] < top:
                wrong.append(f"{ids[entry[2]]} and {ids[other]} overlap at time {time}")
        alive.insert(index, entry)
    return wrong
