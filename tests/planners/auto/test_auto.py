"""The portfolio: as good as its best member, whatever becomes of the others."""

from __future__ import annotations

import dataclasses
import os
import queue
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from random_problems import REAL, TINY, seeded_problem

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import emulate
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import check_belongs, verify
from memplan.planners import planner
from memplan.planners.auto import solve as auto
from memplan.planners.auto.member import Member, News
from memplan.planners.auto.solve import AutoOptions, solve_with
from memplan.planners.planner import Budget, Effort, Planner, Role

PROBLEM = seeded_problem(3, 60)
FAST = Budget(Effort.FAST)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compiles what members run, which would take a cold process longer than the budgets here."""
    for name in ("bestfit", "greedy"):
        solved(name, PROBLEM)


def latency(problem: MappingProblem, plan: Plan) -> float:
    check_belongs(problem, plan)
    assert verify(problem, plan) == []
    return emulate(problem, plan).latency


def solved(name: str, problem: MappingProblem, budget: Budget = FAST) -> Plan:
    return planner.get(name).solve(problem, budget)


@pytest.mark.slow
def test_a_member_that_is_better_than_the_first_wins() -> None:
    told: list[Plan] = []
    found = solve_with(
        PROBLEM, Budget(Effort.FAST, on_plan=told.append), AutoOptions("slow", ("bestfit", "greedy"), last=None)
    )
    best = min(latency(PROBLEM, solved(name, PROBLEM)) for name in ("slow", "bestfit", "greedy"))
    assert latency(PROBLEM, found) <= best * (1 + 1e-9)
    assert found.planner == "auto"
    assert found.info["member"] in ("bestfit", "greedy")
    assert "failed" not in found.info
    assert "stopped" not in found.info
    latencies = [latency(PROBLEM, plan) for plan in told]
    assert latencies == sorted(set(latencies), reverse=True)
    assert found.info["bound"] <= latencies[-1]


def test_it_ends_at_once_when_the_first_plan_reaches_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "Member", None)
    problem = next(
        problem
        for problem in (seeded_problem(seed, 3) for seed in range(50))
        if latency(problem, solved("greedy", problem)) <= auto._Portfolio(problem, Budget()).least
    )
    assert solve_with(problem, Budget(), AutoOptions()).info["member"] == "greedy"


def test_only_what_the_first_members_proved_when_they_had_ended_ends_it() -> None:
    portfolio = auto._Portfolio(PROBLEM, Budget())
    plan = solved("greedy", PROBLEM)
    proof = Plan(**{**vars(plan), "info": {"bound": latency(PROBLEM, plan)}})
    entries = [("first", 0), ("second", 0), ("third", 0)]
    portfolio.found |= {entry: auto._Findings() for entry in entries}
    portfolio.hear(entries[1], proof)
    portfolio.end(entries[1])
    assert not portfolio.is_optimal, "the first has not ended, and may yet have a faster plan"
    portfolio.hear(entries[0], solved("slow", PROBLEM))
    portfolio.end(entries[0])
    assert portfolio.is_optimal
    # What comes after a proof does not count, however early it came.
    portfolio.hear(entries[2], Plan(**{**vars(plan), "info": {"bound": 2.0 * latency(PROBLEM, plan)}}))
    portfolio.end(entries[2])
    result = portfolio.result(everything=False)
    assert result is not None
    assert result.info["bound"] == proof.info["bound"]


def test_of_plans_that_are_equally_fast_the_first_members_counts() -> None:
    plans = [Plan(**{**vars(solved("slow", PROBLEM)), "planner": name}) for name in ("one", "another")]
    for order in ([0, 1], [1, 0]):
        portfolio = auto._Portfolio(PROBLEM, Budget())
        portfolio.found |= {("one", 0): auto._Findings(), ("another", 0): auto._Findings()}
        for number in order:
            portfolio.hear((plans[number].planner, 0), plans[number])
            portfolio.end((plans[number].planner, 0))
        result = portfolio.result(everything=False)
        assert result is not None
        assert result.info["member"] == "one"


def test_the_plan_depends_neither_on_the_number_of_processes_nor_on_the_load_of_the_machine() -> None:
    problem = seeded_problem(3, 7, TINY, 1)
    options = AutoOptions(members=("ilp", "search", "bestfit"))
    alone = solve_with(problem, FAST, dataclasses.replace(options, processes=0))
    spinning = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        assert solve_with(problem, FAST, dataclasses.replace(options, processes=2)) == alone
    finally:
        spinning.kill()
        spinning.wait()


@pytest.mark.slow
def test_a_plan_that_is_known_is_not_made_again() -> None:
    known = solved("greedy", PROBLEM)
    again = planner.get("greedy").solve(PROBLEM, dataclasses.replace(FAST, known=known))
    assert again is known
    assert solved("search", PROBLEM, dataclasses.replace(FAST, known=known)) == solved("search", PROBLEM)


def test_the_time_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = planner.get("auto").plan(seeded_problem(1, 300, REAL), Budget(time_limit=0.5))
    assert found.info["stopped"] == planner.STOPPED


def test_a_limit_that_leaves_no_time_gives_the_plan_without_a_search() -> None:
    problem = seeded_problem(1, 300, REAL)
    found = planner.get("auto").plan(problem, Budget(time_limit=1e-9))
    assert found.info["member"] == "slow"
    assert found.info["stopped"] == planner.STOPPED
    assert latency(problem, found) == latency(problem, solved("slow", problem))


def test_a_limit_that_is_not_reached_changes_nothing() -> None:
    options, problem = AutoOptions(members=("bestfit",)), seeded_problem(0, 40)
    unlimited, limited = (
        solve_with(problem, Budget(Effort.FAST, time_limit=seconds, guard=Guard(seconds)), options)
        for seconds in (None, 1e6)
    )
    assert limited == unlimited
    assert "stopped" not in limited.info


def test_a_plan_that_is_offered_is_not_made_again() -> None:
    offered = dataclasses.replace(solved("slow", PROBLEM), info={"offered": True})
    found = solve_with(PROBLEM, dataclasses.replace(FAST, offered=(offered,)), AutoOptions("slow", (), last=None))
    assert found.info["offered"]


def test_a_plan_that_breaks_rules_counts_as_none() -> None:
    def solve(problem: MappingProblem, budget: Budget) -> Plan:
        plan = solved("slow", problem)
        fast = tuple(dataclasses.replace(r, space=1, offset=0) for r in plan.residencies)
        return dataclasses.replace(plan, residencies=fast, planner="broken")

    planner.register(Planner("broken", "", solve))
    try:
        found = solve_with(PROBLEM, FAST, AutoOptions("broken", ("slow",), last=None))
        assert found.info["member"] == "slow"
        assert "is not valid" in found.info["failed"]["broken"]
        with pytest.raises(PlannerError, match="is not valid"):
            solve_with(PROBLEM, FAST, AutoOptions("broken", ()))
    finally:
        planner._registry._items.pop("broken")


@pytest.mark.slow
def test_members_that_fail_are_named_and_the_others_count() -> None:
    found = solve_with(PROBLEM, FAST, AutoOptions("xla", ("nonsense", "greedy"), processes=1))
    assert latency(PROBLEM, found) <= latency(PROBLEM, solved("greedy", PROBLEM)) * (1 + 1e-9)
    assert "no planner is called 'nonsense'" in found.info["failed"]["nonsense"]
    assert "carries no mapping" in found.info["failed"]["xla"]


def test_without_any_plan_the_first_reason_is_told() -> None:
    with pytest.raises(PlannerError, match="carries no mapping of its own"):
        solve_with(PROBLEM, Budget(), AutoOptions("xla", ("xla",)))


def test_a_process_that_is_killed_is_a_member_that_failed() -> None:
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    member = Member("greedy", seeded_problem(1, 400), Budget(), news)
    os.kill(member._process.pid, signal.SIGKILL)
    told = news.get(timeout=60)
    while told.plan is not None:
        told = news.get(timeout=60)
    assert told.error == "its process ended without a word"
    member.stop()


def test_a_process_ends_with_whoever_started_it() -> None:
    member = Member("greedy", PROBLEM, Budget(), queue.SimpleQueue())
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
    found = solve_with(PROBLEM, Budget(), AutoOptions("slow", ("greedy", "bestfit")))
    assert latency(PROBLEM, found) <= latency(PROBLEM, solved("slow", PROBLEM))
    assert time.monotonic() - started < 200
    assert stopped == ["greedy"]


def test_an_interrupt_before_any_plan_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(problem: MappingProblem, budget: Budget) -> Plan:
        raise KeyboardInterrupt

    planner.register(Planner("interrupted", "", interrupted))
    with pytest.raises(KeyboardInterrupt):
        solve_with(PROBLEM, Budget(), AutoOptions("interrupted", ("greedy",)))
    planner._registry._items.pop("interrupted")


def test_members_are_the_planners_whose_role_says_so() -> None:
    options = AutoOptions()
    assert options.first == "greedy"
    assert options.entries(Effort.FAST, 7) == [("search", 7)]
    assert options.entries(Effort.NORMAL, 7) == [("ilp", 7), ("search", 7)]
    solve = planner.get("slow").solve
    others = [
        Planner("a seeded one", "", solve, role=Role.SEEDED),
        Planner("a member", "", solve, role=Role.MEMBER),
    ]
    for other in others:
        planner.register(other)
    try:
        assert options.entries(Effort.FAST, 0) == [("a seeded one", 0), ("search", 0)]
        assert options.entries(Effort.NORMAL, 0) == [("a member", 0), ("ilp", 0), ("a seeded one", 0), ("search", 0)]
        high = options.entries(Effort.HIGH, 0)
        assert [seed for name, seed in high if name == "search"] == [0, 1, 2]
        assert high[-1] == ("neighbourhoods", 0)
        assert options.entries(Effort.NORMAL, 0, 10_000) == []
        assert options.entries(Effort.HIGH, 0, 10_000) == high
    finally:
        for other in others:
            planner._registry._items.pop(other.name)
