"""Offsets by constraint programming, for the blocks that best fit left over.

Blocks that found no gap at about the same time are placed together with those that are alive meanwhile, which may move;
all others stay where they are. CP-SAT's two-dimensional no-overlap constraint does it: time is fixed, offsets are its
variables, and as much as possible of what was left over is placed. Those rectangles are optional intervals (Laborie and
Rogerie, "Reasoning with conditional time-intervals", 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

# More blocks than this are not moved at once: the solver would need too long.
_MAX_MOVABLE = 120

# The worth of all blocks that are placed at once, in units of the solver.
_WORTH = 10**9


@dataclass(frozen=True, eq=False)
class PlacedBlocks:
    """Blocks of which some are placed.

    Attributes:
      start, end, item: `[num_intervals]` half-open times, and the block that they belong to.
      size, floor: `[num_items]` what each block takes, and the lowest offset that it may have.
      weight: `[num_items]` what is lost if a block is not placed, at least 0.
      capacity: of the space, in the same units.
    """

    start: Integers
    end: Integers
    item: Integers
    size: Integers
    floor: Integers
    weight: NDArray[np.float64]
    capacity: int

    def alive_with(self, items: Sequence[int], offsets: Integers) -> list[int]:
        """Returns the given blocks and the placed ones that are alive at the same time as one of them."""
        mine = np.isin(self.item, items)
        overlaps = np.zeros(len(self.item), np.bool_)
        for first, last in zip(self.start[mine], self.end[mine], strict=True):
            overlaps |= (self.start < last) & (self.end > first)
        alive = np.unique(self.item[overlaps])
        return sorted({*items, *alive[offsets[alive] >= 0].tolist()})

    def clusters(self, items: Integers) -> list[list[int]]:
        """Returns blocks in groups, the earliest first: those of a group are alive at the same time as another one."""
        chosen = np.isin(self.item, items)
        intervals = sorted(
            zip(self.start[chosen].tolist(), self.end[chosen].tolist(), self.item[chosen].tolist(), strict=True)
        )
        groups: list[set[int]] = []
        until = -1
        for first, last, number in intervals:
            if first >= until:
                groups.append(set())
            groups[-1].add(number)
            until = max(until, last)
        return [sorted(group) for group in groups]


def place_left_over(blocks: PlacedBlocks, offsets: Integers, effort: float) -> Integers:
    """Returns offsets with as much of the unplaced blocks placed as was possible, by weight.

    Args:
      blocks: all of them.
      offsets: `[num_items]` what is placed so far; -1 for what is not.
      effort: of the solver for each group of unplaced blocks, in its deterministic seconds, so that results can be
        reproduced.
    """
    offsets = offsets.copy()
    for cluster in blocks.clusters(np.flatnonzero(offsets < 0)):
        group = [number for number in cluster if offsets[number] < 0]
        movable = blocks.alive_with(group, offsets)
        if not group or len(movable) > _MAX_MOVABLE:
            continue
        fixed = sorted(set(blocks.alive_with(movable, offsets)) - set(movable))
        found = _solve(blocks, offsets, movable, fixed, effort)
        if found is not None:
            offsets[movable] = found
    return offsets


def _solve(
    blocks: PlacedBlocks, offsets: Integers, movable: Sequence[int], fixed: Sequence[int], effort: float
) -> list[int] | None:
    """Returns offsets of the movable blocks among fixed ones, -1 for what is left; None if none are better."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    variables, places, present = {}, {}, {}
    for number in movable:
        highest = int(blocks.capacity - blocks.size[number])
        if highest < blocks.floor[number]:
            continue
        variable = variables[number] = model.new_int_var(int(blocks.floor[number]), highest, "")
        if offsets[number] >= 0:
            places[number] = model.new_fixed_size_interval_var(variable, int(blocks.size[number]), "")
            model.add_hint(variable, int(offsets[number]))
        else:
            present[number] = model.new_bool_var("")
            places[number] = model.new_optional_fixed_size_interval_var(
                variable, int(blocks.size[number]), present[number], ""
            )
    for number in fixed:
        places[number] = model.new_fixed_size_interval_var(int(offsets[number]), int(blocks.size[number]), "")
    widths, heights = [], []
    for first, last, number in zip(blocks.start.tolist(), blocks.end.tolist(), blocks.item.tolist(), strict=True):
        if number in places:
            duration = last - first
            widths.append(
                model.new_optional_fixed_size_interval_var(first, duration, present[number], "")
                if number in present
                else model.new_fixed_size_interval_var(first, duration, "")
            )
            heights.append(places[number])
    model.add_no_overlap_2d(widths, heights)
    total = sum(float(blocks.weight[number]) for number in present) or 1.0
    worth = {number: 1 + round(_WORTH * float(blocks.weight[number]) / total) for number in present}
    model.maximize(sum(worth[number] * present[number] for number in present))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_deterministic_time = effort
    solver.parameters.catch_sigint_signal = False  # Ctrl-C is Python's.
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE) or solver.objective_value <= 0:
        return None
    is_left = {number for number in movable if number not in places or not solver.value(present.get(number, 1))}
    return [-1 if number in is_left else solver.value(variables[number]) for number in movable]
