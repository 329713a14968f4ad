"""Contended problems: the planted plan is valid and takes the stated time, and nothing is faster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from memplan import planners
from memplan.compiler.effort import Effort
from memplan.compiler.emulator.timing import latency
from memplan.compiler.mapping.contended import CAPACITY, ContendedProblem, placement_problem, prefetch_problem
from memplan.compiler.mapping.verify import verify
from memplan.planners.planner import Budget

Make = Callable[..., ContendedProblem]

BOTH = pytest.mark.parametrize("make", [placement_problem, prefetch_problem])
LOOPS = pytest.mark.parametrize("in_loops", [False, True])


@BOTH
@LOOPS
@pytest.mark.parametrize("ratio", [1, 2, 8])
def test_the_planted_plan_is_valid_and_takes_the_stated_time(make: Make, in_loops: bool, ratio: int) -> None:
    made = make(1500, ratio, in_loops, seed=ratio)
    made.problem.check()
    assert made.problem.end == 1500
    assert verify(made.problem, made.plan) == []
    assert latency(made.problem, made.plan) == pytest.approx(made.optimum, rel=1e-12)
    assert any(region.trip_count > 1 for region in made.problem.regions) == in_loops


@LOOPS
@pytest.mark.parametrize("ratio", [2, 8])
def test_the_memory_is_over_subscribed_as_stated(in_loops: bool, ratio: int) -> None:
    problem = placement_problem(400, ratio, in_loops).problem
    load = np.zeros(problem.end)
    for buffer in problem.buffers:
        load[buffer.start : buffer.end] += buffer.size
    assert load[load > 0].mean() == pytest.approx(ratio * CAPACITY, rel=0.15)
    phases = prefetch_problem(1000, ratio, in_loops).problem
    fills = sum(operation.opcode == "fill" for operation in phases.operations)
    assert sum(buffer.size for buffer in phases.buffers) == pytest.approx(ratio * CAPACITY * fills, rel=0.15)


@BOTH
def test_equal_arguments_give_equal_problems(make: Make) -> None:
    assert make(300, seed=3) == make(300, seed=3)
    assert make(300, seed=3).problem != make(300, seed=4).problem


@BOTH
@pytest.mark.parametrize(("ratio", "parts"), [(0, 4), (2, 0)])
def test_nonsense_is_refused(make: Make, ratio: int, parts: int) -> None:
    with pytest.raises(ValueError, match="make no problem"):
        make(100, ratio, parts=parts)


def most_saved(made: ContendedProblem) -> float:
    """Returns the most seconds that buffers in fast memory save, by enumeration of those that are in it together."""
    problem = made.problem
    saves = np.zeros(len(problem.buffers))
    for time, access in problem.accesses:
        saves[access.buffer] += problem.runs_at(time) * (access.cost[0] - access.cost[1])
    best = 0.0
    waiting = [(0, 0.0, np.zeros(problem.end + 1, np.int64))]
    while waiting:
        number, saved, load = waiting.pop()
        best = max(best, saved)
        if number == len(saves):
            continue
        waiting.append((number + 1, saved, load))
        buffer, more = problem.buffers[number], load.copy()
        more[buffer.start : buffer.end] += buffer.size
        if more.max() <= CAPACITY:
            waiting.append((number + 1, saved + saves[number], more))
    return best


@LOOPS
@pytest.mark.parametrize("seed", range(4))
def test_no_choice_of_buffers_saves_more_than_the_planted_one(in_loops: bool, seed: int) -> None:
    made = placement_problem(34, 2, in_loops, seed, parts=2)
    slow = latency(made.problem, planners.get("slow").plan(made.problem, Budget()))
    assert slow - most_saved(made) == pytest.approx(made.optimum, rel=1e-12)


@pytest.mark.parametrize(("in_loops", "size"), [(False, 30), (True, 18)])
@pytest.mark.parametrize("seed", range(2))
def test_the_optimum_of_copies_is_proven(in_loops: bool, size: int, seed: int) -> None:
    made = prefetch_problem(size, 2, in_loops, seed, parts=2)
    plan = planners.get("ilp").plan(made.problem, Budget(Effort.NORMAL))
    assert latency(made.problem, plan) == pytest.approx(made.optimum, rel=1e-9)
    assert plan.info["bound"] == pytest.approx(made.optimum, rel=1e-6)
