"""The solvers of level problems, against enumeration and against each other."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from level_problems import drawn, enumerated, problem_of

from memplan import PlannerError
from memplan.planners.levels import solve_levels, verify_levels
from memplan.planners.levels.constraint import solve_by_constraints
from memplan.planners.levels.core import Core
from memplan.planners.levels.problem import LevelProblem
from memplan.planners.levels.relaxation import frontier, point, relax

NUMBERS = st.one_of(st.integers(0, 20), st.floats(0.0, 8.0))
ROWS = st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4), min_size=1, max_size=5)


@settings(max_examples=80, deadline=None)
@given(ROWS, st.floats(0.0, 40.0), st.sampled_from(["cost", "error"]))
def test_the_choice_is_that_of_enumeration(rows: list[list[tuple[float, float]]], budget: float, limited: str) -> None:
    problem = problem_of(rows, budget, limited)
    best = enumerated(problem)
    if best is None:
        with pytest.raises(PlannerError, match="the least is"):
            solve_levels(problem)
        return
    plan = solve_levels(problem)
    assert verify_levels(problem, plan) == []
    assert plan.minimized == pytest.approx(best, rel=1e-9)
    assert plan.bound <= best <= plan.minimized
    assert plan.is_optimal


@pytest.mark.parametrize("kind", ["random", "noisy", "subset"])
@pytest.mark.parametrize("limited", ["cost", "error"])
def test_cp_sat_agrees_on_middle_problems(kind: str, limited: str) -> None:
    problem = drawn(12, 6, kind, seed=3)
    if limited == "error":
        # The error of the best choice under the budget of cost: less cost is not enough for it.
        problem = replace(problem, limited="error", budget=solve_levels(problem).error)
    plan, other = solve_levels(problem), solve_by_constraints(problem)
    assert other is not None
    assert plan.is_optimal
    assert verify_levels(problem, plan) == verify_levels(problem, other) == []
    assert plan.minimized == pytest.approx(other.minimized, rel=1e-7)
    assert other.bound <= plan.minimized * (1 + 1e-9)


@pytest.mark.parametrize("kind", ["random", "bits", "noisy", "subset"])
def test_a_thousand_layers_are_solved_to_proof(kind: str) -> None:
    problem = drawn(1_000, 16, kind, seed=1)
    plan = solve_levels(problem)
    assert verify_levels(problem, plan) == []
    assert plan.is_optimal


def test_cp_sat_goes_on_where_states_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = drawn(10, 6, "noisy", seed=2)
    optimum = solve_levels(problem)
    core = Core.__init__

    def few(self: Core, tables: object, budget: float, relaxation: object, most_states: int) -> None:
        core(self, tables, budget, relaxation, 1)  # type: ignore[arg-type]

    monkeypatch.setattr(Core, "__init__", few)
    relaxation = relax(problem.tables, problem.budget)
    cut = Core(problem.tables, problem.budget, relaxation, 1).solve()
    assert not cut.finished
    assert cut.bound <= optimum.minimized
    plan = solve_levels(problem)
    assert plan.minimized == pytest.approx(optimum.minimized, rel=1e-9)
    assert verify_levels(problem, plan) == []


def test_a_budget_that_a_choice_of_floats_just_meets() -> None:
    """The sum of 0.1 ten times is 1.0 when it is rounded once, and more or less when it is added up."""
    problem = problem_of([[(0.1, 0.0), (0.05, 1.0)]] * 10, 1.0)
    plan = solve_levels(problem)
    assert (plan.choice, plan.cost) == ((0,) * 10, 1.0)
    tight = problem_of([[(0.1, 0.0), (0.05, 1.0), (0.0, 3.0)]] * 9 + [[(0.3, 0.0), (0.1, 0.5)]], 1.0)
    assert solve_levels(tight).minimized == enumerated_by_counts(tight)


def enumerated_by_counts(problem: LevelProblem) -> float:
    """The optimum of nine equal layers and another one: how many layers have which level is all that matters."""
    best = math.inf
    for first in range(10):
        for second in range(10 - first):
            for last in (0, 1):
                choice = (0,) * first + (1,) * second + (2,) * (9 - first - second) + (last,)
                cost, error = problem.totals(choice)
                if cost <= problem.budget:
                    best = min(best, error)
    return best


def test_the_frontier_is_convex_and_ends_at_both_ends() -> None:
    tables = drawn(6, 5, "random", seed=5).tables
    points = [point(tables, choice) for choice in frontier(tables)]
    assert points[0][1] == pytest.approx(tables.value.min(1).sum())
    assert points[-1][0] == tables.weight.min(1).sum()
    slopes = [(b[1] - a[1]) / (a[0] - b[0]) for a, b in itertools.pairwise(points)]
    assert all(later >= slope * (1 - 1e-9) for slope, later in itertools.pairwise(slopes))


@pytest.mark.parametrize(
    ("rows", "budget", "message"),
    [
        ([[(1, 1.0)], []], 5, "layer 1 (layer 1) has no levels"),
        ([[(1, math.nan)]], 5, "level 0: error is nan: it must be finite"),
        ([[(-1, 1.0)]], 5, "level 0: cost is -1: it must be finite and not negative"),
        ([[(math.inf, 1.0)]], 5, "cost is inf"),
        ([[(True, 1.0)]], 5, "cost is True: it must be a number"),
        ([[(1, 1.0)]], math.nan, "the budget is nan"),
        ([[(2**53, 1.0)]], 2**60, "not below 2**53"),
        ([[(7, 1.0), (9, 0.0)], [(5, 1.0)]], 11, "no choice has a total cost within 11: the least is 12"),
    ],
)
def test_bad_input_is_named(rows: list[list[tuple[float, float]]], budget: float, message: str) -> None:
    with pytest.raises(PlannerError) as raised:
        solve_levels(problem_of(rows, budget))
    assert message in str(raised.value)


def test_no_layers_are_a_choice() -> None:
    assert solve_levels(problem_of([], 0)).choice == ()
