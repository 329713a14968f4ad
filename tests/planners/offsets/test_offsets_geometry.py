"""Sections, loads, companions in time, parts and lower bounds, beside what counting one by one gives."""

import itertools

import numpy as np
from hypothesis import given, settings
from tiny_instances import instances, lowest_height, times_of

from memplan.planners.offsets.bounds import lower_bound, maximum_load
from memplan.planners.offsets.geometry import Sections, components, overlaps
from memplan.planners.offsets.instance import Instance


@given(instances())
@settings(max_examples=80)
def test_companions_share_a_time(instance: Instance) -> None:
    pointer, other = overlaps(Sections.of(instance))
    for block in range(len(instance)):
        companions = [
            number
            for number in range(len(instance))
            if number != block and times_of(instance, number) & times_of(instance, block)
        ]
        assert other[pointer[block] : pointer[block + 1]].tolist() == companions


@given(instances())
@settings(max_examples=80)
def test_loads(instance: Instance) -> None:
    loads = [
        sum(int(instance.size[block]) for block in range(len(instance)) if time in times_of(instance, block))
        for time in range(int(instance.upper.max()))
    ]
    sections = Sections.of(instance)
    assert maximum_load(instance) == max(loads)
    most = sections.most(sections.loads(instance.size))
    for block in range(len(instance)):
        assert most[block] == max((loads[time] for time in times_of(instance, block)), default=0)


@given(instances())
@settings(max_examples=80)
def test_parts_share_no_time_and_cannot_be_parted(instance: Instance) -> None:
    parts = components(instance)
    real = np.flatnonzero(instance.size > 0)
    assert sorted(block for part in parts for block in part.tolist()) == real.tolist()
    spans = [(int(instance.lower[part].min()), int(instance.upper[part].max())) for part in parts]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    for part, (start, end) in zip(parts, spans, strict=True):
        for time in range(start + 1, end):
            assert ((instance.lower[part] < time) & (instance.upper[part] > time)).any()


@given(instances(max_blocks=5))
@settings(max_examples=80)
def test_no_packing_is_below_the_bound(instance: Instance) -> None:
    assert maximum_load(instance) <= lower_bound(instance) <= lowest_height(instance)


def test_alignment_and_fixed_offsets_raise_the_bound() -> None:
    assert lower_bound(Instance.of([0, 0], [1, 1], [3, 3], alignment=[4, 4])) == 7
    assert lower_bound(Instance.of([0, 5], [1, 6], [3, 3], fixed=[7, -1])) == 10
    assert lower_bound(Instance.of([], [], [])) == 0


@given(instances())
@settings(max_examples=60)
def test_the_largest_of_each_section(instance: Instance) -> None:
    sections = Sections.of(instance)
    amount = np.arange(len(instance)) * 7 % 5
    expected = [0] * sections.count
    for block, first, last in zip(sections.block_of_range(), sections.first, sections.last, strict=True):
        for section in range(first, last):
            expected[section] = max(expected[section], int(amount[block]))
    assert sections.largest(amount).tolist() == expected
