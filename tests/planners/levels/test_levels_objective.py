"""Levels for an objective that is no sum."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from level_problems import drawn, problem_of

from memplan import PlannerError
from memplan.planners.levels.objective import solve_for_objective

PROBLEM = drawn(5, 3, "noisy", seed=7)


def peak(choice: tuple[int, ...]) -> float:
    """All layers stand in memory, and the largest of them twice."""
    costs = [layer.levels[level].cost for layer, level in zip(PROBLEM.layers, choice, strict=True)]
    return sum(costs) + max(costs)


def best(limited: str, budget: float) -> float:
    found = []
    for choice in itertools.product(range(3), repeat=5):
        error = PROBLEM.totals(choice)[1]
        spent, value = (peak(choice), error) if limited == "cost" else (error, peak(choice))
        if spent <= budget:
            found.append(value)
    return min(found)


def test_the_error_is_minimized_within_a_peak() -> None:
    budget = int(1.2 * PROBLEM.budget)
    plan = solve_for_objective(replace(PROBLEM, budget=budget), peak, at_least_the_sum=True)
    assert peak(plan.choice) <= budget
    assert plan.minimized == plan.error == pytest.approx(best("cost", budget))
    assert 0 < plan.bound <= plan.minimized


def test_the_peak_is_minimized_within_an_error() -> None:
    budget = 1.1 * PROBLEM.totals((1,) * 5)[1]
    plan = solve_for_objective(replace(PROBLEM, budget=budget, limited="error"), peak, at_least_the_sum=True)
    assert plan.error <= budget
    assert plan.minimized == peak(plan.choice) == best("error", budget)
    assert 0 < plan.bound <= plan.minimized


def test_without_a_relation_to_the_sum_nothing_is_proven() -> None:
    plan = solve_for_objective(PROBLEM, lambda choice: peak(choice) / 2)
    assert plan.bound == 0.0
    assert not plan.is_optimal


def test_evaluations_are_counted_and_no_choice_is_evaluated_twice() -> None:
    seen: list[tuple[int, ...]] = []

    def objective(choice: tuple[int, ...]) -> float:
        seen.append(choice)
        return peak(choice)

    solve_for_objective(replace(PROBLEM, budget=10 * PROBLEM.budget), objective, evaluations=7)
    assert 0 < len(seen) <= 7
    assert len(set(seen)) == len(seen)


def test_what_cannot_be_met_and_what_is_no_number_is_said() -> None:
    with pytest.raises(PlannerError, match=r"none of \d+ choices has an objective within 1; the least is"):
        solve_for_objective(problem_of([[(1, 0.0), (0, 1.0)]], 1), lambda choice: 2.0 + choice[0])
    with pytest.raises(PlannerError, match="it must be a number"):
        solve_for_objective(PROBLEM, lambda choice: math.nan)
