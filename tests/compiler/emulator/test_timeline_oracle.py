"""Every rule of the timeline checker catches a timeline that breaks it, and names it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from timeline_oracle import verify_timeline

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.emulator.timing import Timeline, emulate
from memplan.compiler.mapping.plan import Copy, Plan, Residency
from memplan.compiler.mapping.problem import Access, Buffer, Link, MappingProblem, MemorySpace, Operation, Region

# Two copies in, one out, all on one bus, behind an operation that takes half of it; then a loop that is skipped.
#
#   t=0 a       t=1 b     t=2 body × 0    t=3 c
#   x in ───────────────────────────────► awaited
#   y in ───────────────────────────────► awaited
#   z out ────► awaited
PROBLEM = MappingProblem(
    name="p",
    target="t",
    spaces=(MemorySpace("slow", 1000, 1, 1.0, 0), MemorySpace("fast", 1000, 1, 2.0)),
    links=(Link(0, 1, 1.0, 0.5, 0, 0), Link(1, 0, 1.0, 0.5, 1, 0)),
    regions=(Region(RegionKind.PROGRAM, 0, 4, -1, 1.0), Region(RegionKind.LOOP, 2, 3, 0, 0.0)),
    operations=(
        Operation("a", "add", 8.0, 0.0, (0, 0), 0, (Access(0, AccessKind.READ, 4, (4.0, 2.0)),)),
        Operation("b", "add", 2.0, 0.0, (0, 0), 0, ()),
        Operation("body", "add", 1.0, 0.0, (0, 0), 1, ()),
        Operation("c", "add", 1.0, 0.0, (0, 0), 0, ()),
    ),
    buffers=(
        Buffer("w", 4, 0, 4, (0, 1), 0),
        Buffer("x", 4, 0, 4, (0, 1), 0),
        Buffer("y", 2, 0, 4, (0, 1), 0),
        Buffer("z", 2, 0, 4, (0, 1), 0),
    ),
)
PLAN = Plan(
    PROBLEM.fingerprint,
    "p",
    "t",
    "hand",
    tuple(Residency(b, s, 0, 0, 4) for b in range(4) for s in range(2)),
    (Copy(2, 3, 0, 3), Copy(4, 5, 0, 3), Copy(7, 6, 0, 1)),
    (0,),
)


def changed(array: Any, index: int, value: float) -> Any:
    copy = np.array(array, np.float64)
    copy[index] = value
    return copy


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return emulate(PROBLEM, PLAN)


def rules(timeline: Timeline) -> set[str]:
    return {violation.rule for violation in verify_timeline(PROBLEM, PLAN, timeline)}


def test_the_emulators_timeline_is_possible(timeline: Timeline) -> None:
    """Heads share half the bus: a quarter each from 0.5 on. z is done at 8.5, x and y by 11.75; c waits for them."""
    assert verify_timeline(PROBLEM, PLAN, timeline) == []
    assert list(timeline.begin) == [0.5, timeline.end[0], 0.5]
    assert timeline.end[1] == timeline.start[3]
    assert timeline.stall[3] > 0.0


def test_duration(timeline: Timeline) -> None:
    assert "duration" in rules(replace(timeline, duration=changed(timeline.duration, 1, 1.5)))


def test_order(timeline: Timeline) -> None:
    """b starts before a is done; or later, though nothing kept it."""
    assert rules(replace(timeline, start=changed(timeline.start, 1, 7.0))) >= {"order"}
    assert "order" in rules(replace(timeline, start=changed(timeline.start, 1, timeline.start[1] + 1)))


def test_a_negative_stall(timeline: Timeline) -> None:
    assert "order" in rules(replace(timeline, stall=changed(timeline.stall, 0, -1.0)))


def test_total(timeline: Timeline) -> None:
    assert "total" in rules(replace(timeline, stalled=timeline.stalled + 1.0))


def test_a_latency_that_is_too_short(timeline: Timeline) -> None:
    assert rules(replace(timeline, latency=timeline.latency - 1.0)) >= {"total", "order"}


def test_never(timeline: Timeline) -> None:
    assert rules(replace(timeline, start=changed(timeline.start, 2, 10.0))) == {"never"}
    assert "never" in rules(replace(timeline, start=changed(timeline.start, 3, np.nan)))
    assert "never" in rules(replace(timeline, end=changed(timeline.end, 1, np.nan)))


def test_issue(timeline: Timeline) -> None:
    assert rules(replace(timeline, issue=changed(timeline.issue, 1, 1.0))) == {"issue"}


def test_speed_of_a_link(timeline: Timeline) -> None:
    """y has 2 bytes, so it cannot arrive a second after it began; nor can x begin before the link's latency."""
    assert "speed" in rules(replace(timeline, begin=changed(timeline.begin, 1, timeline.end[1] - 1.0)))
    assert rules(replace(timeline, begin=changed(timeline.begin, 0, 0.25))) == {"speed"}


def test_queue(timeline: Timeline) -> None:
    found = verify_timeline(PROBLEM, PLAN, replace(timeline, begin=changed(timeline.begin, 1, timeline.end[0] - 0.5)))
    assert [violation.rule for violation in found] == ["queue"]
    assert "copy 1 of y" in found[0].message
    assert "overtakes copy 0 of x" in found[0].message
    assert found[0].buffer == 2


def test_wait(timeline: Timeline) -> None:
    """c starts although y is not there."""
    assert rules(replace(timeline, end=changed(timeline.end, 1, timeline.end[1] + 1.0))) == {"wait"}


def test_channel(timeline: Timeline) -> None:
    """Both queues are as fast as if they had the half that a leaves to themselves: each alone is possible."""
    both = changed(changed(timeline.end, 2, 4.5), 0, 8.5)
    assert rules(replace(timeline, end=both, begin=changed(timeline.begin, 1, 8.5))) == {"channel"}


def test_channel_of_an_operation_without_accesses(timeline: Timeline) -> None:
    """If a did not use the bus, z could be there after 3.5 seconds, though x moves as well."""
    early = replace(timeline, end=changed(timeline.end, 2, 3.5))
    assert rules(early) == {"channel"}
    quiet = replace(PROBLEM, operations=(replace(PROBLEM.operations[0], accesses=()), *PROBLEM.operations[1:]))
    plan = replace(PLAN, served=())
    assert verify_timeline(quiet, plan, early) == []


def test_all_violations_are_reported(timeline: Timeline) -> None:
    broken = replace(
        timeline,
        duration=changed(timeline.duration, 0, 1.0),
        issue=changed(timeline.issue, 2, 5.0),
        end=changed(timeline.end, 1, timeline.end[1] + 1.0),
    )
    assert rules(broken) >= {"duration", "order", "issue", "wait", "total"}


def test_a_loop_takes_its_iterations() -> None:
    """What follows a loop of three seconds cannot start after two, whatever the latency says."""
    problem = replace(PROBLEM, regions=(PROBLEM.regions[0], replace(PROBLEM.regions[1], trip_count=3.0)))
    plan = replace(PLAN, copies=())
    timeline = emulate(problem, plan)
    assert verify_timeline(problem, plan, timeline) == []
    early = replace(timeline, start=changed(timeline.start, 3, timeline.start[3] - 1.0), latency=timeline.latency - 1.0)
    assert {violation.rule for violation in verify_timeline(problem, plan, early)} == {"order", "total"}


def test_what_is_awaited_behind_a_conditional_is_expected(timeline: Timeline) -> None:
    """A copy may arrive late in a branch that is rarely taken: what follows starts after the expected time of all."""
    rare = Region(RegionKind.BRANCH, 2, 3, 0, 0.25)
    problem = replace(PROBLEM, regions=(PROBLEM.regions[0], rare))
    expected = emulate(problem, PLAN)
    assert verify_timeline(problem, PLAN, expected) == []
    late = replace(expected, end=changed(expected.end, 1, expected.start[3] + 0.5))
    assert {violation.rule for violation in verify_timeline(problem, PLAN, late)} == set()
