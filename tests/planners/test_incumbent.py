"""The best plan so far: what it takes, what it tells, and how planners end with moves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
from random_problems import REAL, seeded_problem

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import latency
from memplan.compiler.mapping.contended import placement_problem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.verify import verify
from memplan.planners import greedy, incumbent, search, slow
from memplan.planners import planner as planners
from memplan.planners.evolution import solve as evolution
from memplan.planners.evolution.solve import EvolutionOptions
from memplan.planners.ilp import solve as ilp
from memplan.planners.incumbent import Incumbent
from memplan.planners.planner import Budget, Effort
from memplan.planners.search.solve import SearchOptions

FAST = Budget(Effort.FAST)


PROBLEM = placement_problem(60).problem

# Greedy's plan before it is rearranged.
START = greedy.solve_with(PROBLEM, FAST, greedy.GreedyOptions(moves=0))


def test_only_better_plans_are_taken_and_told() -> None:
    problem, told = seeded_problem(5, 80, REAL), list[Plan]()
    better, worse = greedy.solve(problem, FAST), slow.solve(problem, FAST)
    best = Incumbent(problem, replace(FAST, on_plan=told.append), "mine", worse)
    for plan in (better, worse, better):
        best.offer(plan, f"by {plan.planner}")
    assert [plan.residencies for plan in told] == [worse.residencies, better.residencies]
    assert (best.plan, best.plan.planner, best.method) == (told[-1], "mine", "by greedy")
    assert best.latency == latency(problem, better)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_finish_improves_plans(seed: int) -> None:
    plans = []
    for _ in range(2):
        best = Incumbent(PROBLEM, replace(FAST, seed=seed), "mine", START)
        best.finish()
        plans.append(best.plan)
    assert plans[0] == plans[1]
    assert verify(PROBLEM, plans[0]) == []
    assert best.latency == latency(PROBLEM, plans[0]) < latency(PROBLEM, START)
    assert best.method == "rearrangement"


def test_a_plan_that_is_good_enough_stays_as_it_is() -> None:
    best = Incumbent(PROBLEM, FAST, "mine", START)
    best.finish(goal=best.latency)
    assert best.plan.residencies == START.residencies


def test_planners_end_with_moves() -> None:
    budget = replace(FAST, known=START)
    seconds = {
        moves: [
            latency(PROBLEM, plan)
            for plan in (
                search.solve_with(PROBLEM, budget, SearchOptions(rounds=1, moves=moves)),
                evolution.solve_with(PROBLEM, budget, EvolutionOptions(generations=1, moves=moves)),
            )
        ]
        for moves in (False, True)
    }
    assert seconds[True][0] < seconds[False][0]
    assert seconds[True][1] < seconds[False][1]


def test_ilp_ends_with_moves_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ilp, "_search", lambda *_: None)
    plan = ilp.solve(PROBLEM, replace(FAST, known=START))
    assert plan.info["method"] == "rearrangement"


def test_under_a_limit_nothing_is_begun_that_would_not_be_done_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a plan of a large program takes seconds, and so does loading it to be rearranged; none asks the guard."""
    now, assemble = [0.0], incumbent.assemble

    def slowly(*args: Any, **options: Any) -> Any:
        now[0] += 3.0
        return assemble(*args, **options)

    monkeypatch.setattr(incumbent, "assemble", slowly)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for limit, is_enough in ((20.0, False), (100.0, True)):
        budget = Budget(Effort.FAST, time_limit=limit)
        best = Incumbent(PROBLEM, budget, "mine", START)
        with best.keeping_for_plan():
            assert budget.guard.left() == limit - 3.0 - 6.0, "as long as making it took, and as much again"
            assert (best.rearrangement(1, seed=0) is not None) == is_enough
        assert budget.guard.met == (not is_enough)


@pytest.mark.parametrize("name", ["search", "neighbourhoods"])
def test_a_limit_that_is_not_met_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, keeping = list[float](), Guard.keeping_for

    def noted(self: Guard, finish: Callable[[], object]) -> AbstractContextManager[float]:
        kept.append(self.left())
        return keeping(self, finish)

    monkeypatch.setattr(Guard, "keeping_for", noted)
    plans = [
        planners.get(name).solve(PROBLEM, Budget(Effort.FAST, time_limit=limit, known=START)) for limit in (1e6, None)
    ]
    assert plans[0] == plans[1]
    assert len(kept) == 2
