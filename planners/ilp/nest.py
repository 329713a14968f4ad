"""The nest of a program's regions, as the relaxation follows a value through it (see `relaxation.py`, *Values*)."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.ilp.stages import inner_regions
from memplan.planners.stays.chains import Slots, make_slots


@dataclass(frozen=True)
class Nest:
    """How regions lie in each other. Regions are given by their numbers.

    Attributes:
      slots: the operations, loops and conditionals of each region, in order.
      parent: `[num_regions]` the region around each region.
      slot_of: `[num_regions]` the slot that each region is, in its parent.
      region_of_time: `[num_operations]` the innermost region of each operation.
      branches: by `(parent, group)`, the branches of a conditional.
      cheapest: `[num_regions]` how often a copy is made at least, for each run of the region, if it must be on the way.
      inner: `[num_regions]` half-open times of the loops and conditionals directly inside each region.
    """

    slots: Slots
    parent: list[int]
    slot_of: list[int]
    region_of_time: list[int]
    branches: dict[tuple[int, int], list[int]]
    cheapest: list[float]
    inner: list[list[tuple[int, int]]]

    @staticmethod
    def of(problem: MappingProblem) -> Nest:
        """Returns the nest of a problem's regions."""
        slots = make_slots(problem)
        parent = slots.parent.tolist()
        branches: dict[tuple[int, int], list[int]] = {}
        for number, region in enumerate(problem.regions):
            if region.kind is RegionKind.BRANCH:
                branches.setdefault((parent[number], region.group), []).append(number)
        cheapest = _cheapest_crossings(problem, parent, branches)
        times = slots.region_of_time.tolist()
        return Nest(slots, parent, slots.of_region.tolist(), times, branches, cheapest, inner_regions(slots))

    def item_at(self, region: int, time: int) -> tuple[int, int, int]:
        """Returns what a time belongs to directly inside a region: `(child, first, last)`.

        Args:
          region: any region around the time.
          time: of an operation.

        Returns:
          the loop, call or branch, -1 if it is the operation itself; and the half-open times of all of its slot.
        """
        inner, child = self.region_of_time[time], -1
        while inner != region:
            child, inner = inner, self.parent[inner]
        if child < 0:
            return child, time, time + 1
        slot = self.slot_of[child]
        return child, int(self.slots.time[slot]), int(self.slots.end[slot])


def _cheapest_crossings(
    problem: MappingProblem, parent: list[int], branches: dict[tuple[int, int], list[int]]
) -> list[float]:
    """Returns `cheapest` of `Nest`.

    A copy inside a loop that may run less than once, or inside one of several branches, is made less often than a copy
    outside, and the value still is where it is copied to.
    """
    regions = problem.regions
    cheapest = [1.0] * len(regions)
    grouped: dict[tuple[int, int], float] = {}
    for number in range(len(regions) - 1, 0, -1):
        region, around = regions[number], parent[number]
        if region.kind is RegionKind.CALL:
            continue
        times = region.trip_count * cheapest[number]
        if region.kind is RegionKind.BRANCH:
            key = (around, region.group)
            grouped[key] = grouped.get(key, 0.0) + times
            if number != branches[key][0]:
                continue
            times = grouped[key]
        cheapest[around] = min(cheapest[around], times)
    return cheapest
