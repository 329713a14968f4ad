"""Heuristics: every packing is right, and improvement never makes one worse."""

import numpy as np
from hypothesis import given, settings
from tiny_instances import instances

from memplan.compiler.effort import Guard
from memplan.planners.offsets.bounds import lower_bound
from memplan.planners.offsets.check import check
from memplan.planners.offsets.heuristics import Fitter, greedy_by_size
from memplan.planners.offsets.instance import Instance


def without_empty(instance: Instance) -> Instance:
    return instance.subset(np.flatnonzero(instance.size > 0))


@given(instances(max_blocks=10))
@settings(max_examples=100)
def test_every_order_gives_a_right_packing(instance: Instance) -> None:
    instance = without_empty(instance)
    fitter = Fitter(instance)
    heights = []
    for name, order in fitter.orders():
        for is_best_fit in (False, True):
            fitted = fitter.fitted(order, name, lower_bound(instance), is_best_fit)
            assert check(instance, fitted.offsets) == []
            assert fitted.height == int(np.max(fitted.offsets + instance.size, initial=0))
            heights.append(fitted.height)
    if len(instance):
        best = fitter.best(lower_bound(instance), 10_000, 1, Guard())
        assert check(instance, best.offsets) == []
        assert best.height == int(np.max(best.offsets + instance.size)) <= min(heights)
        assert greedy_by_size(instance) in heights


def test_first_fit_takes_the_lowest_gap_and_best_fit_the_smallest() -> None:
    #   10 ┤ ──── c
    #    7 ┤ ════ b      gaps of 3 (0 … 3), 2 (5 … 7) and 1 (9 … 10)
    #    3 ┤ ════ a
    instance = Instance.of([0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], fixed=[3, 7, 10, -1])
    fitter = Fitter(instance)
    order = np.arange(4)
    assert fitter.fitted(order, "number", 12, False).offsets[3] == 0
    assert fitter.fitted(order, "number", 12, True).offsets[3] == 5


def test_a_limit_ends_the_pass() -> None:
    instance = Instance.of([0, 0], [1, 1], [2, 2])
    assert Fitter(instance).fitted(np.arange(2), "number", 0, False, limit=3).height == 2**62


def test_rounds_mend_what_orders_leave() -> None:
    draw = np.random.default_rng(4)
    lower = draw.integers(0, 60, 60)
    instance = Instance.of(lower, lower + draw.integers(1, 30, 60), draw.integers(1, 40, 60))
    fitter = Fitter(instance)
    bound = lower_bound(instance)
    orders = min(
        fitter.fitted(order, name, bound, is_best_fit).height
        for name, order in fitter.orders()
        for is_best_fit in (False, True)
    )
    first = fitter.best(bound, 1_000_000, 0, Guard())
    assert bound <= first.height < orders
    assert first.method == "squeaky wheel"
    again = fitter.best(bound, 1_000_000, 0, Guard())
    assert again.offsets.tolist() == first.offsets.tolist()
    guard = Guard(0.0)
    assert fitter.best(bound, 1_000_000, 0, guard).method == "first fit by size"
    assert guard.met
    assert fitter.best(bound, 1, 0, Guard()).method == "first fit by size"
