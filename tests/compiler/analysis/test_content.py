"""Contents on regions alone; the tests of problems compare with all short paths of execution."""

from __future__ import annotations

import pytest

from memplan.compiler.analysis.content import NEVER, Contents
from memplan.compiler.analysis.program import AccessKind, RegionKind, StepRegion

READ, WRITE, UPDATE = AccessKind.READ, AccessKind.WRITE, AccessKind.UPDATE


def region(kind: RegionKind, start: int, end: int, parent: int) -> StepRegion:
    return StepRegion(kind, start, end, parent, 1.0, True, -1)


PROGRAM = region(RegionKind.PROGRAM, 0, 6, -1)


def follow(
    regions: list[StepRegion],
    *accesses: tuple[int, AccessKind],
    live: tuple[int, int] = (0, 6),
    is_written: bool = False,
) -> tuple[int, bool]:
    region_of = [max(i for i, r in enumerate(regions) if r.start <= t < r.end) for t in range(6)]
    groups = [0] * len(regions)
    return Contents(regions, groups, region_of).follow(accesses, live, is_written)


def test_a_straight_line() -> None:
    assert follow([PROGRAM], (0, WRITE), (1, READ)) == (NEVER, True)
    assert follow([PROGRAM], (0, READ), (1, WRITE), (2, READ)) == (0, True)
    assert follow([PROGRAM], (0, READ), is_written=True) == (NEVER, True)
    assert follow([PROGRAM], (0, UPDATE), (0, READ)) == (NEVER, True)
    assert follow([PROGRAM]) == (NEVER, False)


def test_a_loop_begins_with_what_the_iteration_before_left() -> None:
    looped = [PROGRAM, region(RegionKind.LOOP, 1, 4, 0)]
    assert follow(looped, (0, WRITE), (1, READ), (2, WRITE), live=(0, 4)) == (NEVER, True)
    assert follow(looped, (0, WRITE), (1, READ), (2, WRITE), live=(0, 3)) == (1, True)
    assert follow(looped, (0, WRITE), (1, READ), live=(0, 2)) == (1, False)
    assert follow(looped, (1, WRITE), (2, READ), live=(1, 3)) == (NEVER, True)


def test_a_call_is_part_of_what_is_around_it() -> None:
    called = [PROGRAM, region(RegionKind.CALL, 1, 3, 0)]
    assert follow(called, (0, WRITE), (1, READ), (2, WRITE), (4, READ)) == (NEVER, True)


@pytest.mark.parametrize("others", [[], [(3, WRITE)]])
def test_what_one_branch_writes_is_written_if_all_do(others: list[tuple[int, AccessKind]]) -> None:
    branched = [PROGRAM, region(RegionKind.BRANCH, 1, 3, 0), region(RegionKind.BRANCH, 3, 4, 0)]
    assert follow(branched, (1, WRITE), (2, READ), *others, (5, READ)) == (NEVER if others else 5, bool(others))


def test_depth_costs_no_recursion() -> None:
    depth = 3000
    nested = [PROGRAM, *(region(RegionKind.LOOP, 0, 6, parent) for parent in range(depth))]
    assert Contents(nested, [0] * len(nested), [depth] * 6).follow([(1, READ), (2, WRITE)], (0, 6), False) == (1, True)
