"""Whole live ranges without copies."""

from __future__ import annotations

import pytest
from literal_problems import loop, problem

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.emulator.timing import latency
from memplan.compiler.mapping.problem import Access, Buffer, Link, MappingProblem, MemorySpace, Operation, Region
from memplan.compiler.mapping.verify import verify
from memplan.planners.bestfit import solve
from memplan.planners.planner import Budget


def test_temporaries_are_in_fast_memory_arguments_and_results_are_not() -> None:
    mapped = problem("r a, w b", "r b, w c", "r c, w d", arguments="a", results="d")
    made = solve(mapped, Budget())
    assert verify(mapped, made) == []
    assert made.copies == ()
    assert {mapped.buffers[r.buffer].name: r.space for r in made.residencies} == {"a": 0, "b": 1, "c": 1, "d": 0}


def test_those_that_save_most_for_what_they_hold_come_first() -> None:
    mapped = problem("w a", "w b", "", "r b", "r a", sizes={"a": 10, "b": 10})
    made = solve(mapped, Budget())
    assert verify(mapped, made) == []
    assert {mapped.buffers[r.buffer].name: r.space for r in made.residencies} == {"a": 0, "b": 1}


def test_a_carried_value_lies_in_fast_memory_through_its_loop() -> None:
    mapped = problem("w a", "", "u a", "", "", "r a", regions=[loop(2, 4, trips=10.0)])
    made = solve(mapped, Budget())
    assert verify(mapped, made) == []
    assert [(r.space, r.start, r.end) for r in made.residencies] == [(1, 0, 6)]
    assert latency(mapped, made) == pytest.approx(12 * 0.5)


def test_nothing_is_moved_that_gains_nothing() -> None:
    mapped = problem("w a", "r a", floors=[9.0, 9.0])
    assert {r.space for r in solve(mapped, Budget()).residencies} == {0}


def test_an_argument_that_nobody_accesses_leaves_the_other_buffers_apart() -> None:
    def access(buffer: int, kind: AccessKind) -> Access:
        return Access(buffer, kind, 1, (1.0, 0.25))

    def operation(name: str, *accesses: Access) -> Operation:
        return Operation(name, "compute", 0.0, 0.0, (0, 0), 0, accesses)

    mapped = MappingProblem(
        name="unused argument",
        target="literal",
        spaces=(MemorySpace("slow", 24, 2, 1.0, channel=0), MemorySpace("fast", 16, 2, 4.0)),
        links=(Link(0, 1, 1.0, 0.0, queue=0, channel=0), Link(1, 0, 1.0, 0.0, queue=1, channel=0)),
        regions=(Region(RegionKind.PROGRAM, 0, 3, -1, 1.0),),
        operations=(
            operation("a", access(1, AccessKind.WRITE)),
            operation("b", access(1, AccessKind.READ), access(2, AccessKind.WRITE)),
            operation("c", access(3, AccessKind.WRITE)),
        ),
        buffers=(
            Buffer("unused", 1, 0, 4, (0, 1), initial_space=0, final_space=0, persistent=True),
            Buffer("first", 1, 0, 2, (0, 1)),
            Buffer("second", 1, 1, 2, (0, 1)),
            Buffer("third", 1, 2, 3, (0, 1)),
        ),
    )
    plan = solve(mapped, Budget())
    assert verify(mapped, plan) == []
    assert {r.buffer for r in plan.residencies if r.space == 1} == {1, 2, 3}
