"""Flight cuts: no integer solution breaks one, and they raise bounds that hold for all plans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_problems import REAL, TINY, seeded_problem

from memplan.compiler.effort import Guard
from memplan.planners.ilp.cutting import cut_relaxation
from memplan.planners.ilp.flights import FlightCut, FlightCuts
from memplan.planners.ilp.integer_solver import run
from memplan.planners.ilp.linear import Rows
from memplan.planners.ilp.model import Precision
from memplan.planners.ilp.relaxation import relax
from memplan.planners.ilp.simplex import Simplex

WORK = 1e10


def cuts_of(seed: int, length: int, kind: object) -> tuple[Rows, list[FlightCut]]:
    """Returns the rows of a small model, and the flight cuts that its linear program's solution breaks."""
    model = relax(seeded_problem(seed, length, kind, 1), precision=Precision(whole=True))
    rows = model.program.finished()
    values = Simplex(rows, WORK, Guard()).solve().values
    assert values is not None
    return rows, FlightCuts(model, rows).separated(values, 3)


def test_no_integer_solution_breaks_a_cut() -> None:
    checked = 0
    for kind, length in ((REAL, 12), (TINY, 8)):
        for seed in range(12):
            rows, cuts = cuts_of(seed, length, kind)
            for cut in cuts:
                # What an integer solution makes of the cut at most, by branch and bound.
                cost = np.zeros(len(rows.low))
                cost[cut.columns] = -cut.coefficients
                most = run(replace(rows, cost=cost, constant=0.0), 2000, 60.0, 1e-7)
                assert most.is_optimal
                assert most.values is not None
                assert cut.coefficients @ most.values[cut.columns] <= cut.limit + 1e-4
                checked += 1
    assert checked >= 10


def test_a_cut_follows_from_the_row_of_its_flight() -> None:
    # Each point that keeps the row, with the flight confined or not, keeps the cut.
    generator, checked = np.random.default_rng(0), 0
    for seed in range(10):
        model = relax(seeded_problem(seed, 25, REAL, 1), precision=Precision(whole=True))
        rows = model.program.finished()
        values = Simplex(rows, WORK, Guard()).solve().values
        assert values is not None
        for cut in FlightCuts(model, rows).separated(values, 5):
            flight = cut.flight
            idle = [part for at, part in model.idle[flight.channel].items() if flight.low <= at < flight.high]
            confined = [number for number, _ in flight.confined.terms]
            for _ in range(50):
                near = generator.random(len(rows.low)) ** 4
                point = rows.low + near * (rows.high - rows.low)
                point[confined] = 0.0
                if sum(part.value(point) for part in idle) >= flight.seconds / model.unit:
                    point[confined[0]] = 1.0
                    checked += 1
                assert cut.coefficients @ point[cut.columns] <= cut.limit + 1e-9
    assert checked >= 10


@pytest.mark.slow
def test_cuts_of_flights_raise_bounds() -> None:
    raised = 0
    for seed in (4, 9, 12, 21):
        model = relax(seeded_problem(seed, 12, TINY, 0), precision=Precision(0.25, whole=True))
        rows = model.program.finished()
        simplex = Simplex(rows, WORK, Guard())
        first = simplex.solve()
        assert first.values is not None
        cuts = FlightCuts(model, rows).separated(first.values, 100)
        simplex.add([(cut.columns, cut.coefficients, cut.limit) for cut in cuts])
        second = simplex.solve()
        assert second.bound >= first.bound * (1.0 - 1e-9)
        raised += second.bound > first.bound * (1.0 + 1e-5)
        optimum = run(rows, 300, 60.0, 1e-6)
        assert optimum.values is not None
        assert cut_relaxation(model, WORK, Guard()).bound <= rows.constant + rows.cost @ optimum.values + 1e-6
    assert raised >= 3
