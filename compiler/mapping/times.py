"""The problem's time: which steps of the flattened program are operations, and where the points between them lie."""

from __future__ import annotations

import bisect
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from memplan.compiler.analysis.program import FlatProgram, RegionKind
from memplan.compiler.mapping.problem import Region

# Moments that are no step lie between steps: `NAME.copy` right after the step at whose end values are copied,
# `NAME.enter` half a step before the first step of its regions, `NAME.end` a quarter of a step after the last one.
_ENTER, COPY_PLACE, _END = -0.5, 0.125, 0.25


@dataclass(frozen=True)
class OperationTimes:
    """The operations of a problem, as places in the flattened program.

    Attributes:
      steps: `[num_operations]` step of each operation; -1 for a point around or at the end of a region.
      is_copying: `[num_operations]` whether it is not the step itself but the implicit copies at its end.
      names: `[num_operations]`.
      region_of: `[num_operations]` index of the innermost problem region.
      places: `[num_operations]` ascending: the step, or with a fraction what stands between two steps.
      regions: the problem's regions.
    """

    steps: tuple[int, ...]
    is_copying: tuple[bool, ...]
    names: tuple[str, ...]
    region_of: tuple[int, ...]
    places: tuple[float, ...]
    regions: tuple[Region, ...]

    @cached_property
    def operation_of(self) -> dict[int, int]:
        """From the steps that are operations to the numbers of these."""
        return {step: n for n, step in enumerate(self.steps) if step >= 0 and not self.is_copying[n]}

    @cached_property
    def copying_of(self) -> dict[int, int]:
        """From the steps at whose end values are copied to the numbers of the operations that do it."""
        return {step: n for n, step in enumerate(self.steps) if self.is_copying[n]}

    def at(self, step: int) -> int:
        """Returns the time of the first operation at or after a step."""
        return bisect.bisect_left(self.places, step)

    def live(self, start: int, end: int, num_steps: int) -> tuple[int, int]:
        """Returns the times of a live range of steps, never empty; what outlives the program ends at n + 1."""
        first = self.at(start)
        if end > num_steps:
            return first, len(self.steps) + 1
        return first, max(self.at(end), first + 1)


def operation_times(program: FlatProgram, timed: Collection[int], copying: Collection[int]) -> OperationTimes:
    """Lays out the operations of a problem.

    Args:
      program: the flattened program.
      timed: the steps that are operations by themselves. Owners of loops and conditionals always are.
      copying: the steps at whose end implicit copies are made. These are one operation, since all are read before any
        is written, and it is named after what they fill.
    """
    region_index, kept = _kept_regions(program)
    opened: dict[int, list[int]] = {}
    closed: dict[int, list[int]] = {}
    owners = set()
    for r in kept[1:]:
        region = program.regions[r]
        opened.setdefault(region.start, []).append(r)
        closed.setdefault(region.end, []).append(r)
        owners.add(region.owner)
    filled = {copy.time: copy.reason.partition("{")[0] for copy in program.copies}

    steps: list[int] = []
    is_copying: list[bool] = []
    names: list[str] = []
    region_of: list[int] = []
    places: list[float] = []
    starts = {0: 0}
    ends: dict[int, int] = {}

    def add(step: int, name: str, region: int, place: float, copies: bool = False) -> None:
        steps.append(step)
        is_copying.append(copies)
        names.append(name)
        region_of.append(region)
        places.append(place)

    entered = set()
    for t, step in enumerate(program.steps):
        for r in opened.get(t, ()):
            region = program.regions[r]
            if region.owner not in entered:
                entered.add(region.owner)
                name = program.steps[region.owner].instruction.name
                add(-1, f"{name}.enter", region_index[region.parent], t + _ENTER)
            starts[r] = len(steps)
        if t in timed or t in owners:
            add(t, step.instruction.name, region_index[step.region], t)
        if t in copying:
            add(t, f"{filled[t]}.copy", region_index[step.region], t + COPY_PLACE, copies=True)
        for r in reversed(closed.get(t + 1, ())):
            region = program.regions[r]
            if not places or places[-1] < t:
                name = program.steps[region.owner].instruction.name
                add(-1, f"{name}.end", region_index[r], t + _END)
            ends[r] = len(steps)
    ends[0] = len(steps)

    regions = []
    for r in kept:
        region = program.regions[r]
        regions.append(
            Region(
                kind=region.kind,
                start=starts[r],
                end=ends[r],
                parent=region_index[region.parent] if region.parent >= 0 else -1,
                trip_count=region.trip_count,
                group=region.owner if region.kind is RegionKind.BRANCH else -1,
            )
        )
    return OperationTimes(
        tuple(steps), tuple(is_copying), tuple(names), tuple(region_of), tuple(places), tuple(regions)
    )


def _kept_regions(program: FlatProgram) -> tuple[list[int], list[int]]:
    """Returns per flat region the index of the problem's region around it, and the flat regions that the problem keeps.

    A call runs once wherever it stands: its steps belong to its caller's region. Empty regions are dropped.
    """
    index: list[int] = []
    kept: list[int] = []
    for r, region in enumerate(program.regions):
        if region.kind is RegionKind.CALL or (r > 0 and region.start == region.end):
            index.append(index[region.parent])
        else:
            index.append(len(kept))
            kept.append(r)
    return index, kept
