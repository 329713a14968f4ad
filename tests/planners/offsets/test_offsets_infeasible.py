"""Subsets that do not fit: none of their blocks can be left out."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_instances import can_fit, instances, lowest_height

from memplan.compiler.effort import Guard
from memplan.planners.offsets.infeasible import irreducible_infeasible_subset
from memplan.planners.offsets.instance import Instance
from memplan.planners.offsets.pack import pack


@given(instances(max_blocks=8), st.integers(1, 3))
@settings(max_examples=50)
def test_a_subset_does_not_fit_and_does_without_any_block(instance: Instance, less: int) -> None:
    capacity = lowest_height(instance) - less
    if capacity < 0:
        return
    for within in (None, pack(instance, capacity).conflict):
        subset = irreducible_infeasible_subset(instance, capacity, within=within)
        assert subset is not None
        assert subset.irreducible
        assert not can_fit(instance.subset(subset.blocks), capacity)
        for block in subset.blocks:
            assert can_fit(instance.subset(np.setdiff1d(subset.blocks, [block])), capacity)


def test_what_fits_has_none() -> None:
    assert irreducible_infeasible_subset(Instance.of([0], [1], [4]), 4) is None


def test_without_time_the_subset_may_be_reducible() -> None:
    instance = Instance.of([0] * 5, [1] * 5, [3, 3, 3, 1, 1])
    subset = irreducible_infeasible_subset(instance, 5, guard=Guard(0.0))
    assert subset is not None
    assert not can_fit(instance.subset(subset.blocks), 5)
