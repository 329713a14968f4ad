"""First fit without compiled code: one block after another takes the lowest place among those placed before.

It packs blocks with windows too. A pass over n blocks costs n², so it is for some hundred blocks, and what it packs low
enough needs no compiled code; `heuristics.py` has the compiled passes for more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memplan.compiler.effort import Guard
from memplan.planners.offsets.bounds import height_of
from memplan.planners.offsets.instance import Instance, Integers


@dataclass(frozen=True, eq=False)
class Fitted:
    """A packing that a heuristic found.

    Attributes:
      offsets: `[num_blocks] int64` bytes.
      height: bytes.
      method: what found it.
    """

    offsets: Integers
    height: int
    method: str


def first_fit(instance: Instance, target: int, guard: Guard) -> Fitted:
    """Returns the lowest packing of first fit in some orders, or the first that is as low as a target.

    Args:
      instance: any.
      target: height that is low enough, bytes.
      guard: ends it early. One order is tried in any case.
    """
    duration = instance.upper - instance.lower
    orders = (
        np.lexsort((instance.lower, -duration, -instance.size)),
        np.lexsort((instance.lower, -instance.size, -duration)),
        np.lexsort((instance.lower, -instance.size.astype(np.float64) * duration)),
        np.lexsort((-instance.size, instance.lower)),
    )
    best: Fitted | None = None
    for order in orders:
        if best is not None and (best.height <= target or guard.reached()):
            break
        offsets = _offsets(instance, order)
        height = height_of(instance, offsets)
        if best is None or height < best.height:
            best = Fitted(offsets, height, "first fit")
    assert best is not None
    return best


def _offsets(instance: Instance, order: Integers) -> Integers:
    """Returns the offsets when blocks choose the lowest place in an order; those that are fixed come first."""
    block, lower, upper, low, high = instance.pieces()
    pointer = np.searchsorted(block, np.arange(len(instance) + 1))
    offsets = np.maximum(instance.fixed, 0)
    is_placed = (instance.fixed >= 0)[block]
    for number in order.tolist():
        if instance.fixed[number] >= 0:
            continue
        mine = range(int(pointer[number]), int(pointer[number + 1]))
        blocked: list[tuple[int, int]] = []
        for i in mine:
            met = np.flatnonzero(is_placed & (lower < upper[i]) & (lower[i] < upper))
            bottom = offsets[block[met]] + low[met]
            top = offsets[block[met]] + high[met]
            # Offsets strictly between these make the two pieces share a byte.
            blocked += zip((bottom - high[i]).tolist(), (top - low[i]).tolist(), strict=True)
        alignment, chosen = int(instance.alignment[number]), 0
        for start, end in sorted(blocked):
            if start >= chosen:
                break
            if end > chosen:
                chosen = -(-end // alignment) * alignment
        offsets[number] = chosen
        is_placed[pointer[number] : pointer[number + 1]] = True
    return offsets
