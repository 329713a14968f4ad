"""Window cuts: no integer solution breaks one, whatever the prices, and they raise bounds that hold for all plans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from exhaustive import best_latency
from random_problems import REAL, TINY, seeded_problem

from memplan.compiler.effort import Guard
from memplan.planners.bound import lower_bound
from memplan.planners.ilp import window_cuts
from memplan.planners.ilp.cutting import cut_relaxation, window_bound
from memplan.planners.ilp.integer_solver import run
from memplan.planners.ilp.linear import Rows
from memplan.planners.ilp.model import Precision, Relaxation
from memplan.planners.ilp.relaxation import relax
from memplan.planners.ilp.window_cuts import WindowCut, WindowCuts, priced

WORK = 1e11


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_cuts, "_LENGTH", 4)


def modelled(seed: int, length: int, kind: object) -> Relaxation:
    return relax(seeded_problem(seed, length, kind, 1), precision=Precision(whole=True))


def cuts_of(model: Relaxation) -> tuple[Rows, list[WindowCut]]:
    """Returns the rows of a model with other cuts, and the window cuts that its linear program's solution breaks."""
    found = cut_relaxation(model, WORK, Guard())
    assert found.last.values is not None
    assert found.last.duals is not None
    return found.rows, WindowCuts(model, WORK, Guard()).separated(found.rows, found.last.values, found.last.duals)


def least_of(rows: Rows, cut: WindowCut) -> float:
    """Returns what an integer solution makes of a cut at least, by branch and bound of the whole program."""
    cost = np.zeros(len(rows.low))
    cost[cut.columns] = cut.coefficients
    solution = run(replace(rows, cost=cost, constant=0.0), 2000, 60.0, 1e-7)
    assert solution.is_optimal
    assert solution.values is not None
    return float(cut.coefficients @ solution.values[cut.columns])


@pytest.mark.slow
def test_no_integer_solution_breaks_a_cut() -> None:
    checked = 0
    for kind, length, seeds in ((REAL, 12, 6), (TINY, 8, 15)):
        for seed in range(seeds):
            rows, cuts = cuts_of(modelled(seed, length, kind))
            for cut in cuts:
                assert cut.breach > 0.0
                assert least_of(rows, cut) >= cut.least - 1e-6
                checked += 1
    assert checked >= 5


def test_a_cut_holds_whatever_the_prices() -> None:
    generator, checked = np.random.default_rng(0), 0
    for seed in range(6):
        model = modelled(seed, 10, TINY)
        found = cut_relaxation(model, WORK, Guard())
        assert found.last.values is not None
        assert found.last.duals is not None
        duals = found.last.duals * generator.uniform(0.0, 2.0, len(found.last.duals))
        for cut in WindowCuts(model, WORK, Guard()).separated(found.rows, found.last.values, duals):
            assert least_of(found.rows, cut) >= cut.least - 1e-6
            checked += 1
    assert checked >= 3


def test_the_program_of_a_window_has_the_rows_of_its_columns_and_prices_for_the_others() -> None:
    rows = Rows(
        low=np.zeros(3), high=np.ones(3), cost=np.array([1.0, 2.0, 3.0]), is_integer=np.array([True, True, False]),
        row_low=np.full(2, -np.inf), row_high=np.array([5.0, 6.0]),
        rows=np.array([0, 0, 1, 1]), columns=np.array([0, 1, 1, 2]), values=np.array([1.0, 4.0, 2.0, 7.0]), constant=9.0,
    )  # fmt: skip
    columns, part = priced(rows, np.array([-10.0, -0.5]), np.array([True, True, False]))
    assert columns.tolist() == [0, 1]
    assert part.cost.tolist() == [1.0, 2.0 + 0.5 * 2.0]
    assert part.row_high.tolist() == [5.0]
    assert (part.rows.tolist(), part.columns.tolist(), part.values.tolist()) == ([0, 0], [0, 1], [1.0, 4.0])


@pytest.mark.slow
def test_cuts_of_windows_raise_bounds() -> None:
    raised, seeds = 0, iter(range(12))
    while raised < 2:
        seed = next(seeds)
        model = modelled(seed, 12, TINY)
        found = cut_relaxation(model, WORK, Guard())
        bound = window_bound(model, found, WORK, Guard())
        assert bound >= found.bound
        raised += bound > found.bound * (1.0 + 1e-5)
        optimum = run(model.program.finished(), 2000, 60.0, 1e-7)
        assert optimum.values is not None
        assert bound <= model.program.constant + np.array(model.program.cost) @ optimum.values + 1e-6


@pytest.mark.slow
def test_no_plan_of_a_tiny_problem_beats_a_bound_with_cuts_of_windows() -> None:
    compared = 0
    for seed in range(40):
        mapped = seeded_problem(seed, 3, TINY, 0)
        if mapped.cross_program_prefetches or (best := best_latency(mapped)) is None:
            continue
        compared += 1
        bound = lower_bound(mapped)
        assert bound.checked <= bound.value <= best * (1.0 + 1e-9), seed
    assert compared >= 5


def test_without_work_there_are_no_cuts() -> None:
    model = modelled(0, 12, TINY)
    found = cut_relaxation(model, WORK, Guard())
    assert window_bound(model, found, 0.0, Guard()) == found.bound
