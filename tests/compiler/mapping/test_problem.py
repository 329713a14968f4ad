"""What a problem tells beyond its fields."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from literal_problems import branch, loop, plan, problem
from plan_oracle import paths
from random_problems import problems
from thorough import examples

from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.errors import PlanError
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import planner as planners
from memplan.planners.planner import Budget

CHAIN = problem("r a, w b", "r a, u b", "r b", arguments="a", results="b")
SLOW = plan(CHAIN, [("a", 0, 0, 0, 4), ("b", 0, 4, 0, 4)])
# Filled by the properties that a problem caches.
CACHED = ("access_start", "accesses", "accesses_of", "repetitions", "link_between", "faults", "fingerprint")


def test_another_given_plan_makes_the_same_problem() -> None:
    mapped = CHAIN.with_given(SLOW)
    assert mapped.given == SLOW
    assert CHAIN.given is None
    assert mapped == CHAIN
    assert mapped == dataclasses.replace(CHAIN, given=SLOW)
    assert mapped.with_given(None).given is None


def test_what_is_cached_does_not_depend_on_the_given_plan_and_is_kept() -> None:
    original = dataclasses.replace(CHAIN)
    known = {name: getattr(original, name) for name in CACHED}
    fields = {field.name for field in dataclasses.fields(MappingProblem)}
    assert set(vars(original)) - fields == set(CACHED), "a property that is cached and not looked at here"
    mapped = original.with_given(SLOW)
    for name in CACHED:
        assert vars(mapped)[name] is known[name]
    fresh = dataclasses.replace(CHAIN, given=SLOW)
    assert {name: getattr(fresh, name) for name in CACHED} == known


def test_a_problem_round_trips_with_its_given_plan() -> None:
    for original in (CHAIN, CHAIN.with_given(SLOW)):
        again = MappingProblem.from_json(original.to_json())
        assert again == original
        assert again.given == original.given
        assert again.fingerprint == original.fingerprint


def test_how_often_a_moment_comes() -> None:
    made = problem(
        "w a", "r a", "r a", "", "r a", "",
        regions=[loop(1, 4, trips=5), loop(2, 3, trips=3, parent=1), branch(4, 5)],
    )  # fmt: skip
    assert [made.runs_at(t) for t in range(made.end + 1)] == [1, 5, 15, 5, 0.5, 1, 1]


def messages(made: MappingProblem) -> list[str]:
    return [fault.message for fault in made.faults]


def test_a_read_before_the_first_write() -> None:
    assert messages(problem("r a", "w a", "r a")) == ["op0 (t=0) reads a, which nothing has written on some way to it"]
    assert messages(problem("r a", "w a", "r a", arguments="a")) == []


def test_memory_may_be_filled_part_by_part() -> None:
    assert messages(problem("u a", "r a")) == []


def test_a_read_in_one_branch_of_what_the_other_wrote() -> None:
    regions = [branch(0, 1), branch(1, 2)]
    assert messages(problem("w a", "", "r a", regions=regions)) == [
        "op2 (t=2) reads a, which nothing has written on some way to it"
    ]
    assert messages(problem("w a", "w a", "r a", regions=regions)) == []
    assert messages(problem("w a", "r a", "", regions=regions)) == [
        "op1 (t=1) reads a, which nothing has written on some way to it"
    ]


def test_a_value_that_a_loop_carries_lives_until_the_loop_ends() -> None:
    carried = ("w a", "r a", "r b, w a", "")
    regions = [loop(1, 4)]
    assert messages(problem(*carried, arguments="b", regions=regions, live={"a": (0, 4)})) == []
    dead = problem(*carried, arguments="b", regions=regions, live={"a": (0, 3)})
    assert messages(dead) == ["op1 (t=1) reads a, which nothing has written on some way to it"]
    # Written first in every iteration, it needs not live on.
    assert messages(problem("", "w a", "r a", "", regions=[loop(1, 4)])) == []


def test_an_iteration_that_may_not_write_leaves_nothing_to_the_next() -> None:
    inside = [loop(1, 5), branch(2, 3, parent=1), branch(3, 4, parent=1)]
    live = {"a": (0, 7)}
    assert messages(problem("", "", "w a", "", "r a", "", regions=inside, live=live)) == [
        "op4 (t=4) reads a, which nothing has written on some way to it"
    ]
    assert messages(problem("w a", "", "w a", "", "r a", "", regions=inside, live=live)) == []


def test_a_result_that_nothing_writes() -> None:
    unwritten = problem("w b", "", results="b")
    lost = dataclasses.replace(
        unwritten,
        operations=(dataclasses.replace(unwritten.operations[0], accesses=()), *unwritten.operations[1:]),
    )
    assert messages(lost) == ["b is a result, but nothing that was written to it is left at the end"]
    short = problem("w b", "", results="b", live={"b": (0, 2)})
    assert messages(short) == ["b is a result, but nothing that was written to it is left at the end"]


def test_everything_that_takes_a_problem_refuses_faults() -> None:
    lacking = problem("r a", "r b", "w a, w b")
    message = r"literal: op0 \(t=0\) reads a, which nothing has written on some way to it \(and 1 more faults"
    with pytest.raises(PlanError, match=message):
        lacking.check()
    with pytest.raises(PlanError, match="^a.json: " + message):
        MappingProblem.from_json(lacking.to_json(), "a.json")
    with pytest.raises(PlanError, match=message):
        planners.get("slow").plan(lacking, Budget())
    made = planners.get("slow").solve(lacking, Budget())
    assert [(violation.rule, violation.buffer, violation.time) for violation in verify(lacking, made)] == [
        ("unwritten", 0, 0),
        ("unwritten", 1, 1),
    ]


@st.composite
def with_an_access_less(draw: st.DrawFn) -> MappingProblem:
    """A problem without one of its accesses, or with a shorter live range, so that it may have a fault."""
    mapped = draw(problems(max_length=12, depth=3))
    times = [t for t, operation in enumerate(mapped.operations) if operation.accesses]
    if not times or draw(st.booleans()):
        number = draw(st.integers(0, len(mapped.buffers) - 1))
        buffers = list(mapped.buffers)
        last = max((mapped.accesses[i][0] for i in mapped.accesses_of[number]), default=buffers[number].start)
        end = draw(st.integers(last + 1, buffers[number].end))
        buffers[number] = dataclasses.replace(buffers[number], end=end)
        return dataclasses.replace(mapped, buffers=tuple(buffers))
    time = draw(st.sampled_from(times))
    operations = list(mapped.operations)
    dropped = draw(st.integers(0, len(operations[time].accesses) - 1))
    left = operations[time].accesses[:dropped] + operations[time].accesses[dropped + 1 :]
    operations[time] = dataclasses.replace(operations[time], accesses=left)
    return dataclasses.replace(mapped, operations=tuple(operations))


def lacking_on_some_path(mapped: MappingProblem) -> set[int]:
    """Returns the buffers that some path of execution uses where they hold nothing, found by walking the paths."""
    lacking: set[int] = set()
    for path in paths(mapped):
        written = {number for number, buffer in enumerate(mapped.buffers) if buffer.initial_space is not None}
        for time in path:
            written = {b for b in written if mapped.buffers[b].start <= time < mapped.buffers[b].end}
            accesses = mapped.operations[time].accesses if time < mapped.end else ()
            for access in accesses:
                if access.kind is AccessKind.READ and access.buffer not in written:
                    lacking.add(access.buffer)
            written |= {access.buffer for access in accesses if access.kind is not AccessKind.READ}
        lacking |= {b for b, buffer in enumerate(mapped.buffers) if buffer.final_space is not None} - written
    return lacking


@settings(max_examples=examples(150, 400))
@given(with_an_access_less())
def test_faults_are_what_some_path_of_execution_meets(mapped: MappingProblem) -> None:
    found = {fault.buffer for fault in mapped.faults}
    event(f"{len(found)} faults")
    assert found == lacking_on_some_path(mapped)


@settings(max_examples=100)
@given(problems(max_length=25, depth=3))
def test_random_programs_have_no_faults(mapped: MappingProblem) -> None:
    assert mapped.faults == ()
