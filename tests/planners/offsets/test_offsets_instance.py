"""Instances: what is accepted, and one clear message for what is not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from tiny_instances import instances, times_of

from memplan.planners.offsets.instance import Block, Instance, InstanceError


def test_intervals_leave_gaps_out() -> None:
    instance = Instance.of([0, 2], [10, 5], [1, 1], gaps=[[(6, 8), (2, 3), (0, 1)], []])
    block, lower, upper = instance.intervals()
    assert list(zip(block.tolist(), lower.tolist(), upper.tolist(), strict=True)) == [
        (0, 1, 2), (0, 3, 6), (0, 8, 10), (1, 2, 5),
    ]  # fmt: skip


@given(instances())
@settings(max_examples=60)
def test_intervals_are_the_times_of_each_block(instance: Instance) -> None:
    found: list[set[int]] = [set() for _ in range(len(instance))]
    for block, lower, upper in zip(*instance.intervals(), strict=True):
        assert lower < upper
        found[block] |= set(range(lower, upper))
    assert found == [times_of(instance, block) for block in range(len(instance))]


@given(instances())
@settings(max_examples=60)
def test_a_subset_keeps_what_its_blocks_are(instance: Instance) -> None:
    chosen = np.arange(len(instance))[::-2]
    part = instance.subset(chosen)
    for position, block in enumerate(chosen.tolist()):
        assert times_of(part, position) == times_of(instance, block)
        assert part.ids[position] == instance.ids[block]
        assert (part.size[position], part.fixed[position]) == (instance.size[block], instance.fixed[block])
    assert (np.diff(part.gap_block) >= 0).all()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "reversed": ({"upper": [0, 2]}, "block '0': upper 0 must be greater than lower 0"),
    "negative time": ({"lower": [-1, 0]}, "block '0': lower -1 is negative"),
    "negative size": ({"size": [1, -4]}, "block '1': size -4 is negative"),
    "alignment": ({"alignment": [1, 0]}, "block '1': alignment 0 is not positive"),
    "fixed below 0": ({"fixed": [-2, -1]}, "block '0': offset -2 is negative"),
    "fixed not aligned": ({"fixed": [3, -1], "alignment": [2, 1]}, "block '0': offset 3 is no multiple"),
    "gap outside": ({"gaps": [[(0, 9)], []]}, "block '0': gap 0-9 is not within 0-2"),
    "gap reversed": ({"gaps": [[], [(1, 1)]]}, "block '1': gap 1-1 is empty or reversed"),
    "gaps overlap": ({"upper": [9, 2], "gaps": [[(1, 4), (3, 5)], []]}, "block '0': gap 3-5 overlaps the gap before"),
    "ids twice": ({"ids": ["a", "a"]}, "block 'a': id 'a' is taken"),
    "fixed overlap": ({"fixed": [0, 1], "size": [2, 2]}, "block '1': its fixed offset overlaps that of block '0'"),
    "too large": ({"size": [2**63, 1]}, "block '0': size 9223372036854775808 does not fit 64 bits"),
    "sum too large": ({"size": [2**60, 2**60 + 1]}, "block '1': the sum of the sizes up to here overflows"),
    "offset and size": ({"fixed": [2**61, -1]}, "block '0': the sum of the sizes up to here overflows"),
    "lengths": ({"size": [1, 1, 1]}, "2 entries of lower for 3 blocks"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense(what: str) -> None:
    changed, message = WRONG[what]
    right: dict[str, Any] = {"lower": [0, 0], "upper": [2, 2], "size": [1, 1]}
    Instance.of(**right)
    with pytest.raises(InstanceError) as error:
        Instance.of(**{**right, **changed})
    assert str(error.value).startswith(message)


def test_fixed_blocks_may_share_bytes_at_other_times() -> None:
    Instance.of([0, 2], [2, 4], [3, 3], fixed=[0, 1])
    Instance.of([0, 1], [4, 2], [3, 3], fixed=[0, 1], gaps=[[(1, 2)], []])


def test_sizes_over_the_capacity() -> None:
    instance = Instance.of([0, 0], [1, 1], [3, 8], fixed=[6, -1], ids=["a", "b"])
    instance.check_capacity(9)
    with pytest.raises(InstanceError, match="block 'a': the fixed offset ends at 9"):
        instance.check_capacity(8)
    with pytest.raises(InstanceError, match="block 'b': size 8 is over the capacity of 7"):
        instance.check_capacity(7)
    with pytest.raises(InstanceError, match="-1"):
        instance.check_capacity(-1)


def test_blocks_one_by_one_make_the_same_instance() -> None:
    made = Instance.of_blocks([Block(4, 0, 3), Block(8, 2, 9, alignment=8, fixed=16, gaps=[(3, 4, 0, 2)], id="b")])
    same = Instance.of([0, 2], [3, 9], [4, 8], [1, 8], [-1, 16], [[], [(3, 4, 0, 2)]], ["0", "b"])
    for name, value in vars(made).items():
        assert np.array_equal(value, getattr(same, name)), name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Block(4.5, 0, 3), "block '1': size 4.5 is not a whole number"),
        (Block("4", 0, 3), "block '1': size '4' is not a whole number"),
        (Block(4, None, 3), "block '1': lower None is not a whole number"),
        (Block(4, 3, 3), "block '1': upper 3 must be greater than lower 3"),
        (Block(4, 0, 3, alignment=0), "block '1': alignment 0 is not positive"),
        (Block(4, 0, 3, fixed=-1), "block 1: offset -1 is negative"),
        (Block(4, 0, 3, gaps=[(1,)]), r"block '1': gap \(1,\) is not \(lower, upper\)"),
        (Block(4, 0, 3, gaps=[(1, 2.5)]), r"block '1': gap \(1, 2.5\) is not"),
        (Block(4, 0, 3, gaps=[7]), "block '1': gap 7 is not"),
        (Block(4, 0, 3, id=7), "block 1: id 7 is not a text"),
        (Block(4, 0, 3, id="0"), "block '0': id '0' is taken by block '0'"),
        ((4, 0, 3), "block 1 is of type tuple, not a Block"),
    ],
)
def test_a_block_that_makes_no_sense_is_named(wrong: Any, message: str) -> None:
    with pytest.raises(InstanceError, match=message):
        Instance.of_blocks([Block(1, 0, 1), wrong])
