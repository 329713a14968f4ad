"""Reductions: what they leave to be packed is as high as what was to be packed."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_instances import instances, lowest_height

from memplan.planners.offsets.instance import Instance
from memplan.planners.offsets.reduction import reduced, scaled, unit_of


@given(instances(max_blocks=3), st.sampled_from([2, 3]))
@settings(max_examples=25)
def test_units_change_nothing(instance: Instance, factor: int) -> None:
    instance = instance.subset(np.flatnonzero(instance.size > 0))
    if not len(instance):
        return
    larger = Instance.of(
        instance.lower,
        instance.upper,
        factor * instance.size,
        instance.alignment,
        [int(factor * fixed) if fixed >= 0 else -1 for fixed in instance.fixed],
    )
    unit = unit_of(larger)
    small = scaled(larger, unit)
    assert (unit * small.size == larger.size).all()
    assert lowest_height(larger) == unit * lowest_height(small)


@given(instances())
@settings(max_examples=80)
def test_parts_are_as_high_as_the_whole(instance: Instance) -> None:
    parts, _ = reduced(instance)
    heights = [part.base + part.unit * lowest_height(part.instance) for part in parts]
    assert max(heights, default=0) == lowest_height(instance)
    for part in parts:
        assert part.base == instance.size[part.beneath].sum()
        assert part.room(part.base + part.unit) == 1


def test_what_lasts_lies_at_the_bottom_and_the_rest_falls_apart() -> None:
    instance = Instance.of([0, 0, 0, 2, 2], [5, 5, 2, 5, 4], [6, 4, 8, 4, 2])
    parts, offsets = reduced(instance)
    assert offsets[:2].tolist() == [0, 6]
    found = {tuple(part.blocks.tolist()): (part.base, part.unit, part.beneath.tolist()) for part in parts}
    # Block 3 lasts as long as its part of the time, and lies beneath block 4.
    assert found == {(2,): (10, 8, [0, 1]), (4,): (14, 2, [0, 1, 3])}
    assert offsets[3] == 10


def test_alignment_and_fixed_offsets_keep_what_lasts_where_it_can_be() -> None:
    parts, _ = reduced(Instance.of([0, 0], [5, 2], [3, 4], fixed=[-1, 1]))
    assert [part.base for part in parts] == [0]
    parts, _ = reduced(Instance.of([0, 0], [5, 2], [3, 4], alignment=[1, 2]))
    assert [part.base for part in parts] == [0]
