"""The planner ilp: valid plans, never worse than greedy's, and no false proof of optimality."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from exhaustive import best_latency
from hypothesis import HealthCheck, given, settings
from literal_problems import loop, problem
from random_problems import REAL, TINY, problems, seeded_problem

from memplan.compiler import child_process
from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator, latency
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import greedy
from memplan.planners.ilp import integer_solver
from memplan.planners.ilp import solve as ilp
from memplan.planners.ilp.solve import OPTIMAL_WITHIN, solve
from memplan.planners.planner import Budget, Effort

SHORT = Budget(Effort.FAST)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(mapped=problems(max_length=7, depth=2))
def test_plans_are_valid_and_never_worse_than_greedys(little_work: None, mapped: MappingProblem) -> None:
    told: list[Plan] = []
    made = solve(mapped, replace(SHORT, on_plan=told.append))
    assert verify(mapped, made) == []
    emulated = latency(mapped, made)
    assert emulated <= latency(mapped, greedy.solve(mapped, SHORT))
    assert made.info["bound"] <= emulated * (1.0 + 1e-9)
    assert TimingEmulator(mapped).lower_bound() <= made.info["bound_checked"] <= made.info["bound"]
    assert made.info["optimal"] == (emulated <= made.info["bound"] * (1.0 + OPTIMAL_WITHIN))
    latencies = [latency(mapped, plan) for plan in told]
    assert latencies == sorted(latencies, reverse=True)
    assert len(set(latencies)) == len(latencies)
    assert latencies[-1] == emulated
    assert all(verify(mapped, plan) == [] for plan in told)


def test_what_it_calls_optimal_no_plan_of_a_tiny_problem_beats() -> None:
    compared = proven = 0
    for seed in range(40):
        mapped = seeded_problem(seed, 3, TINY, 0)
        if mapped.cross_program_prefetches or (best := best_latency(mapped)) is None:
            continue
        compared += 1
        made = solve(mapped, SHORT)
        emulated = latency(mapped, made)
        assert made.info["bound"] <= best * (1.0 + 1e-9), seed
        if made.info["optimal"]:
            proven += 1
            assert emulated <= best * (1.0 + OPTIMAL_WITHIN), seed
    assert compared >= 5
    assert proven >= 0.9 * compared


def test_it_beats_greedy_where_greedy_is_short_sighted(little_work: None) -> None:
    for seed, depth in ((0, 0), (3, 1)):
        mapped = seeded_problem(seed, 12, TINY, depth)
        made = solve(mapped, SHORT)
        assert verify(mapped, made) == []
        assert latency(mapped, made) < latency(mapped, greedy.solve(mapped, SHORT)) * (1.0 - 1e-9)


def test_a_loop_keeps_what_it_reads_in_fast_memory() -> None:
    mapped = problem("w a", "", "r a", "", sizes={"a": 12}, regions=(loop(2, 3, 20.0),))
    made = solve(mapped, SHORT)
    assert made.info["optimal"]
    assert latency(mapped, made) == pytest.approx(21 * 12 / 8)


@pytest.mark.slow
def test_the_same_problem_and_seed_give_the_same_plan(little_work: None) -> None:
    mapped = seeded_problem(3, 12, TINY, 1)
    assert solve(mapped, SHORT) == solve(mapped, SHORT)


def test_an_interrupt_returns_the_best_plan_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = seeded_problem(3, 20, REAL, 1)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(integer_solver.SolverTask, "__init__", interrupt)
    made = solve(mapped, Budget())
    assert verify(mapped, made) == []
    assert latency(mapped, made) <= latency(mapped, greedy.solve(mapped, Budget()))


@pytest.mark.slow
def test_an_interrupt_ends_the_solvers(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    make = child_process.start

    def remembered(*arguments: Any, **options: Any) -> Any:
        started.append(make(*arguments, **options))
        return started[-1]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    mapped = seeded_problem(3, 60, REAL, 1)
    monkeypatch.setattr(child_process, "start", remembered)
    monkeypatch.setattr(ilp, "_greedy_decisions", interrupt)
    made = solve(mapped, SHORT)
    assert verify(mapped, made) == []
    assert len(started) >= 2
    assert all(process.poll() is not None for process in started)


@pytest.mark.slow
def test_programs_whose_first_node_is_too_much_work_are_not_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    mapped = seeded_problem(3, 60, REAL, 1)
    monkeypatch.setattr(ilp, "_WORK", (1, 1, 1))
    monkeypatch.setattr(ilp, "SolverTask", lambda *arguments: started.append(arguments))
    made = solve(mapped, SHORT)
    assert started == []
    assert verify(mapped, made) == []
    assert made.info["method"] in ("greedy", "ruin and recreate")


@pytest.mark.slow
def test_a_long_program_is_improved_window_by_window(little_work: None, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = seeded_problem(4, 70, REAL, 1)
    monkeypatch.setattr(ilp, "_MAX_ACCESSES", 30)
    told: list[Plan] = []
    made = solve(mapped, Budget(Effort.FAST, on_plan=told.append))
    assert verify(mapped, made) == []
    assert made.info["bound"] <= latency(mapped, made) <= latency(mapped, told[0])
    assert made.info["method"] in ("greedy", "integer programs of windows")


@pytest.mark.slow
def test_solvers_get_no_more_time_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    left: list[float] = []
    solve_here = integer_solver.run

    def remembered(rows: Any, work: int, seconds: float, *more: Any) -> Any:
        limits.append(seconds)
        return solve_here(rows, work, seconds, *more)

    monkeypatch.setattr(integer_solver, "run", remembered)
    solve(seeded_problem(0, 25, REAL, 1), Budget(Effort.FAST, time_limit=60.0))
    assert limits
    assert all(0.0 < seconds < 60.0 for seconds in limits)
    solve(seeded_problem(0, 25, REAL, 1), Budget(Effort.FAST))
    left = limits[len(limits) // 2 :]
    assert all(seconds == float("inf") for seconds in left)


def test_a_solver_that_meets_the_guard_says_so() -> None:
    rows = ilp.relax(seeded_problem(4, 60, REAL, 1)).program.finished()
    guard = Guard(0.05)
    integer_solver.SolverTask(rows, 10**6, guard, 1e-9).result()
    assert guard.met


def test_a_solver_that_fails_leaves_a_bound() -> None:
    mapped = seeded_problem(4, 60, REAL, 1)
    task = integer_solver.SolverTask(ilp.relax(mapped).program.finished(), 100, Guard(), 1e-6)
    task.stop()
    result = task.result()
    assert result.bound * ilp.relax(mapped).unit <= latency(mapped, greedy.solve(mapped, SHORT))
