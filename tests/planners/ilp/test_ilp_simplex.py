"""Linear programs that grow: each solution is that of a program written at once, within the work and the time given."""

from __future__ import annotations

import numpy as np
import pytest
from random_problems import REAL, seeded_problem

from memplan.compiler.effort import Guard
from memplan.planners.ilp.linear import LinearProgram, Rows, column
from memplan.planners.ilp.model import Precision
from memplan.planners.ilp.relaxation import relax
from memplan.planners.ilp.simplex import Simplex

WORK = 1e10


def real_rows() -> Rows:
    return relax(seeded_problem(4, 60, REAL, 1), precision=Precision(whole=True)).program.finished()


def test_added_rows_count_like_those_of_the_first_program() -> None:
    program = LinearProgram()
    x, y = (column(program.add_column(0.0, 4.0, cost=cost)) for cost in (-1.0, -2.0))
    program.at_most(x + y, 5.0)
    simplex = Simplex(program.finished(), WORK, Guard())
    assert simplex.solve().bound == pytest.approx(-9.0)
    simplex.add([(np.array([1]), np.array([2.0]), 6.0), (np.array([0, 1]), np.array([1.0, 1.0]), 4.5)])
    solved, grown = simplex.solve(), simplex.rows
    assert solved.bound == pytest.approx(-7.5)
    assert solved.values == pytest.approx([1.5, 3.0])
    at_once = Simplex(grown, WORK, Guard()).solve()
    assert at_once.bound == pytest.approx(solved.bound)
    simplex.add([])
    assert simplex.solve().bound == pytest.approx(-7.5)


def test_a_program_without_columns_has_its_constant() -> None:
    program = LinearProgram()
    program.constant = 3.0
    assert Simplex(program.finished(), WORK, Guard()).solve().bound == pytest.approx(3.0)


def test_the_work_is_counted_and_kept() -> None:
    rows = real_rows()
    enough = Simplex(rows, WORK, Guard())
    best = enough.solve()
    used = WORK - enough.work
    assert best.values is not None
    assert used > 0
    little = Simplex(rows, used / 4, Guard())
    cut_short = little.solve()
    assert cut_short.values is None
    assert cut_short.bound <= best.bound
    assert little.work >= 0.0
    again = Simplex(rows, WORK, Guard())
    assert again.solve().bound == best.bound
    assert again.work == enough.work


def test_a_guard_ends_the_solver() -> None:
    guard = Guard(0.0)
    over = Simplex(real_rows(), WORK, guard).solve()
    assert over.values is None
    assert guard.met


def test_a_solver_says_nothing_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """Members of a portfolio speak to it on their standard output."""
    Simplex(real_rows(), WORK, Guard()).solve()
    assert capfd.readouterr().out == ""
