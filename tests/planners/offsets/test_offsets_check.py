"""The checker, on packings that are right and on ones that break each rule."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_instances import instances, times_of

from memplan.planners.offsets.check import check
from memplan.planners.offsets.instance import Instance

TWO = Instance.of([0, 1], [2, 3], [4, 4], ids=["a", "b"])


def test_right() -> None:
    assert check(TWO, [0, 4]) == []
    assert check(TWO, [0, 4], capacity=8) == []


def test_each_rule() -> None:
    assert check(TWO, [0, 3]) == ["b and a overlap at time 1"]
    assert check(TWO, [0, 4], capacity=7) == ["b: it ends at 8, over the capacity of 7"]
    assert check(TWO, [-4, 4]) == ["a: offset -4 is negative"]
    assert check(TWO, [0]) == ["1 offsets for 2 blocks"]
    aligned = Instance.of([0, 1], [2, 3], [4, 4], alignment=[1, 8], fixed=[2, -1], ids=["a", "b"])
    assert check(aligned, [2, 8]) == []
    assert check(aligned, [2, 6]) == ["b: offset 6 is no multiple of 8"]
    assert check(aligned, [0, 8]) == ["a: offset 0 is not the fixed one, 2"]


def test_a_block_fits_into_the_gap_of_another() -> None:
    instance = Instance.of([0, 3], [9, 6], [4, 4], gaps=[[(3, 6)], []])
    assert check(instance, [0, 0]) == []
    assert check(Instance.of([0, 3], [9, 7], [4, 4], gaps=[[(3, 6)], []]), [0, 0]) != []


@given(instances(), st.data())
@settings(max_examples=150)
def test_it_tells_what_bytes_taken_one_by_one_tell(instance: Instance, data: st.DataObject) -> None:
    offsets = [
        int(fixed) if fixed >= 0 else int(alignment) * data.draw(st.integers(0, 4))
        for fixed, alignment in zip(instance.fixed, instance.alignment, strict=True)
    ]
    taken = [
        (time, byte)
        for block in range(len(instance))
        for time in times_of(instance, block)
        for byte in range(offsets[block], offsets[block] + int(instance.size[block]))
    ]
    assert (check(instance, np.array(offsets)) == []) == (len(taken) == len(set(taken)))
