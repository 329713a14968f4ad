"""Whether a path of the branch and bound can still be completed, by the sections that it leaves. Compiled by numba.

In each section the blocks still to come are taken as jobs on one machine, released at the lowest offsets that they can
have: where even these do not fit the capacity, the path is given up.
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.kernels import internal
from memplan.planners.offsets.branching_path_kernel import HUGE, RankedBlocks, SearchPath


@internal
def fits_floors(step: np.record, blocks: RankedBlocks, path: SearchPath, capacity: int) -> bool:
    """Whether each section of the part has room for what is still to come above its floor.

    `fits_levels` finds everything that this finds, and more, but takes longer.
    """
    level, total, order = path.level, path.total, path.order
    offset = path.offsets[step.placed]
    begin, end = step.first, step.last
    for section in range(begin, end):
        level[section] = HUGE
    for i in range(step.low, step.high - 1):
        least = max(path.lowest[order[i]], offset)
        for j in range(blocks.pointer[order[i]], blocks.pointer[order[i] + 1]):
            for section in range(blocks.first[j], blocks.last[j]):
                level[section] = min(level[section], least)
    worst = np.int64(0)
    for section in range(begin, end):
        if total[section] > 0:
            worst = max(worst, level[section] + total[section])
    if worst <= capacity:
        return True
    for section in range(begin, end):
        if total[section] > 0 and level[section] + total[section] > capacity:
            path.conflicts[section] += 1
    return False


@internal
def fits_levels(
    step: np.record, blocks: RankedBlocks, path: SearchPath, rank_of: np.ndarray, capacity: int, use_blocked: bool
) -> bool:
    """Whether each section has room for what is still to come if each block lies on its own floor or higher."""
    lowest, floors, tops, level, order = path.lowest, path.floors, path.tops, path.level, path.order
    low, high, placed = step.low, step.high - 1, step.placed
    offset, rank = path.offsets[placed], rank_of[placed]
    tops[placed] = HUGE
    for i in range(low, high):
        tops[order[i]] = max(lowest[order[i]], offset) + blocks.size[order[i]]
    for i in range(low, high):
        block = order[i]
        least = max(lowest[block], offset)
        if use_blocked and (lowest[block] < offset or (lowest[block] == offset and rank_of[block] < rank)):
            # Another block must come beneath it.
            lifted = HUGE
            for j in range(blocks.companion_pointer[block], blocks.companion_pointer[block + 1]):
                lifted = min(lifted, tops[blocks.companions[j]])
            least = max(least, lifted)
            if least + blocks.size[block] > capacity or blocks.fixed[block] >= 0:
                return False
        floors[block] = least
        # Sort by ascending floor; the order is nearly that of the step before.
        j = i
        while j > low and floors[order[j - 1]] > least:
            order[j] = order[j - 1]
            j -= 1
        order[j] = block
    for section in range(step.first, step.last):
        level[section] = 0
    for i in range(low, high):
        block = order[i]
        worst = np.int64(0)
        for j in range(blocks.pointer[block], blocks.pointer[block + 1]):
            for section in range(blocks.first[j], blocks.last[j]):
                level[section] = max(level[section], floors[block]) + blocks.size[block]
                worst = max(worst, level[section])
        if worst > capacity:
            for j in range(blocks.pointer[block], blocks.pointer[block + 1]):
                for section in range(blocks.first[j], blocks.last[j]):
                    if level[section] > capacity:
                        path.conflicts[section] += 1
            return False
    return True
