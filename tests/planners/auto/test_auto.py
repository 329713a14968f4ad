"""The portfolio: as good as its best member, whatever becomes of the others."""

from __future__ import annotations

import os
import queue
import signal
import time
from typing import Any

import pytest
from random_problems import seeded_problem

from memplan.compiler.emulator.timing import emulate
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import check_belongs, verify
from memplan.planners import planner
from memplan.planners.auto import solve as auto
from memplan.planners.auto.member import Member, News
from memplan.planners.auto.solve import AutoOptions, solve_with
from memplan.planners.planner import Budget, Planner, Role

PROBLEM = seeded_problem(3, 60)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compiles what members run, which would take a cold process longer than the budgets here."""
    for name in ("bestfit", "greedy"):
        solved(name, PROBLEM)


def latency(problem: MappingProblem, plan: Plan) -> float:
    check_belongs(problem, plan)
    assert verify(problem, plan) == []
    return emulate(problem, plan).latency


def solved(name: str, problem: MappingProblem) -> Plan:
    return planner.get(name).solve(problem, Budget(10.0))


def test_a_member_that_is_better_than_the_first_wins() -> None:
    told: list[Plan] = []
    found = solve_with(PROBLEM, Budget(12.0, on_plan=told.append), AutoOptions("slow", ("bestfit", "greedy")))
    best = min(latency(PROBLEM, solved(name, PROBLEM)) for name in ("slow", "bestfit", "greedy"))
    assert latency(PROBLEM, found) <= best * (1 + 1e-9)
    assert found.planner == "auto"
    assert found.info["member"] in ("bestfit", "greedy")
    assert "failed" not in found.info
    latencies = [latency(PROBLEM, plan) for plan in told]
    assert latencies == sorted(set(latencies), reverse=True)
    assert found.info["bound"] <= latencies[-1]


def test_it_ends_at_once_when_the_first_plan_reaches_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "Member", None)
    problem = next(
        problem
        for problem in (seeded_problem(seed, 3) for seed in range(50))
        if latency(problem, solved("greedy", problem)) <= auto._BestPlan(problem, Budget()).bound
    )
    assert solve_with(problem, Budget(60.0), AutoOptions()).info["member"] == "greedy"


def test_a_bound_that_a_member_proves_ends_it() -> None:
    best = auto._BestPlan(PROBLEM, Budget())
    plan = solved("greedy", PROBLEM)
    best.hear(plan)
    assert not best.is_optimal
    best.hear(Plan(**{**vars(plan), "info": {"bound": latency(PROBLEM, plan)}}))
    assert best.is_optimal


def test_members_that_fail_are_named_and_the_others_count() -> None:
    found = solve_with(PROBLEM, Budget(20.0), AutoOptions("xla", ("nonsense", "greedy"), processes=1))
    assert latency(PROBLEM, found) <= latency(PROBLEM, solved("greedy", PROBLEM)) * (1 + 1e-9)
    assert "no planner is called 'nonsense'" in found.info["failed"]["nonsense"]
    assert "carries no mapping" in found.info["failed"]["xla"]


def test_without_any_plan_the_first_reason_is_told() -> None:
    with pytest.raises(PlannerError, match="carries no mapping of its own"):
        solve_with(PROBLEM, Budget(10.0), AutoOptions("xla", ("xla",)))


def test_a_process_that_is_killed_is_a_member_that_failed() -> None:
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    member = Member("greedy", seeded_problem(1, 400), Budget(60.0), news)
    os.kill(member._process.pid, signal.SIGKILL)
    told = news.get(timeout=60)
    while told.plan is not None:
        told = news.get(timeout=60)
    assert told.error == "its process ended without a word"
    member.stop()


def test_a_process_ends_with_whoever_started_it() -> None:
    member = Member("greedy", PROBLEM, Budget(60.0), queue.SimpleQueue())
    assert member._process.stdin is not None
    member._process.stdin.close()
    assert member._process.wait(timeout=60) is not None


def test_an_interrupt_returns_the_best_plan_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []

    class Interrupting(Member):
        def __init__(self, name: str, *rest: Any):
            super().__init__(name, *rest)
            if name == "bestfit":
                raise KeyboardInterrupt

        def stop(self) -> None:
            stopped.append(self.planner)
            super().stop()

    monkeypatch.setattr(auto, "Member", Interrupting)
    started = time.monotonic()
    found = solve_with(PROBLEM, Budget(300.0), AutoOptions("slow", ("greedy", "bestfit")))
    assert latency(PROBLEM, found) <= latency(PROBLEM, solved("slow", PROBLEM))
    assert time.monotonic() - started < 200
    assert stopped == ["greedy"]


def test_an_interrupt_before_any_plan_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(problem: MappingProblem, budget: Budget) -> Plan:
        raise KeyboardInterrupt

    planner.register(Planner("interrupted", "", interrupted))
    with pytest.raises(KeyboardInterrupt):
        solve_with(PROBLEM, Budget(10.0), AutoOptions("interrupted", ("greedy",)))
    planner._registry._items.pop("interrupted")


def test_members_are_the_planners_whose_role_says_so() -> None:
    options = AutoOptions()
    assert options.first == "greedy"
    assert options.members == ("search", "ilp")
    assert options.later == ("hybrid",)
    solve = planner.get("slow").solve
    for name, role in (("a seeded one", Role.SEEDED), ("a member", Role.MEMBER), ("a later one", Role.LATER)):
        planner.register(Planner(name, "", solve, role=role))
    with_others = AutoOptions()
    assert with_others.members == ("a seeded one", "search", "a member", "ilp")
    assert with_others.later == ("a later one", "hybrid")
    for name in ("a seeded one", "a member", "a later one"):
        planner._registry._items.pop(name)


def test_cores_that_are_left_get_later_members_then_the_first_with_other_seeds() -> None:
    planner.register(Planner("needy", "", planner.get("slow").solve, needs=("no_such_library",)))
    options = AutoOptions(members=("search", "ilp"), later=("bestfit", "of another package", "needy"))
    entries = auto._entries(options, 7, time.monotonic() + 1000.0)
    expected = [("search", 7), ("ilp", 7), ("bestfit", 7), ("search", 8), ("search", 9)]
    assert [next(entries) for _ in expected] == expected
    planner._registry._items.pop("needy")
    in_a_hurry = auto._entries(options, 7, time.monotonic() + 1.0)
    assert [next(in_a_hurry) for _ in range(3)] == [("search", 7), ("ilp", 7), ("search", 8)]
    assert AutoOptions(members=("a", "b"), processes=1).num_processes == 2
    assert AutoOptions(members=("a", "b"), processes=5).num_processes == 5
