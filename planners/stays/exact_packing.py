"""Offsets by constraint programming, for the blocks that best fit left over.

A block that found no gap is placed together with those that are alive meanwhile, which may move; all others stay where
they are. CP-SAT's two-dimensional no-overlap constraint does it: time is fixed, offsets are its variables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

# More blocks than this are not moved at once: the solver would need too long.
_MAX_MOVABLE = 120


def place_left_over(
    start: Integers,
    end: Integers,
    item: Integers,
    size: Integers,
    floor: Integers,
    capacity: int,
    offsets: Integers,
    effort: float,
) -> Integers:
    """Returns offsets with as many of the unplaced blocks placed as was possible.

    Args:
      start, end, item: `[num_intervals]` half-open times, and the block that they belong to.
      size, floor: `[num_items]` what each block takes, and the lowest offset that it may have.
      capacity: of the space, in the same units.
      offsets: `[num_items]` what is placed so far; -1 for what is not.
      effort: of the solver for each block, in its deterministic seconds, so that results can be reproduced.
    """
    offsets = offsets.copy()
    by_loss = sorted(np.flatnonzero(offsets < 0).tolist(), key=lambda number: (-int(size[number]), number))
    for number in by_loss:
        movable = _alive_with(start, end, item, [number], offsets)
        if len(movable) > _MAX_MOVABLE:
            continue
        fixed = sorted(set(_alive_with(start, end, item, movable, offsets)) - set(movable))
        found = _solve(start, end, item, size, floor, capacity, offsets, movable, fixed, effort)
        if found is not None:
            offsets[movable] = found
    return offsets


def _alive_with(start: Integers, end: Integers, item: Integers, items: Sequence[int], offsets: Integers) -> list[int]:
    """Returns the given blocks and the placed ones that are alive at the same time as one of them."""
    mine = np.isin(item, items)
    overlaps = np.zeros(len(item), np.bool_)
    for first, last in zip(start[mine], end[mine], strict=True):
        overlaps |= (start < last) & (end > first)
    alive = np.unique(item[overlaps])
    return sorted({*items, *alive[offsets[alive] >= 0].tolist()})


def _solve(
    start: Integers,
    end: Integers,
    item: Integers,
    size: Integers,
    floor: Integers,
    capacity: int,
    offsets: Integers,
    movable: Sequence[int],
    fixed: Sequence[int],
    effort: float,
) -> list[int] | None:
    """Returns offsets of the movable blocks among fixed ones, None if none were found."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    variables, heights = {}, {}
    for number in movable:
        if floor[number] + size[number] > capacity:
            return None
        variables[number] = model.new_int_var(int(floor[number]), int(capacity - size[number]), "")
        heights[number] = model.new_fixed_size_interval_var(variables[number], int(size[number]), "")
        if offsets[number] >= 0:
            model.add_hint(variables[number], int(offsets[number]))
    for number in fixed:
        heights[number] = model.new_fixed_size_interval_var(int(offsets[number]), int(size[number]), "")
    times, places = [], []
    for first, last, number in zip(start.tolist(), end.tolist(), item.tolist(), strict=True):
        if number in heights:
            times.append(model.new_fixed_size_interval_var(first, last - first, ""))
            places.append(heights[number])
    model.add_no_overlap_2d(times, places)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_deterministic_time = effort
    solver.parameters.catch_sigint_signal = False  # Ctrl-C is Python's.
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return [solver.value(variables[number]) for number in movable]
