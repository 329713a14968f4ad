"""Live ranges: of values, exact to the branch, and of storages, with the bytes that are live at each time.

A value that is defined outside of a loop and read inside lives until the loop ends, since the next iteration reads it
again. One that is read in some branches of a conditional lives until the branches begin and, in each, until its last
read there:

    value     ├────────────┤   branch 1   ├───┤ branch 2            read in branch 2 only
    value     ├────────────┼──────────────────────────────┤         read after the conditional
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import FlatProgram, RegionKind, StepRegion
from memplan.compiler.analysis.takeover import Takeover
from memplan.compiler.analysis.values import PHASES, Values

Interval = tuple[int, int]


def value_intervals(values: Values, regions: Sequence[StepRegion], num_steps: int) -> dict[int, list[Interval]]:
    """Returns for every distinct value the phases in which it is live.

    Args:
      values: the values; only the representatives of equal ones are keys of the result.
      regions: of the schedule.
      num_steps: of the schedule.

    Returns:
      Representative to sorted, disjoint, half-open intervals of phases, never empty.
    """
    first_branch = _first_branches(regions)
    scope = _scopes(regions)
    end: dict[int, int] = {}
    pieces: dict[int, list[Interval]] = {}
    for value in range(len(values.defined)):
        root = values.find(value)
        if root == value:
            end[root] = values.defined[root] + 1
    for value, phase, region in values.uses:
        root = values.find(value)
        home, region = scope[values.region[root]], scope[region]
        while region != home:
            around = regions[region]
            if around.kind is RegionKind.LOOP:
                phase = max(phase, PHASES * around.end)
            elif around.kind is RegionKind.BRANCH:
                pieces.setdefault(root, []).append((PHASES * around.start, phase))
                phase = PHASES * first_branch[around.owner]
            region = scope[around.parent]
        if phase > end[root]:
            end[root] = phase
    for value, start, stop in values.spans:
        pieces.setdefault(values.find(value), []).append((start, stop))

    intervals = {root: [(values.defined[root], stop)] for root, stop in end.items()}
    for root, parts in pieces.items():
        intervals[root] = _union([*intervals[root], *parts])
    for value, is_fixed in enumerate(values.fixed):
        if is_fixed:
            intervals[values.find(value)] = [(0, PHASES * (num_steps + 1))]
    return intervals


def _first_branches(regions: Sequence[StepRegion]) -> dict[int, int]:
    """Returns when the first branch of each conditional starts, by the conditional's time."""
    starts: dict[int, int] = {}
    for region in regions:
        if region.kind is RegionKind.BRANCH:
            starts.setdefault(region.owner, region.start)
    return starts


def _scopes(regions: Sequence[StepRegion]) -> list[int]:
    """Returns for each region the innermost one around it that is no call: what a call returns lives on outside."""
    scopes: list[int] = []
    for number, region in enumerate(regions):
        scopes.append(scopes[region.parent] if region.kind is RegionKind.CALL else number)
    return scopes


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    """Returns sorted, disjoint intervals that cover the same; those that touch become one."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def live_bytes(
    program: FlatProgram,
    memory_space: int | None = None,
    *,
    use_holes: bool = False,
    takeovers: Iterable[Takeover] = (),
) -> NDArray[np.int64]:
    """Returns the bytes that are live at each time.

    Args:
      program: the flattened program.
      memory_space: XLA's number of the memory to look at; None for all of them.
      use_holes: whether something else may lie where a storage holds no content that is still needed.
      takeovers: storages that lie where another one ends, so that the two take the memory of one (see `takeover.py`).

    Returns:
      `[num_steps + 1] int64`; the last entry is the moment after the last step.
    """
    change = np.zeros(len(program.steps) + 2, np.int64)
    for storage in program.storages:
        if memory_space is None or storage.memory_space == memory_space:
            change[storage.start] += storage.size
            change[storage.end] -= storage.size
            if use_holes:
                for start, end in storage.holes:
                    change[start] -= storage.size
                    change[end] += storage.size
    for takeover in takeovers:
        storage = program.storages[takeover.result]
        if memory_space is None or storage.memory_space == memory_space:
            change[takeover.time] -= storage.size
            change[takeover.time + 1] += storage.size
    return np.cumsum(change)[:-1]


def peak_memory(
    program: FlatProgram,
    memory_space: int | None = None,
    *,
    use_holes: bool = False,
    takeovers: Iterable[Takeover] = (),
) -> int:
    """Returns the largest number of bytes that are live at one time; see `live_bytes`.

    No packing of the storages needs less, and one needs this much if fragmentation costs it nothing. With holes and
    takeovers this is what XLA's own assignment has in use at its peak.
    """
    return int(np.max(live_bytes(program, memory_space, use_holes=use_holes, takeovers=takeovers)))
