"""The verifier of level plans finds what is wrong; the baselines are what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from level_problems import drawn, problem_of

from memplan import PlannerError
from memplan.planners.levels import bucket_choice, solve_levels, uniform_choice, verify_levels

PROBLEM = problem_of([[(8, 0.0), (4, 1.0)], [(8, 0.0), (4, 3.0)]], 12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choice": (0,)}, "the plan has 1 layers, and the problem 2"),
        ({"choice": (0, 5)}, "layer 1: there is no level 5"),
        ({"choice": (0, -1)}, "layer 1: there is no level -1"),
        ({"choice": (0, 0)}, "the total cost 16 exceeds 12"),
        ({"cost": 11}, "the total cost is 12, and the plan states 11"),
        ({"error": 0.5}, "the total error is 1, and the plan states 0.5"),
        ({"bound": 2.0}, "the bound 2.0 is above"),
    ],
)
def test_a_changed_plan_is_refused(change: dict[str, object], message: str) -> None:
    plan = solve_levels(PROBLEM)
    assert verify_levels(PROBLEM, plan) == []
    assert any(message in each for each in verify_levels(PROBLEM, replace(plan, **change)))  # type: ignore[arg-type]


def test_the_uniform_choice_is_one_level_by_name() -> None:
    plan = uniform_choice(PROBLEM)
    assert plan is not None
    assert (plan.choice, plan.method) == ((1, 1), "uniform level 1")
    assert uniform_choice(replace(PROBLEM, budget=7)) is None


def test_a_layer_with_one_level_does_not_keep_others_from_being_uniform() -> None:
    problem = problem_of([[(8, 0.0), (4, 1.0)], [(5, 0.0)], [(8, 0.0), (4, 3.0)]], 13)
    plan = uniform_choice(problem)
    assert plan is not None
    assert plan.choice == (1, 0, 1)


def test_more_buckets_come_nearer_to_the_optimum() -> None:
    problem = drawn(8, 5, "noisy", seed=4)
    optimum = solve_levels(problem).minimized
    few, many = bucket_choice(problem, 10), bucket_choice(problem, 10_000)
    assert few is not None
    assert many is not None
    assert verify_levels(problem, few) == verify_levels(problem, many) == []
    assert optimum <= many.minimized < few.minimized
    assert many.minimized == pytest.approx(optimum, rel=0.01)


def test_buckets_need_a_budget() -> None:
    with pytest.raises(PlannerError, match="cannot divide a budget of 0"):
        bucket_choice(replace(PROBLEM, budget=0))
