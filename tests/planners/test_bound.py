"""Bounds: no plan beats them, they see memory and links, and they do not depend on a solver's tolerances."""

from __future__ import annotations

import numpy as np
import pytest
from exhaustive import best_latency
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_problems import branch, loop, problem
from random_problems import REAL, TINY, problems, seeded_problem
from thorough import examples

from memplan import planners
from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator, latency
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.bound import lower_bound, span_bound, window_bounds, windows
from memplan.planners.ilp.integer_solver import run
from memplan.planners.ilp.linear import LinearProgram, column
from memplan.planners.ilp.model import Precision, Span
from memplan.planners.ilp.relaxation import relax
from memplan.planners.ilp.simplex import Simplex
from memplan.planners.ilp.tree import Tree
from memplan.planners.planner import Budget, Effort

WORK = 1e11


@settings(max_examples=examples(15, 30))
@given(mapped=problems(max_length=9, depth=2), ratio=st.sampled_from((0.25, 1.0)))
@pytest.mark.slow
def test_no_plan_beats_a_bound(mapped: MappingProblem, ratio: float) -> None:
    best = min(latency(mapped, planners.get(name).solve(mapped, Budget())) for name in ("slow", "greedy"))
    assert lower_bound(mapped).value <= best * (1.0 + 1e-9)
    model = relax(mapped, precision=Precision(ratio=ratio, whole=True))
    assert run(model.program.finished(), 1000, 60.0, 1e-6).bound * model.unit <= best * (1.0 + 1e-9)


@settings(max_examples=examples(8, 15))
@given(mapped=problems(max_length=30, depth=2))
def test_bounds_of_windows_add_up(mapped: MappingProblem) -> None:
    spans = windows(mapped, 4)
    assert [span.first for span in spans] == [0, *(span.last for span in spans[:-1])]
    assert spans[-1].last == mapped.end
    total = sum(piece.seconds for piece in window_bounds(mapped, spans, WORK, Guard()))
    whole = span_bound(mapped, Span(0, mapped.end), WORK, Guard()).seconds
    assert TimingEmulator(mapped).lower_bound() * (1.0 - 1e-9) <= total
    assert total <= latency(mapped, planners.get("greedy").solve(mapped, Budget())) * (1.0 + 1e-9)
    assert total <= whole * (1.0 + 1e-6)


def exact_bound(mapped: MappingProblem) -> float:
    model = relax(mapped, precision=Precision(ratio=0.5, whole=True))
    return run(model.program.finished(), 1000, 60.0, 1e-7).bound * model.unit


def test_bounds_hold_for_all_plans_of_tiny_problems() -> None:
    compared = closed = 0
    for seed in range(40):
        mapped = seeded_problem(seed, 3, TINY, 0)
        if mapped.cross_program_prefetches or (best := best_latency(mapped)) is None:
            continue
        compared += 1
        bound = exact_bound(mapped)
        assert max(bound, lower_bound(mapped).value) <= best * (1.0 + 1e-9), seed
        closed += bound >= best * (1.0 - 1e-3)
    assert compared >= 5
    assert closed >= 0.9 * compared


LOOPED = {
    "read in a loop": problem("", "r a", "", arguments="a", regions=(loop(1, 2, 3.0),)),
    "read in a loop that never runs": problem("", "r a", "", "r a", arguments="a", regions=(loop(1, 2, 0.0),)),
    "read in a loop that may run": problem("", "r a", "", "r a", arguments="a", regions=(loop(1, 2, 0.5),)),
    "carried": problem("", "u a", "", donated="a", results="a", regions=(loop(1, 2, 3.0),)),
    "carried, too large": problem(
        "", "r a", "r b", "", arguments="a b", sizes={"a": 8, "b": 9}, regions=(loop(1, 3, 4.0),)
    ),
    "filled again where it lies": problem(
        "", "r a", "u a", "", "r a", "", donated="a", results="a", sizes={"a": 4}, capacity=4, regions=(loop(1, 5, 9.0),)
    ),
    "made inside": problem("", "w a", "r a", "", regions=(loop(1, 3, 5.0),), floors=(0.0, 2.0)),
    "across a loop": problem("w a", "", "w b", "", "r a", sizes={"b": 14}, regions=(loop(2, 3, 2.0),)),
    "copied during a loop": problem("", "", "", "r a", arguments="a", floors=(0, 3), regions=(loop(1, 2, 2.0),)),
    "read in a branch": problem(
        "", "r a", "", "", "r a", arguments="a", floors=(0, 0, 1),
        regions=(branch(1, 2, 1), branch(2, 3, 1)),
    ),
    "written in both branches": problem(
        "", "w a", "w a", "", "r a", regions=(branch(1, 2, 1), branch(2, 3, 1))
    ),
    "changed in one branch": problem(
        "", "u a", "", "", "r a", donated="a", results="a", regions=(branch(1, 2, 1), branch(2, 3, 1))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPED)
def test_bounds_hold_for_all_plans_of_loops_and_branches(name: str) -> None:
    mapped = LOOPED[name]
    best = best_latency(mapped)
    assert best is not None
    bound = exact_bound(mapped)
    assert max(bound, lower_bound(mapped).value) <= best * (1.0 + 1e-9)
    assert bound >= best * 0.9, (bound, best)


def test_a_bound_sees_that_not_everything_fits() -> None:
    both = problem("w a", "w b", "r a, r b", sizes={"a": 10, "b": 10}, capacity=16)
    assert TimingEmulator(both).lower_bound() == pytest.approx(4 * 10 / 8)
    # One of them is written to the slow memory and read from it.
    assert lower_bound(both).value > 4 * 10 / 8 + 5.0


def test_a_bound_sees_that_copies_take_time() -> None:
    # What is read twice is read slowly, or copied first: the link is no faster.
    twice = problem("r a", "r a", arguments="a", sizes={"a": 8})
    assert TimingEmulator(twice).lower_bound() == pytest.approx(2.0)
    assert 9.5 < lower_bound(twice).value <= 10.0
    assert exact_bound(twice) == pytest.approx(10.0, rel=1e-4)


def test_a_bound_sees_that_nothing_moves_in_the_latency_of_copies_that_are_made_together() -> None:
    # Each copy by itself would have the time of the other one for its latency.
    together = problem("", *["r a, r b"] * 3, arguments="a b", latency=2.0)
    assert exact_bound(together) == pytest.approx(2.0 + 8.0 + 3.0, rel=1e-3)
    assert latency(together, planners.get("greedy").solve(together, Budget())) >= 13.0 - 1e-9


def test_a_bound_sees_that_what_is_copied_around_a_loop_is_held_through_it() -> None:
    # There is time for a copy in each iteration, and room for what it brings after each use of b, but not beside b.
    around = problem(
        "", "w b", "r b", "", "", *["r a"] * 2,
        arguments="a", sizes={"a": 8, "b": 10}, floors=(0.0, 0.0, 0.0, 2.0), regions=(loop(1, 4, 8.0),),
    )  # fmt: skip
    assert exact_bound(around) == pytest.approx(8 * (2 * 10 / 8 + 2) + 8 + 2, rel=1e-3)
    assert latency(around, planners.get("greedy").solve(around, Budget())) == pytest.approx(46.0)


def test_a_bound_sees_copies_in_loops() -> None:
    # In each iteration the slow memory is written by one operation and read by another.
    looped = problem(
        "w a", "", "r a, w b", "u a, r b", "", sizes={"a": 20, "b": 4}, regions=(loop(2, 4, 10.0),), capacity=16
    )
    assert lower_bound(looped).value >= 20 * 10 * 2


def test_an_argument_may_stay_from_run_to_run() -> None:
    once = problem("r a", arguments="a", sizes={"a": 8}, cross_program_prefetches=1)
    assert lower_bound(once).value == pytest.approx(1.0)
    never = problem("r a", arguments="a", sizes={"a": 8})
    assert lower_bound(never).value == pytest.approx(8.0, rel=1e-6)


@given(st.integers(1, 200), st.data())
def test_nodes_cover_an_interval_once_and_are_fine_at_its_ends(size: int, data: st.DataObject) -> None:
    tree = Tree.over(size)
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size))
    for nodes in (tree.cover(first, last), tree.graded(first, last, True, True, 0.5)):
        intervals = [tree.interval(node) for node in nodes]
        assert [position for low, high in intervals for position in range(low, high)] == list(range(first, last))
    for low, high in intervals:
        assert high - low == 1 or high - low <= 0.5 * min(low - first, last - high)


@given(st.lists(st.integers(-50, 50), min_size=3, max_size=3))
def test_any_duals_give_a_safe_bound(duals: list[int]) -> None:
    program = LinearProgram()
    x, y = (column(program.add_column(0.0, 4.0, cost=cost)) for cost in (1.0, 2.0))
    program.at_most(x.scaled(-1.0) - y, -3.0)
    program.at_most(x - y, 1.0)
    program.equal(x + y.scaled(2.0), 5.0)
    rows = program.finished()
    solved = Simplex(rows, WORK, Guard()).solve()
    assert solved.values is not None
    optimum = float(rows.cost @ solved.values)
    assert solved.bound == pytest.approx(optimum, abs=1e-6)
    assert rows.safe_bound(np.array(duals, np.float64)) <= optimum + 1e-9


@pytest.mark.slow
def test_a_large_problem_has_a_bound() -> None:
    mapped = seeded_problem(5, 120, REAL)
    made = lower_bound(mapped, Effort.FAST)
    assert made.value == max(made.values.values())
    assert TimingEmulator(mapped).lower_bound() <= made.value * (1.0 + 1e-9)
    assert made.value <= latency(mapped, planners.get("greedy").solve(mapped, Budget()))
