"""A problem small enough to check by hand, and a plan for it.

Slow memory moves 100 bytes a second, fast memory 1,000 and holds 100. Operations take 0.1 s at least.

    t           0      1      2      3 ┊ 4      5 ┊ 6      7
    name        mul    add    exp    w.enter ┊ body w.end┊ w   out        loop of 4 iterations: [4, 6)
    x   40 B    read                                                      argument
    w   80 B           read                  read                         argument
    a   60 B    write  read   read                                        temporary
    s   20 B                  write          update               read    temporary, updated in the loop
    r   200 B                                                     write   result, larger than the fast memory
"""

from __future__ import annotations

import pytest

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.mapping.plan import Copy, Plan, Residency
from memplan.compiler.mapping.problem import Access, Buffer, Link, MappingProblem, MemorySpace, Operation, Region
from memplan.compiler.report.report import Report, make_report

X, W, A, S, R = range(5)
SIZES = {X: 40, W: 80, A: 60, S: 20, R: 200}
READ, WRITE, UPDATE = AccessKind.READ, AccessKind.WRITE, AccessKind.UPDATE


def _operation(name: str, region: int, reserved: int, *accesses: tuple[int, AccessKind]) -> Operation:
    return Operation(
        name=name,
        opcode="fusion",
        floor=0.1 if accesses else 0.0,
        overhead=0.0,
        reserved=(0, reserved),
        region=region,
        accesses=tuple(Access(b, kind, SIZES[b], (SIZES[b] / 100, SIZES[b] / 1000)) for b, kind in accesses),
    )


@pytest.fixture(scope="session")
def problem() -> MappingProblem:
    return MappingProblem(
        name="tiny",
        target="test-chip",
        spaces=(MemorySpace("hbm", 10_000, 1, 100.0, channel=0), MemorySpace("vmem", 100, 1, 1000.0)),
        links=(Link(0, 1, 100.0, 0.0, queue=0, channel=0), Link(1, 0, 100.0, 0.0, queue=1, channel=0)),
        regions=(
            Region(RegionKind.PROGRAM, 0, 8, -1, 1.0),
            Region(RegionKind.LOOP, 4, 6, 0, 4.0),
        ),
        operations=(
            _operation("mul", 0, 0, (X, READ), (A, WRITE)),
            _operation("add", 0, 30, (W, READ), (A, READ)),
            _operation("exp", 0, 0, (A, READ), (S, WRITE)),
            _operation("w.enter", 0, 0),
            _operation("body", 1, 10, (W, READ), (S, UPDATE)),
            _operation("w.end", 1, 0),
            _operation("w", 0, 0),
            _operation("out", 0, 0, (S, READ), (R, WRITE)),
        ),
        buffers=(
            Buffer("x", SIZES[X], 0, 9, (0, 1), initial_space=0, persistent=True),
            Buffer("w", SIZES[W], 0, 9, (0, 1), initial_space=0, persistent=True),
            Buffer("a", SIZES[A], 0, 3, (0, 1)),
            Buffer("s", SIZES[S], 2, 8, (0, 1)),
            Buffer("r", SIZES[R], 7, 9, (0,), final_space=0),
        ),
        clock=1000.0,
    )


@pytest.fixture(scope="session")
def slow_plan(problem: MappingProblem) -> Plan:
    """Nothing in fast memory."""
    offset, residencies = 0, []
    for number, buffer in enumerate(problem.buffers):
        residencies.append(Residency(number, 0, offset, buffer.start, buffer.end))
        offset += buffer.size
    served = tuple(access.buffer for _, access in problem.accesses)
    return Plan(problem.fingerprint, "tiny", "test-chip", "slow", tuple(residencies), (), served)


@pytest.fixture(scope="session")
def plan(problem: MappingProblem) -> Plan:
    """`a` lives in fast memory, over what `add` keeps for itself; then `w` is copied there for the loop."""
    return Plan(
        problem=problem.fingerprint,
        name="tiny",
        target="test-chip",
        planner="by-hand",
        residencies=(
            Residency(X, 0, 0, 0, 9),
            Residency(W, 0, 40, 0, 9),
            Residency(A, 1, 30, 0, 3),
            Residency(S, 0, 120, 2, 8),
            Residency(R, 0, 140, 7, 9),
            Residency(W, 1, 20, 3, 7),
        ),
        copies=(Copy(1, 5, 3, 3),),
        served=(0, 2, 1, 2, 2, 3, 5, 3, 3, 4),
        info={"seconds": 0.5},
    )


@pytest.fixture(scope="session")
def report(problem: MappingProblem, plan: Plan, slow_plan: Plan) -> Report:
    return make_report(problem, plan, [("all in hbm", slow_plan)])
