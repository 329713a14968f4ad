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
    gaps: dict[int, list[tuple[int, int]]] = {}
    for number, first, last in zip(
        instance.gap_block.tolist(), instance.gap_lower.tolist(), instance.gap_upper.tolist(), strict=True
    ):
        gaps.setdefault(number, []).append((first, last))
    events = []
    for number in np.flatnonzero(instance.size > 0).tolist():
        time = int(instance.lower[number])
        for first, last in [*gaps.get(number, []), (int(instance.upper[number]), 0)]:
            if time < first:
                events += [(time, 1, number), (first, 0, number)]
            time = last
    alive: list[tuple[int, int]] = []
    for time, starts, number in sorted(events):
        entry = (low[number], number)
        index = bisect.bisect_left(alive, entry)
        if not starts:
            alive.pop(index)
            continue
        # The blocks that are alive do not overlap each other, so only the neighbours can overlap the new one.
        for offset, other in alive[max(index - 1, 0) : index + 1]:
            if offset < low[number] + sizes[number] and low[number] < offset + sizes[other]:
                wrong.append(f"{ids[number]} and {ids[other]} overlap at time {time}")
        alive.insert(index, entry)
    return wrong
