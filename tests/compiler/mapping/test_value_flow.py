"""Values along the path of execution: small programs first, then against an oracle that runs the plan."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from literal_problems import branch, loop, plan, problem
from plan_oracle import is_valid
from random_problems import REAL, problems, seeded_problem
from thorough import examples

from memplan.compiler.mapping import value_flow
from memplan.compiler.mapping.plan import Copy, Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.compiler.mapping.violation import CheckedPlan
from memplan.planners import slow
from memplan.planners.greedy import GreedyOptions, solve_with
from memplan.planners.planner import Budget


def rules(problem: MappingProblem, made: Plan) -> list[str]:
    return [violation.rule for violation in verify(problem, made)]


def test_a_read_needs_the_last_value_that_was_written() -> None:
    overwritten = problem("w a", "w a", "r a")
    both = [("a", 0, 0, 0, 3), ("a", 1, 0, 0, 3)]
    assert rules(overwritten, plan(overwritten, both, served=[0, 1, 1])) == []
    assert rules(overwritten, plan(overwritten, both, served=[1, 0, 1])) == ["value"]
    assert rules(overwritten, plan(overwritten, both, served=[1, 0, 0])) == []


def test_an_update_reads_and_writes() -> None:
    updated = problem("w a", "u a", "r a")
    both = [("a", 0, 0, 0, 3), ("a", 1, 0, 0, 3)]
    assert rules(updated, plan(updated, both, served=[0, 1, 1])) == ["value"]
    assert rules(updated, plan(updated, both, [(0, 1, 1, 1)], served=[0, 1, 1])) == []
    assert rules(updated, plan(updated, both, [(0, 1, 1, 1)], served=[0, 1, 0])) == ["value"]


def test_a_copy_holds_the_value_from_its_done() -> None:
    copied = problem("w a", "", "r a", "r a")
    both = [("a", 0, 0, 0, 4), ("a", 1, 0, 1, 4)]
    assert rules(copied, plan(copied, both, [(0, 1, 1, 3)], served=[0, 1, 1])) == ["value"]
    assert rules(copied, plan(copied, both, [(0, 1, 1, 2)], served=[0, 1, 1])) == []


def test_a_copy_is_outdated_by_a_write_on_its_way() -> None:
    racing = problem("w a", "u a", "r a")
    both = [("a", 0, 0, 0, 3), ("a", 1, 0, 1, 3)]
    made = plan(racing, both, [(0, 1, 1, 2)], served=[0, 0, 1])
    assert rules(racing, made) == ["source", "value"]
    assert "op1 (t=1) overwrites a meanwhile" in verify(racing, made)[0].message


def test_a_copy_can_carry_on_what_arrived_at_that_moment() -> None:
    relay = problem("w a", "", "r a", "r a")
    three = [("a", 1, 0, 0, 3), ("a", 0, 0, 1, 3), ("a", 1, 8, 2, 4)]
    assert rules(relay, plan(relay, three, [(0, 1, 1, 2), (1, 2, 2, 3)], served=[0, 0, 2])) == []
    assert rules(relay, plan(relay, three, [(1, 2, 2, 3), (0, 1, 1, 2)], served=[0, 0, 2])) == []
    late = plan(relay, [*three[:2], ("a", 1, 8, 1, 4)], [(0, 1, 1, 2), (1, 2, 1, 3)], served=[0, 0, 2])
    assert rules(relay, late) == ["source", "value"]


def test_before_the_first_write_any_content_will_do() -> None:
    scratch = problem("u a", "r a")
    assert rules(scratch, plan(scratch, [("a", 1, 0, 0, 2)])) == []


#   t        0      1 ┊ 2      3      4 ┊ 5
LOOPED = problem("w a", "", "r a", "u a", "", "r a", regions=[loop(2, 5)])


def test_what_a_loop_starts_with_must_be_there_in_every_iteration() -> None:
    whole = [("a", 0, 0, 0, 6), ("a", 1, 0, 2, 5)]
    # Read from slow memory, updated in fast memory, copied back or not before the next iteration.
    back = [(0, 1, 2, 3), (1, 0, 4, 4)]
    assert rules(LOOPED, plan(LOOPED, whole, back, served=[0, 0, 1, 0])) == []
    assert rules(LOOPED, plan(LOOPED, whole, back[:1], served=[0, 0, 1, 0])) == ["source", *["value"] * 3]


def test_a_residency_around_a_loop_carries_the_value() -> None:
    around = [("a", 0, 0, 0, 2), ("a", 1, 0, 1, 6)]
    assert rules(LOOPED, plan(LOOPED, around, [(0, 1, 1, 1)], served=[0, 1, 1, 1])) == []
    # One that ends in the loop does not survive the iteration.
    short = [*around, ("a", 0, 0, 4, 6)]
    short[1] = ("a", 1, 0, 1, 5)
    made = plan(LOOPED, short, [(0, 1, 1, 1), (1, 2, 4, 4)], served=[0, 1, 1, 2])
    assert rules(LOOPED, made) == []
    shorter = [short[0], ("a", 1, 0, 1, 4), short[2]]
    assert "value" in rules(LOOPED, plan(LOOPED, shorter, [(0, 1, 1, 1)], served=[0, 1, 1, 2]))


def test_a_value_of_one_iteration_is_free_in_the_next() -> None:
    local = problem("", "w a", "r a", "", regions=[loop(1, 4)])
    assert rules(local, plan(local, [("a", 1, 0, 1, 3)])) == []


#   t            0 ┊ 1 ┊ 2 ┊ 3      4
BRANCHED = problem("w a", "u a", "r a", "", "r a", regions=[branch(1, 2), branch(2, 3)])


def test_after_a_conditional_the_value_is_where_every_branch_leaves_it() -> None:
    both = [("a", 0, 0, 0, 5), ("a", 1, 0, 0, 5)]
    first = [(0, 1, 1, 1)]
    assert rules(BRANCHED, plan(BRANCHED, both, first, served=[0, 1, 0, 1])) == ["value"]
    assert rules(BRANCHED, plan(BRANCHED, both, first, served=[0, 1, 0, 0])) == ["value"]
    assert rules(BRANCHED, plan(BRANCHED, both, [*first, (0, 1, 2, 2)], served=[0, 1, 0, 1])) == []


def test_branches_start_alike() -> None:
    made = [("a", 0, 0, 0, 5), ("a", 1, 0, 0, 5)]
    # The update of the first branch is no matter to the second.
    assert rules(BRANCHED, plan(BRANCHED, made, [(0, 1, 1, 1), (0, 1, 2, 2)], served=[0, 1, 1, 1])) == []


def test_a_copy_over_a_conditional_is_outdated_by_a_write_in_it() -> None:
    both = [("a", 0, 0, 0, 5), ("a", 1, 0, 0, 5)]
    over = plan(BRANCHED, both, [(0, 1, 0, 4)], served=[1, 1, 1, 1])
    assert "source" in rules(BRANCHED, over)
    reading = dataclasses.replace(
        BRANCHED,
        operations=(
            *BRANCHED.operations[:1],
            dataclasses.replace(BRANCHED.operations[2], region=1),
            *BRANCHED.operations[2:],
        ),
    )
    quiet = plan(reading, both, [(0, 1, 3, 4)], served=[0, 0, 0, 1])
    assert rules(reading, quiet) == []


@st.composite
def mutated_plans(draw: st.DrawFn) -> tuple[MappingProblem, Plan]:
    """A valid plan with fast memory in use, and up to three changes to it."""
    mapped = draw(problems())
    options = GreedyOptions(rounds=draw(st.integers(0, 3)), repacks=1, channel_price=1.0)
    made = solve_with(mapped, Budget(seed=draw(st.integers(0, 3))), options)
    for _ in range(draw(st.integers(0, 3))):
        made = draw(mutations(mapped, made))
    return mapped, made


@st.composite
def mutations(draw: st.DrawFn, mapped: MappingProblem, made: Plan) -> Plan:
    """A plan with one number changed, one thing dropped, or two things swapped. Indices still name something."""
    residencies, copies, served = list(made.residencies), list(made.copies), list(made.served)
    kind = draw(st.sampled_from(["offset", "interval", "space", "buffer", "copy", "drop", "served", "swap", "add"]))
    step = draw(st.sampled_from([-4, -2, -1, 1, 2, 4]))
    i = draw(st.integers(0, len(residencies) - 1))
    r = residencies[i]
    if kind == "offset":
        residencies[i] = dataclasses.replace(r, offset=r.offset + step)
    elif kind == "interval":
        field = draw(st.sampled_from(["start", "end"]))
        residencies[i] = dataclasses.replace(r, **{field: getattr(r, field) + step})
    elif kind == "space":
        residencies[i] = dataclasses.replace(r, space=1 - r.space)
    elif kind == "buffer":
        residencies[i] = dataclasses.replace(r, buffer=draw(st.integers(0, len(mapped.buffers) - 1)))
    elif kind == "copy" and copies:
        c = draw(st.integers(0, len(copies) - 1))
        field = draw(st.sampled_from(["start", "done"]))
        copies[c] = dataclasses.replace(copies[c], **{field: getattr(copies[c], field) + step})
    elif kind == "drop" and copies:
        del copies[draw(st.integers(0, len(copies) - 1))]
    elif kind == "served" and served:
        number = draw(st.integers(0, len(served) - 1))
        same = [k for k, other in enumerate(residencies) if other.buffer == residencies[served[number]].buffer]
        served[number] = draw(st.sampled_from(same))
    elif kind == "swap":
        j = draw(st.integers(0, len(residencies) - 1))
        residencies[i], residencies[j] = (
            dataclasses.replace(r, offset=residencies[j].offset),
            dataclasses.replace(residencies[j], offset=r.offset),
        )
    elif kind == "add":
        same = [k for k, other in enumerate(residencies) if other.buffer == r.buffer]
        time = draw(st.integers(0, mapped.end))
        copies.append(Copy(i, draw(st.sampled_from(same)), time, time + abs(step) - 1))
        copies.sort(key=lambda copy: (copy.start, copy.done))
    return dataclasses.replace(made, residencies=tuple(residencies), copies=tuple(copies), served=tuple(served))


@settings(max_examples=examples(100, 300))
@given(mutated_plans())
def test_the_verifier_agrees_with_execution(case: tuple[MappingProblem, Plan]) -> None:
    mapped, made = case
    violations = verify(mapped, made)
    event("valid" if not violations else violations[0].rule)
    assert (not violations) == is_valid(mapped, made), violations


@settings(max_examples=examples(50, 100))
@given(problems(max_length=20), st.integers(0, 3))
@pytest.mark.slow
def test_what_planners_make_runs(mapped: MappingProblem, seed: int) -> None:
    made = solve_with(mapped, Budget(seed=seed), GreedyOptions(rounds=2, repacks=1))
    assert verify(mapped, made) == []
    assert is_valid(mapped, made)


@pytest.mark.slow
def test_values_that_need_not_be_followed_are_those_that_break_no_rule() -> None:
    draw = random.Random(0)
    skipped = broken = 0
    for seed in range(60):
        mapped = seeded_problem(seed, 30, REAL, 2)
        made = solve_with(mapped, Budget(), GreedyOptions(rounds=1)) if seed % 2 else slow.solve(mapped, Budget())
        changed = list(made.residencies)
        for number in draw.sample(range(len(changed)), min(seed % 4, len(changed))):
            r = changed[number]
            start, end = r.start + draw.choice((0, 0, 1, -1)), r.end + draw.choice((0, 0, 1, -1, -3))
            changed[number] = dataclasses.replace(r, start=start, end=end, space=draw.choice((r.space, r.space, 1)))
        made = dataclasses.replace(made, residencies=tuple(changed))
        checked = CheckedPlan(mapped, made)
        found = list(value_flow.check_values(checked))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(value_flow, "_still_residencies", lambda checked: [-1] * len(checked.problem.buffers))
            assert list(value_flow.check_values(checked)) == found
        skipped += sum(number >= 0 for number in value_flow._still_residencies(checked))
        broken += bool(found)
    assert skipped > 300
    assert broken > 5
