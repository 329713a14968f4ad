"""Each rule, broken and just not broken, on problems that fit in the head."""

from __future__ import annotations

import dataclasses

import pytest
from literal_problems import branch, loop, plan, problem

from memplan.compiler.errors import PlanError
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import MAX_VIOLATIONS_PER_RULE, RULES, check_belongs, verify


def rules(problem: MappingProblem, made: Plan) -> list[str]:
    return [violation.rule for violation in verify(problem, made)]


# a is read twice; b is produced between and is the result.
CHAIN = problem("r a, w b", "r a, u b", "r b", arguments="a", results="b")
SLOW = [("a", 0, 0, 0, 4), ("b", 0, 4, 0, 4)]


def test_a_valid_plan_has_no_violations() -> None:
    assert verify(CHAIN, plan(CHAIN, SLOW)) == []


def test_a_prefetch_and_an_eviction() -> None:
    made = plan(
        CHAIN,
        [*SLOW, ("a", 1, 0, 0, 2), ("b", 1, 4, 0, 3)],
        [(0, 2, 0, 1), (3, 1, 2, 3)],
        served=[0, 3, 2, 3, 3],
    )
    assert verify(CHAIN, made) == []


def test_indices_that_name_nothing() -> None:
    made = plan(CHAIN, SLOW)
    wrong = dataclasses.replace(
        made,
        residencies=(*made.residencies, dataclasses.replace(made.residencies[0], buffer=7)),
        copies=(dataclasses.replace(plan(CHAIN, SLOW, [(0, 9, 0, 1)]).copies[0]),),
        served=(0, 1, -5, 1, 1),
    )
    assert rules(CHAIN, wrong) == ["index"] * 3
    assert rules(CHAIN, dataclasses.replace(made, served=made.served[:-1])) == ["index"]


def test_a_residency_is_within_its_live_range() -> None:
    assert rules(CHAIN, plan(CHAIN, [*SLOW, ("b", 1, 0, 0, 4)], served=[0, 1, 0, 1, 1])) == []
    assert rules(CHAIN, plan(CHAIN, [*SLOW, ("b", 1, 0, -1, 3)], served=[0, 1, 0, 1, 1])) == ["live-range"]
    assert rules(CHAIN, plan(CHAIN, [*SLOW, ("b", 1, 0, 2, 2)], served=[0, 1, 0, 1, 1])) == ["live-range"]


def test_a_buffer_lies_in_a_space_that_is_allowed() -> None:
    only_slow = dataclasses.replace(
        CHAIN, buffers=tuple(dataclasses.replace(buffer, spaces=(0,)) for buffer in CHAIN.buffers)
    )
    assert rules(only_slow, plan(only_slow, [*SLOW, ("b", 1, 0, 1, 3)], served=[0, 1, 0, 1, 1])) == ["space"]


@pytest.mark.parametrize(
    ("offset", "expected"), [(0, []), (4, []), (6, ["offset"]), (-4, ["offset"]), (16, ["capacity"])]
)
def test_offsets(offset: int, expected: list[str]) -> None:
    aligned = problem("w a", "r a", alignment=4)
    assert rules(aligned, plan(aligned, [("a", 1, offset, 0, 2)])) == expected


def test_capacity_is_not_exceeded_by_one_byte() -> None:
    small = problem("w a", sizes={"a": 5})
    assert rules(small, plan(small, [("a", 1, 11, 0, 1)])) == []
    assert rules(small, plan(small, [("a", 1, 12, 0, 1)])) == ["capacity"]


def test_what_operations_reserve_is_kept_clear() -> None:
    keeping = problem("w a", "", "", "r a", reserved={1: 6, 3: 2})
    assert rules(keeping, plan(keeping, [("a", 1, 6, 0, 4)])) == []
    violations = verify(keeping, plan(keeping, [("a", 1, 5, 0, 4)]))
    assert [(violation.rule, violation.time) for violation in violations] == [("reserved", 1)]
    assert "op1 (t=1)" in violations[0].message
    # The last operation reserves less, and what it reserves is its own only while it runs.
    assert [v.time for v in verify(keeping, plan(keeping, [("a", 1, 0, 0, 4)]))] == [1]


def test_residencies_do_not_overlap() -> None:
    #   t    0  1  2  3
    #   a    ────           bytes [0, 4)
    #   b       ──────      bytes [3, 7) or [4, 8)
    #   c          ────     bytes [0, 4)
    three = problem("w a", "r a, w b", "r b, w c", "r c")

    def at(offset: int) -> Plan:
        return plan(three, [("a", 1, 0, 0, 2), ("b", 1, offset, 1, 3), ("c", 1, 0, 2, 4)])

    assert rules(three, at(4)) == []
    assert rules(three, at(3)) == ["overlap"] * 2
    assert [violation.time for violation in verify(three, at(3))] == [1, 2]
    # In another space the same offsets are other bytes.
    assert rules(three, plan(three, [("a", 1, 0, 0, 2), ("b", 0, 0, 1, 3), ("c", 1, 0, 2, 4)])) == []


def test_all_pairs_that_overlap_are_reported() -> None:
    many = problem("w a, w b, w c, w d", "r a, r b, r c, r d", capacity=64)
    made = plan(many, [("a", 1, 0, 0, 2), ("b", 1, 2, 0, 2), ("c", 1, 3, 0, 2), ("d", 1, 30, 0, 2)])
    assert rules(many, made) == ["overlap"] * 3


def test_hostile_plans_get_a_polite_answer() -> None:
    count = 200
    names = [f"b{i}" for i in range(count)]
    crowd = problem(", ".join(f"w {name}" for name in names))
    violations = verify(crowd, plan(crowd, [(name, 1, 0, 0, 1) for name in names]))
    assert len(violations) == MAX_VIOLATIONS_PER_RULE + 1
    assert violations[-1].message == "and more; only the first 10,000 are listed"


def test_a_copy_needs_a_link_between_residencies_of_one_buffer() -> None:
    one_way = problem("w a", "", "r a", links="in", results="a")
    made = plan(one_way, [("a", 0, 0, 0, 4), ("a", 1, 0, 0, 3)], [(1, 0, 1, 2)], served=[1, 0])
    assert rules(one_way, made) == ["link"]
    other = plan(CHAIN, [*SLOW, ("b", 1, 0, 0, 2)], [(0, 2, 0, 1)], served=[0, 1, 0, 1, 1])
    assert rules(CHAIN, other) == ["link"]


@pytest.mark.parametrize(("start", "done"), [(2, 1), (-2, 1), (0, 4)])
def test_a_copy_runs_forwards_within_the_program(start: int, done: int) -> None:
    made = plan(CHAIN, [*SLOW, ("a", 1, 0, 0, 3)], [(0, 2, start, done)], served=[0, 1, 0, 1, 1])
    assert "window" in rules(CHAIN, made)


def test_a_copy_stays_within_one_iteration_and_one_branch() -> None:
    #   t     0      1 ┊ 2     3 ┊ 4
    looped = problem("w a", "", "r a", "", "r a", regions=[loop(2, 4)])
    whole = [("a", 0, 0, 0, 5), ("a", 1, 0, 0, 5)]

    def filled(start: int, done: int) -> list[str]:
        return rules(looped, plan(looped, whole, [(0, 1, start, done)], served=[0, 0, 0]))

    assert filled(1, 1) == filled(2, 3) == filled(1, 4) == []
    assert filled(1, 2) == filled(3, 4) == ["region"]
    branches = dataclasses.replace(looped, regions=(looped.regions[0], branch(2, 3), branch(3, 4)))
    branches = dataclasses.replace(
        branches,
        operations=tuple(dataclasses.replace(o, region=(0, 0, 1, 2, 0)[t]) for t, o in enumerate(branches.operations)),
    )
    assert rules(branches, plan(branches, whole, [(0, 1, 2, 3)], served=[0, 0, 0])) == ["region"]


def test_a_copy_is_within_its_source_and_destination() -> None:
    spilled = problem("w a", "", "", "r a")

    def moved(source: tuple[int, int], destination: tuple[int, int]) -> list[str]:
        made = plan(spilled, [("a", 1, 0, *source), ("a", 0, 0, *destination)], [(0, 1, 1, 3)], served=[0, 1])
        return rules(spilled, made)

    assert moved((0, 3), (1, 4)) == []
    assert moved((0, 2), (1, 4)) == ["source"]
    assert moved((0, 3), (2, 4)) == ["destination"]
    # A copy that is awaited at once still needs its source at that moment.
    at_once = plan(spilled, [("a", 1, 0, 0, 2), ("a", 0, 0, 2, 4)], [(0, 1, 2, 2)], served=[0, 1])
    assert "source" in rules(spilled, at_once)


def test_accesses_are_served_by_their_buffer_at_their_time() -> None:
    assert rules(CHAIN, plan(CHAIN, SLOW, served=[0, 1, 1, 1, 1])) == ["served"]
    short = plan(CHAIN, [*SLOW, ("a", 1, 0, 0, 1)], [(0, 2, 0, 0)], served=[0, 1, 2, 1, 1])
    assert rules(CHAIN, short) == ["served", "value"]


def test_one_operation_writes_one_place() -> None:
    twice = problem("w a, w a", "r a")
    made = plan(twice, [("a", 0, 0, 0, 2), ("a", 1, 0, 0, 2)], served=[0, 1, 1])
    assert rules(twice, made) == ["write"]


def test_arguments_start_once_in_their_space() -> None:
    donated = problem("r a", "", donated="a")
    assert rules(donated, plan(donated, [("a", 0, 0, 0, 1)])) == []
    assert rules(donated, plan(donated, [("a", 1, 0, 0, 1)])) == ["value", "initial"]
    assert rules(donated, plan(donated, [("a", 0, 0, 0, 1), ("a", 0, 4, 0, 1)], served=[0])) == ["initial"]


def test_arguments_that_the_caller_keeps_stay_where_they_are() -> None:
    kept = problem("r a", "", arguments="a")
    assert rules(kept, plan(kept, [("a", 0, 0, 0, 3)])) == []
    assert rules(kept, plan(kept, [("a", 0, 0, 0, 2)])) == ["persistent"]


def test_results_end_in_their_space() -> None:
    ends = problem("w a", "", results="a")
    assert rules(ends, plan(ends, [("a", 0, 0, 0, 3)])) == []
    assert rules(ends, plan(ends, [("a", 0, 0, 0, 2)])) == ["final"]
    assert rules(ends, plan(ends, [("a", 1, 0, 0, 3)])) == ["final"]
    late = plan(ends, [("a", 1, 0, 0, 2), ("a", 0, 0, 1, 3)], [(0, 1, 1, 2)], served=[0])
    assert rules(ends, late) == []
    stale = plan(ends, [("a", 1, 0, 0, 2), ("a", 0, 0, 1, 3)], served=[0])
    assert rules(ends, stale) == ["final"]


def test_a_result_in_the_place_of_an_argument_ends_there() -> None:
    inout = problem("r a", "w a", "", donated="a", results="a")
    assert rules(inout, plan(inout, [("a", 0, 0, 0, 4)])) == []
    elsewhere = plan(inout, [("a", 0, 0, 0, 4), ("a", 1, 0, 1, 4), ("a", 0, 8, 2, 4)], [(1, 2, 2, 2)], served=[0, 1])
    assert rules(inout, elsewhere) == ["final"]


#   a   slow  ──────────────────      a is in fast memory when the program starts, and again when it ends
#       fast  ─────        ─────
STAYING = problem("r a", "", "", "r a", "", arguments="a", cross_program_prefetches=1)
STAYS = [("a", 0, 0, 0, 6), ("a", 1, 4, 0, 2), ("a", 1, 4, 3, 6)]


def test_an_argument_may_stay_between_runs() -> None:
    assert rules(STAYING, plan(STAYING, STAYS, [(0, 1, BEFORE, 0), (0, 2, 3, 5)], served=[1, 0])) == []
    for_all = plan(STAYING, [STAYS[0], ("a", 1, 4, 0, 6)], [(0, 1, BEFORE, 0)], served=[1, 1])
    assert rules(STAYING, for_all) == []


@pytest.mark.parametrize(
    ("residencies", "copies"),
    [
        (STAYS, [(0, 1, BEFORE, 1), (0, 2, 3, 5)]),  # done too late
        (STAYS, [(0, 1, BEFORE, 0)]),  # nothing left behind
        ([*STAYS[:2], ("a", 1, 8, 3, 6)], [(0, 1, BEFORE, 0), (0, 2, 3, 5)]),  # left behind elsewhere
        ([*STAYS[:2], ("a", 1, 4, 3, 5)], [(0, 1, BEFORE, 0), (0, 2, 3, 4)]),  # not until the end
    ],
)
def test_what_stays_between_runs_is_left_for_the_next(residencies: list, copies: list) -> None:
    assert set(rules(STAYING, plan(STAYING, residencies, copies, served=[1, 0]))) == {"cross-program"}


def test_only_so_many_unchanged_arguments_stay_between_runs() -> None:
    none = dataclasses.replace(STAYING, cross_program_prefetches=0)
    assert rules(none, plan(none, STAYS, [(0, 1, BEFORE, 0), (0, 2, 3, 5)], served=[1, 0])) == ["cross-program"]
    changed = problem("r a", "", "", "u a", "", donated="a", results="a", cross_program_prefetches=1)
    made = plan(changed, STAYS, [(0, 1, BEFORE, 0), (0, 2, 4, 5)], served=[1, 0])
    assert rules(changed, made) == ["cross-program"]


def test_every_rule_has_a_description_and_every_violation_a_rule() -> None:
    made = plan(CHAIN, [("a", 1, 30, 0, 9), ("b", 1, -1, 2, 3)], [(0, 1, 0, 1)])
    violations = verify(CHAIN, made)
    assert {violation.rule for violation in violations} <= set(RULES)
    assert {"live-range", "offset", "capacity", "index", "initial"} <= {violation.rule for violation in violations}


def test_a_plan_belongs_to_one_problem_and_target() -> None:
    made = plan(CHAIN, SLOW)
    check_belongs(CHAIN, made)
    with pytest.raises(PlanError, match="made for target 'other', not 'literal'"):
        check_belongs(CHAIN, dataclasses.replace(made, target="other"))
    with pytest.raises(PlanError, match="does not belong to module 'literal': it was made for another version"):
        check_belongs(CHAIN, dataclasses.replace(made, problem="0" * 64))
    with pytest.raises(PlanError, match="it was made for module 'x'"):
        check_belongs(CHAIN, dataclasses.replace(made, problem="0" * 64, name="x"))
