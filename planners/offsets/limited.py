"""Whether an instance fits, decided by one thread and a limited number of placements: the same answer every time."""

from __future__ import annotations

import numpy as np

from memplan.planners.offsets.bounds import lower_bound
from memplan.planners.offsets.branching import FOUND, MAX_BLOCKS, BranchAndBound
from memplan.planners.offsets.heuristics import Fitter
from memplan.planners.offsets.instance import Instance, Integers
from memplan.planners.offsets.reduction import reduced


def fit_within(instance: Instance, capacity: int, nodes: int, seed: int = 0) -> Integers | None:
    """Returns offsets within a capacity, in bytes; None if there are none, or none were found within the limit.

    Args:
      instance: any.
      capacity: bytes.
      nodes: placements that the exact search may try in each part of the time that no block spans.
      seed: of what is drawn at random.
    """
    if lower_bound(instance) > capacity:
        return None
    parts, offsets = reduced(instance)
    for part in parts:
        found = _fit_part(part.instance, part.room(capacity), nodes, seed)
        if found is None:
            return None
        offsets[part.blocks] = part.base + part.unit * found
    return np.asarray(offsets, np.int64)


def _fit_part(instance: Instance, capacity: int, nodes: int, seed: int) -> Integers | None:
    if lower_bound(instance) > capacity:
        return None
    fitter = Fitter(instance)
    for name, order in fitter.orders():
        fitted = fitter.fitted(order, name, capacity, False)
        if fitted.height <= capacity:
            return fitted.offsets
    if len(instance) > MAX_BLOCKS:
        return None
    outcome, offsets = BranchAndBound(instance, capacity).limited(nodes, seed)
    return offsets if outcome == FOUND else None
