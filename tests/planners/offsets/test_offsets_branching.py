"""The exact search, beside a solver that tries every offset; each technique on and off."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_instances import can_fit, hard, instances, lowest_height

from memplan.planners.offsets.bounds import lower_bound
from memplan.planners.offsets.branching import (
    EXHAUSTED,
    FOUND,
    LIMIT,
    BranchAndBound,
    RestartedSearch,
    Techniques,
    luby,
)
from memplan.planners.offsets.check import check
from memplan.planners.offsets.instance import Instance

TECHNIQUES = {
    "all": Techniques(reordering=True),
    "none": Techniques(False, False, False, False),
    "no sections": Techniques(sections=False),
    "no dominance": Techniques(dominance=False),
    "no blocked": Techniques(blocked=False),
    "no decomposition": Techniques(decomposition=False),
}
NEVER = np.zeros(1, np.int64)


@given(instances(), st.integers(-2, 1), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_it_finds_offsets_where_there_are_some(instance: Instance, more: int, shuffle: object) -> None:
    instance = instance.subset(np.flatnonzero(instance.size > 0))
    if not len(instance):
        return
    capacity = max(0, lowest_height(instance) + more)
    order = np.array(shuffle.sample(range(len(instance)), len(instance)))  # type: ignore[attr-defined]
    expected = FOUND if can_fit(instance, capacity) else EXHAUSTED
    nodes = {}
    for name, techniques in TECHNIQUES.items():
        outcome, offsets, _, nodes[name] = BranchAndBound(instance, capacity).run(order, 10**6, NEVER, techniques)
        assert outcome == expected, name
        if outcome == FOUND:
            assert check(instance, offsets, capacity) == []
    # Decomposition begins each part with a node of its own.
    assert nodes["all"] <= nodes["none"] + len(instance) or expected == FOUND


def test_limits_and_the_flag_of_other_threads_end_it() -> None:
    instance = hard()
    search = BranchAndBound(instance, lower_bound(instance))
    order = np.arange(len(instance))
    outcome, _, conflicts, nodes = search.run(order, 5000, NEVER, Techniques())
    assert (outcome, nodes) == (LIMIT, 5000)
    assert conflicts.sum() > 0
    stopped = np.ones(1, np.int64)
    assert search.run(order, 10**9, stopped, Techniques())[0] == LIMIT
    for restarted in (search.fixed_orders(), search.random_orders(0)):
        assert restarted.go_on(10**9, stopped)[0] == LIMIT


@pytest.mark.parametrize("make", [BranchAndBound.fixed_orders, lambda search: search.random_orders(3)])
def test_a_search_that_goes_on_is_the_search_that_was_not_interrupted(
    make: Callable[[BranchAndBound], RestartedSearch],
) -> None:
    draw = np.random.default_rng(2)
    lower = draw.integers(0, 20, 14)
    instance = Instance.of(lower, lower + draw.integers(1, 12, 14), draw.integers(1, 20, 14))
    search = BranchAndBound(instance, lower_bound(instance))
    outcome, offsets = make(search).go_on(10**9, NEVER)
    assert outcome != LIMIT
    restarted, nodes, outcomes = make(search), 10, []
    while not outcomes or outcomes[-1] == LIMIT:
        found, again = restarted.go_on(nodes, NEVER)
        outcomes.append(found)
        nodes *= 2
    assert len(outcomes) > 1
    assert found == outcome
    assert again.tolist() == offsets.tolist()


@pytest.mark.parametrize("more", [0, -1])
def test_restarts_come_to_an_end(more: int) -> None:
    # Three high blocks, pairwise alive at once, beside a fourth: 6 bytes are needed at one time, 7 in all.
    instance = Instance.of([0, 1, 2, 0, 3], [2, 3, 4, 1, 5], [2, 3, 2, 3, 3])
    capacity = lowest_height(instance) + more
    expected = FOUND if more == 0 else EXHAUSTED
    search = BranchAndBound(instance, capacity)
    for restarted in (search.fixed_orders(), search.random_orders(1)):
        outcome, offsets = restarted.go_on(10**9, NEVER)
        assert outcome == expected
        if outcome == FOUND:
            assert check(instance, offsets, capacity) == []


@given(instances(max_blocks=8, plain=True), st.integers(0, 8))
@settings(max_examples=60)
def test_rounded_sizes_leave_a_packing_of_the_sizes(instance: Instance, more: int) -> None:
    capacity = lower_bound(instance) + more
    search = BranchAndBound(instance, capacity)
    for grain in search.grains:
        outcome, offsets, _, _ = search.run(np.arange(len(instance)), 10**6, NEVER, Techniques(), grain)
        if outcome == FOUND:
            assert (offsets % grain == 0).all()
            assert check(instance, offsets, capacity) == []


def test_sizes_are_rounded_only_where_that_cannot_break_a_rule() -> None:
    assert BranchAndBound(Instance.of([0, 0], [1, 1], [3, 3]), 8).grains == [2, 3, 4]
    assert BranchAndBound(Instance.of([0, 0], [1, 1], [3, 3]), 6).grains == [3]
    assert BranchAndBound(Instance.of([0, 0], [1, 1], [3, 3], fixed=[0, -1]), 8).grains == []
    assert BranchAndBound(Instance.of([0, 0], [1, 1], [3, 3], alignment=[2, 1]), 8).grains == []


def test_the_same_seed_searches_the_same() -> None:
    instance = Instance.of([0, 1, 2, 0, 3, 1], [2, 3, 4, 1, 5, 4], [2, 3, 2, 3, 3, 1])
    capacity = lowest_height(instance)
    first, second = (
        BranchAndBound(instance, capacity).random_orders(5).go_on(10**9, NEVER)[1].tolist() for _ in range(2)
    )
    assert first == second


def test_lubys_sequence() -> None:
    assert list(itertools.islice(luby(), 15)) == [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8]
