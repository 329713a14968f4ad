"""The kernels of fit: one problem needs all of them."""

from __future__ import annotations

from fit_problems import chain
from numba.core import event

from memplan.planners.fit import preparation
from memplan.planners.fit.plan import FitPlan, Run
from memplan.planners.fit.solve import solve_fit
from memplan.planners.fit.verifier import verify_fit


def test_nothing_is_left_to_compile() -> None:
    preparation.prepare()
    problem = chain(12)
    with event.install_recorder("numba:compile") as recorder:
        solve_fit(problem, 80)
    assert recorder.buffer == []


def test_the_problem_needs_the_search() -> None:
    problem = preparation._problem()
    problem.check()
    plan = FitPlan(tuple(Run(node) for node in range(len(problem.nodes))))
    assert verify_fit(problem, plan).peak > preparation._LIMIT
    assert solve_fit(problem, preparation._LIMIT).cost > 0
