"""What holds for every planner: registered by name, plans that verify, never slower than all at home, reproducible."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from literal_problems import plan, problem
from random_problems import REAL, problems, seeded_problem

from memplan import planners
from memplan.compiler.emulator.timing import latency
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import check_belongs, verify
from memplan.planners import Budget, Planner

SEARCHING = ["bestfit", "greedy", "slow"]


def test_planners_are_found_by_name() -> None:
    assert set(planners.names()) >= {"agent", "auto", "bestfit", "evolution", "greedy", "ilp", "search", "slow", "xla"}
    assert all(planners.get(name).description.endswith(".") for name in planners.names())
    with pytest.raises(
        PlannerError,
        match="no planner is called 'quick'; known: agent, auto, bestfit, evolution, greedy, hybrid, ilp, search, slow, xla",
    ):
        planners.get("quick")


def test_a_user_registers_a_planner_of_their_own() -> None:
    """In a process of its own, so that no other test sees it."""
    program = (
        "from memplan import planners\n"
        "mine = planners.Planner('mine', 'As slow as it gets.', planners.get('slow').solve)\n"
        "planners.register(mine)\n"
        "assert planners.get('mine') is mine and 'greedy' in planners.names()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", SEARCHING)
@settings(max_examples=60, deadline=None)
@given(mapped=problems(max_length=25, depth=3))
def test_plans_are_valid_and_never_slower_than_all_at_home(name: str, mapped: MappingProblem) -> None:
    made = planners.get(name).solve(mapped, Budget(seconds=5.0))
    check_belongs(mapped, made)
    assert verify(mapped, made) == []
    assert latency(mapped, made) <= latency(mapped, planners.get("slow").solve(mapped, Budget()))


@pytest.mark.parametrize("name", SEARCHING)
@pytest.mark.parametrize("seed", range(4))
def test_larger_plans_are_valid_and_reproducible(name: str, seed: int) -> None:
    mapped = seeded_problem(seed, 120, REAL, depth=3)
    made = planners.get(name).solve(mapped, Budget(seconds=30.0, seed=seed))
    assert verify(mapped, made) == []
    again = planners.get(name).solve(mapped, Budget(seconds=30.0, seed=seed))
    assert again == made


@pytest.mark.parametrize("name", SEARCHING)
def test_a_program_without_operations(name: str) -> None:
    empty = problem()
    assert verify(empty, planners.get(name).solve(empty, Budget())) == []


@pytest.mark.parametrize("name", SEARCHING)
def test_a_program_that_does_not_fit_is_refused(name: str) -> None:
    huge = problem("w a", "r a", sizes={"a": 2000})
    with pytest.raises(PlannerError, match=r"a \(2,000 bytes\) and what is alive with it do not fit slow"):
        planners.get(name).solve(huge, Budget())


def test_a_planner_is_a_value() -> None:
    one = Planner("one", "Does nothing.", lambda problem, budget: plan(problem, []))
    assert one.solve(problem(), Budget()).residencies == ()
