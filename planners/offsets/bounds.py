"""Lower bounds of the height: no packing is lower."""

from __future__ import annotations

import math

import numpy as np

from memplan.planners.offsets.geometry import Sections
from memplan.planners.offsets.instance import Instance


def maximum_load(instance: Instance) -> int:
    """Returns the most bytes that blocks take at one time."""
    return int(np.max(Sections.of(instance).loads(instance.size), initial=0))


def lower_bound(instance: Instance) -> int:
    """Returns a lower bound of the height of all packings: the maximum load, and what alignment and fixed offsets add.

    If all offsets are multiples of some number, then each block of a section except the topmost takes its size rounded
    up to that number.
    """
    sections = Sections.of(instance)
    bound = int(np.max(sections.loads(instance.size), initial=0))
    is_fixed = (instance.fixed >= 0) & (instance.size > 0)
    bound = max(bound, int(np.max((instance.fixed + instance.size)[is_fixed], initial=0)))
    real = instance.size > 0
    unit = math.gcd(*np.where(is_fixed, instance.fixed, instance.alignment)[real].tolist())
    if unit > 1:
        padding = np.where(real, -instance.size % unit, 0)
        rounded = sections.loads(instance.size + padding)
        # The padding above the topmost block does not count. Any block may be the topmost: leave out the largest
        # padding.
        most = np.zeros(sections.count, np.int64)
        for first, last, amount in zip(
            sections.first.tolist(), sections.last.tolist(), padding[sections.block_of_range()].tolist(), strict=True
        ):
            np.maximum(most[first:last], amount, out=most[first:last])
        bound = max(bound, int(np.max(rounded - most, initial=0)))
    return bound
