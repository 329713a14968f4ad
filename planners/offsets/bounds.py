"""Lower bounds of the height: no packing is lower."""

from __future__ import annotations

import math

import numpy as np

from memplan.planners.offsets.geometry import Sections
from memplan.planners.offsets.instance import Instance, Integers


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
        most = sections.largest(padding)
        bound = max(bound, int(np.max(rounded - most, initial=0)))
    return bound


def maximum_load_of_pieces(instance: Instance) -> int:
    """Returns the most bytes that pieces take at one time."""
    _, lower, upper, low, high = instance.pieces()
    times = np.concatenate([lower, upper])
    changes = np.concatenate([high - low, low - high])
    order = np.lexsort((changes, times))  # what ends makes room before what starts takes it
    return int(np.max(np.cumsum(changes[order]), initial=0))


def lower_bound_of_pieces(instance: Instance) -> int:
    """Returns bytes that no packing is lower than: the load, and the tops of blocks at their fixed offset, or at 0."""
    return max(maximum_load_of_pieces(instance), height_of(instance, np.maximum(instance.fixed, 0)))


def height_of(instance: Instance, offsets: Integers) -> int:
    """Returns the top of the highest block; all of a block counts, also where only a window of it is taken."""
    return int(np.max((offsets + instance.size)[instance.size > 0], initial=0))
