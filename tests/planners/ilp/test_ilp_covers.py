"""Cover cuts: no choice that fits breaks one, they cut the solution off, and they raise bounds that hold for all plans."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_problems import problem
from random_problems import REAL, seeded_problem
from thorough import examples

from memplan.compiler.effort import Guard
from memplan.planners.ilp.covers import lightest, separated
from memplan.planners.ilp.cutting import cut_relaxation, row_of
from memplan.planners.ilp.integer_solver import run
from memplan.planners.ilp.knapsacks import Knapsack, filled, knapsacks
from memplan.planners.ilp.model import Precision
from memplan.planners.ilp.relaxation import relax
from memplan.planners.ilp.simplex import Simplex

WORK = 1e10


def row(weights: list[int], room: int) -> Knapsack:
    return Knapsack(1, 0, np.arange(len(weights)), np.array(weights, np.int64), room)


def choices(knapsack: Knapsack) -> np.ndarray:
    """Returns all choices of columns that fit, by enumeration."""
    every = np.array(list(product((0, 1), repeat=len(knapsack.columns))), np.int64)
    return every[every @ knapsack.weights <= knapsack.room]


@settings(max_examples=300)
@given(
    weights=st.lists(st.integers(1, 30), min_size=1, max_size=9),
    room=st.integers(0, 60),
    data=st.data(),
)
def test_no_choice_that_fits_breaks_a_cut(weights: list[int], room: int, data: st.DataObject) -> None:
    knapsack = row(weights, room)
    parts = data.draw(st.lists(st.floats(0.0, 1.0), min_size=len(weights), max_size=len(weights)))
    values = np.array(parts)
    fitting = choices(knapsack)
    for cut in separated([knapsack], values, 10):
        assert (fitting @ cut.coefficients).max(initial=0) <= cut.limit
        assert cut.is_valid
        assert cut.coefficients @ values > cut.limit
        # The cover is minimal, and each of its columns counts.
        cover = list(cut.cover)
        assert knapsack.weights[cover].sum() > room
        assert all(knapsack.weights[[other for other in cover if other != one]].sum() <= room for one in cover)
        assert (cut.coefficients[cover] == 1).all()


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), max_size=7), st.integers(0, 8))
def test_the_lightest_choice_of_a_value_is_found(items: list[tuple[int, int]], most: int) -> None:
    weights, values = (np.array([item[end] for item in items], np.int64) for end in (0, 1))
    least = lightest(weights, values, most)
    every = np.array(list(product((0, 1), repeat=len(items))), np.int64).reshape(2 ** len(items), len(items))
    for value in range(most + 1):
        enough = every[every @ values >= value]
        if len(enough):
            assert least[value] == (enough @ weights).min()
        else:
            assert least[value] > weights.sum()


def test_a_cut_that_a_choice_breaks_is_no_proof() -> None:
    (cut, *_) = separated([row([6, 6, 6], 12)], np.array([0.9, 0.9, 0.9]), 1)
    assert cut.coefficients.tolist() == [1, 1, 1]
    assert cut.limit == 2
    assert cut.is_valid
    assert not replace(cut, limit=1).is_valid
    assert not replace(cut, coefficients=np.array([2, 1, 1])).is_valid


def test_heavy_columns_are_lifted() -> None:
    # Two of the light ones fit; the heavy one fits alone.
    (cut, *_) = separated([row([4, 4, 4, 9], 9)], np.array([0.7, 0.7, 0.7, 0.1]), 1)
    assert cut.coefficients.tolist() == [1, 1, 1, 2]
    assert cut.limit == 2


@pytest.mark.slow
def test_a_knapsack_says_what_the_model_demands_of_memory() -> None:
    for seed in range(4):
        mapped = seeded_problem(seed, 25, REAL, 1)
        model = relax(mapped, precision=Precision(0.5, whole=True))
        rows = model.program.finished()
        solved = run(rows, 200, 60.0, 1e-4)
        assert solved.values is not None
        for knapsack in knapsacks(model):
            assert rows.is_integer[knapsack.columns].all()
            assert knapsack.weights @ solved.values[knapsack.columns] <= knapsack.room * (1.0 + 1e-6) + 1e-6


@pytest.mark.slow
def test_integer_solutions_keep_all_cuts() -> None:
    found = 0
    for seed in range(examples(5, 16)):
        mapped = seeded_problem(seed, 25, REAL, 1)
        model = relax(mapped, precision=Precision(whole=True))
        made = cut_relaxation(model, WORK, Guard())
        if not made.cuts:
            continue
        found += len(made.cuts)
        assert all(cut.is_valid for cut in made.cuts)
        without = run(model.program.finished(), 500, 60.0, 1e-6)
        within = run(made.rows, 500, 60.0, 1e-6)
        assert without.values is not None
        assert within.values is not None
        if without.is_optimal and within.is_optimal:
            objectives = [
                rows.constant + rows.cost @ each.values for rows, each in ((made.rows, without), (made.rows, within))
            ]
            assert objectives[0] == pytest.approx(objectives[1], rel=1e-4)
        assert made.bound <= made.rows.constant + made.rows.cost @ within.values + 1e-6
    assert found > 2


def test_cuts_raise_the_bound_where_halves_would_fit() -> None:
    # Two thirds of each would fit, but only one of them does.
    mapped = problem("w a", "w b", "r a, r b", sizes={"a": 12, "b": 12}, capacity=16)
    model = relax(mapped, precision=Precision(whole=True))
    plain, cut = (Simplex(model.program.finished(), WORK, Guard()).solve().bound, cut_relaxation(model, WORK, Guard()))
    assert len(cut.cuts) >= 1
    assert cut.bound > plain * 1.05
    assert cut.values is not None
    assert filled(knapsacks(model), cut.values)
    columns, coefficients, limit = row_of(cut.cuts[0])
    assert coefficients @ cut.values[columns] <= limit + 1e-6


def test_too_little_work_leaves_a_bound() -> None:
    model = relax(seeded_problem(4, 60, REAL, 1), precision=Precision(whole=True))
    enough = cut_relaxation(model, WORK, Guard())
    little = cut_relaxation(model, 1e3, Guard())
    assert little.values is None
    assert not little.is_done
    assert little.bound <= enough.bound
    over = cut_relaxation(model, WORK, Guard(0.0))
    assert not over.is_done
    assert over.bound <= enough.bound


def test_the_same_model_has_the_same_cuts_and_bound() -> None:
    made = [
        cut_relaxation(relax(seeded_problem(4, 60, REAL, 1), precision=Precision(whole=True)), WORK, Guard())
        for _ in range(2)
    ]
    assert made[0].bound == made[1].bound
    assert [cut.limit for cut in made[0].cuts] == [cut.limit for cut in made[1].cuts]
