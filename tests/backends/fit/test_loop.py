"""The loop of limits, with a planner and a compiler that are formulas."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from memplan.backends.fit import loop
from memplan.backends.fit.compilers import CompiledFit, StatedMemory
from memplan.backends.fit.loop import FitCandidate, FitLoop, calibrate, cheapest_that_fits
from memplan.backends.fit.result import CannotFitError, FitAttempt
from memplan.planners.fit.plan import FitPlan, Run
from memplan.planners.fit.problem import FitNode, FitProblem, FitValue
from memplan.planners.fit.verifier import verify_fit

LIMIT = 100_000


def found(
    monkeypatch: pytest.MonkeyPatch, stated: Callable[[int], int], budget: int = 8, step: int = 1
) -> tuple[int | None, list[int]]:
    """Runs the loop where a plan costs what it saves of 300,000 bytes, in steps.

    Returns the peak of the best plan, and the peaks that were compiled.
    """
    variant: Any = SimpleNamespace(added=0.0, program=SimpleNamespace(seconds=1e6))
    search = FitLoop(LIMIT, None, None, budget, (), "program", variants=[variant])  # type: ignore[arg-type]
    peaks: list[int] = []

    def cheapest(search: FitLoop, model_limit: int) -> FitCandidate | None:
        peak = model_limit // step * step
        candidate = FitCandidate(variant, FitPlan((), peak, float(3 * LIMIT - peak)), model_limit)
        return None if peak in peaks else candidate

    def compiled(search: FitLoop, candidate: FitCandidate, model_limit: int) -> tuple[None, CompiledFit]:
        peaks.append(candidate.plan.peak)
        needs = stated(candidate.plan.peak)
        search.attempts.append(FitAttempt("plan", 0, needs, candidate.added))
        search.offset = needs - candidate.plan.peak
        return None, CompiledFit(StatedMemory(0, 0, 0, needs))

    monkeypatch.setattr(loop, "_cheapest", cheapest)
    monkeypatch.setattr(loop, "_compiled", compiled)
    try:
        return cheapest_that_fits(search)[0].plan.peak, peaks
    except CannotFitError:
        return None, peaks


def test_limits_between_a_plan_that_fits_and_one_that_does_not_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler needs more of what the model calls a byte, so that the first correction goes too far."""
    best, peaks = found(monkeypatch, lambda peak: 2 * peak - 40_000)
    assert peaks[:2] == [100_000, 40_000]  # the whole overshoot is taken away first
    assert best is not None
    assert 0.97 * 70_000 <= best <= 70_000
    best, peaks = found(monkeypatch, lambda peak: peak + 30_000 if peak > 60_000 else peak + 10_000)
    assert best is not None
    assert 58_000 <= best <= 70_000
    assert len(peaks) < 8


def test_the_budget_ends_the_search_and_the_best_so_far_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, lambda peak: 2 * peak - 40_000, budget=2) == (40_000, [100_000, 40_000])
    assert found(monkeypatch, lambda peak: 2 * LIMIT, budget=3)[0] is None


def test_a_plan_that_leaves_little_room_is_good_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, lambda peak: peak - 1000) == (100_000, [100_000])
    best, peaks = found(monkeypatch, lambda peak: peak // 2)
    assert best == max(peaks) > 190_000


def test_limits_that_bring_no_cheaper_plan_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner knows few plans: one fits, and the next larger one does not."""
    best, peaks = found(monkeypatch, lambda peak: 2 * peak - 40_000, step=32_000)
    assert best == max(peak for peak in peaks if 2 * peak - 40_000 <= LIMIT)
    assert len(peaks) == len(set(peaks))


@pytest.mark.parametrize(("stated", "beyond"), [(1003, 1), (1002, 0), (500, 0), (103, 0), (60, -43)])
def test_an_order_of_the_compiler_is_no_fault_of_the_model(stated: int, beyond: int) -> None:
    """As written, ten large values stand at once; in the best order one does, besides the sums of those before."""
    values, nodes = [FitValue("x", 1)], []
    for i in range(10):
        values.append(FitValue(f"large{i}", 100, i))
        nodes.append(FitNode(f"make{i}", (0,), (i + 1,), 1.0))
    for i in range(10):
        reads = (i + 1,) if i == 0 else (i + 1, 10 + i)
        values.append(FitValue(f"sum{i}", 1, 10 + i, is_result=i == 9))
        nodes.append(FitNode(f"reduce{i}", reads, (11 + i,), 1.0))
    problem = FitProblem(tuple(values), tuple(nodes))
    written = FitPlan(tuple(Run(node) for node in range(20)))
    written = FitPlan(written.steps, verify_fit(problem, written).peak)
    assert written.peak == 1002
    program: Any = SimpleNamespace(problem=problem, as_written=written)
    variant: Any = SimpleNamespace(program=program)
    search = FitLoop(LIMIT, None, None, 1, (), "program", variants=[variant])  # type: ignore[arg-type]
    calibrate(search, CompiledFit(StatedMemory(1, 1, 0, stated - 2)))
    assert search.offset == beyond
