"""Offsets: pictures that fit in the head, then against what packing must satisfy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_problems import problem

from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.stays.packing import UNPLACED, Blocks, pack


def memory(n: int, capacity: int, alignment: int = 1, reserved: dict[int, int] | None = None) -> MappingProblem:
    """A program of `n` operations on memories of some capacity."""
    mapped = problem(*[""] * n, capacity=capacity, alignment=alignment, reserved=reserved)
    return dataclasses.replace(
        mapped, spaces=(dataclasses.replace(mapped.spaces[0], capacity=capacity), mapped.spaces[1])
    )


def blocks(*rows: tuple[int, int, int]) -> Blocks:
    """Blocks `(start, end, size)`."""
    start, end, size = np.array(rows, np.int64).reshape(-1, 3).T
    return Blocks.of(start, end, size)


def check(mapped: MappingProblem, space: int, packed: Blocks, offsets: np.ndarray) -> None:
    """Asserts that what is placed is within the space, aligned, clear of what is reserved, and disjoint."""
    unit, capacity = mapped.spaces[space].alignment, mapped.spaces[space].capacity
    placed = [(s, e, offsets[i], packed.size[i]) for s, e, i in zip(packed.start, packed.end, packed.item, strict=True)]
    placed = [row for row in placed if row[2] != UNPLACED]
    for start, end, offset, size in placed:
        assert offset % unit == 0
        assert offset + size <= capacity
        for time in range(start, min(end, mapped.end)):
            assert offset >= mapped.operations[time].reserved[space]
    for i, (start, end, offset, size) in enumerate(placed):
        for other_start, other_end, other_offset, other_size in placed[:i]:
            if start < other_end and other_start < end:
                assert offset + size <= other_offset or other_offset + other_size <= offset


def test_what_is_never_alive_together_shares_bytes() -> None:
    assert pack(memory(4, 4), 1, blocks((0, 2, 4), (2, 4, 4))).tolist() == [0, 0]


def test_a_perfect_packing_is_found() -> None:
    #   6 │ ┌── 1 ──┐┌── 3 ──┐
    #     │ └───────┘└───────┘     two long ones and four short ones fill the memory to the last byte
    #   2 │ ┌─────── 0 ──────┐
    #   0 └─┴──── 2 ─┬─ 4 ───┘
    packed = blocks((0, 4, 4), (0, 2, 2), (0, 3, 2), (2, 4, 2), (3, 4, 2))
    offsets = pack(memory(4, 8), 1, packed)
    assert UNPLACED not in offsets
    check(memory(4, 8), 1, packed, offsets)


def test_reserved_bytes_are_a_floor() -> None:
    mapped = memory(4, 8, reserved={1: 3})
    assert pack(mapped, 1, blocks((0, 1, 2), (0, 2, 2), (2, 4, 2))).tolist() == [0, 3, 0]
    assert pack(mapped, 1, blocks((0, 2, 6))).tolist() == [UNPLACED]


def test_sizes_are_rounded_up_to_the_alignment() -> None:
    offsets = pack(memory(2, 16, alignment=4), 1, blocks((0, 2, 5), (0, 2, 3), (0, 2, 1)))
    assert sorted(offsets.tolist()) in ([0, 4, 8], [0, 4, 12], [0, 8, 12])


def test_the_least_valuable_is_left_out() -> None:
    packed = dataclasses.replace(blocks((0, 2, 4), (0, 2, 4), (0, 2, 4)), weight=np.array([3.0, 1.0, 2.0]))
    assert pack(memory(2, 8), 1, packed)[1] == UNPLACED


def test_one_block_takes_the_same_bytes_twice() -> None:
    twice = Blocks(
        start=np.array([0, 3, 0, 1]),
        end=np.array([1, 4, 4, 3]),
        item=np.array([0, 0, 1, 2]),
        size=np.array([2, 2, 4]),
        weight=np.ones(3),
    )
    offsets = pack(memory(4, 8), 1, twice)
    assert UNPLACED not in offsets
    check(memory(4, 8), 1, twice, offsets)


def test_lasting_blocks_are_stacked() -> None:
    packed = blocks((0, 5, 2), (1, 2, 2), (0, 5, 3), (2, 4, 2))
    offsets = pack(memory(4, 8), 0, packed, stack_lasting=True)
    assert offsets.tolist() == [0, 5, 2, 5]


def test_constraint_programming_places_what_best_fit_leaves() -> None:
    """A memory filled to the last byte in four columns, where every order of best fit goes wrong somewhere."""
    packed = blocks((0, 2, 3), (0, 1, 2), (1, 3, 2), (2, 4, 3), (0, 4, 1), (3, 4, 2))
    mapped = memory(4, 6)
    offsets = pack(mapped, 1, packed, exact_effort=2.0)
    check(mapped, 1, packed, offsets)
    assert UNPLACED not in offsets


def test_nothing_to_pack() -> None:
    assert pack(memory(1, 8), 1, blocks()).tolist() == []


@st.composite
def packings(draw: st.DrawFn) -> tuple[MappingProblem, Blocks]:
    n = draw(st.integers(1, 12))
    unit = draw(st.sampled_from([1, 4]))
    reserved = draw(st.dictionaries(st.integers(0, n - 1), st.integers(0, 3 * unit), max_size=4))
    mapped = memory(n, unit * draw(st.integers(4, 24)), unit, reserved)
    rows = []
    for _ in range(draw(st.integers(0, 14))):
        start = draw(st.integers(0, n))
        rows.append((start, draw(st.integers(start + 1, n + 1)), draw(st.integers(1, 8 * unit))))
    packed = blocks(*rows)
    if len(rows) > 1 and draw(st.booleans()):
        # The last interval belongs to the first block, if they are not alive at once.
        if packed.end[0] <= packed.start[-1] or packed.end[-1] <= packed.start[0]:
            item = packed.item.copy()
            item[-1] = 0
            packed = dataclasses.replace(packed, item=item, size=packed.size[:-1], weight=packed.weight[:-1])
    return mapped, packed


@settings(max_examples=200)
@given(packings(), st.integers(0, 1), st.booleans())
def test_packings_are_sound(case: tuple[MappingProblem, Blocks], space: int, stack_lasting: bool) -> None:
    mapped, packed = case
    offsets = pack(mapped, space, packed, stack_lasting)
    check(mapped, space, packed, offsets)
    if stack_lasting:  # Blocks under the stack might have found room, so what is left over proves nothing.
        return
    # Whoever is left over really had no gap where the others lie.
    for item in np.flatnonzero(offsets == UNPLACED).tolist():
        unit, capacity = mapped.spaces[space].alignment, mapped.spaces[space].capacity
        for offset in range(0, capacity - int(packed.size[item]) + 1, unit):
            tried = offsets.copy()
            tried[item] = offset
            with pytest.raises(AssertionError):
                check(mapped, space, packed, tried)


@settings(max_examples=40)
@given(packings())
def test_constraint_programming_never_loses_what_was_placed(case: tuple[MappingProblem, Blocks]) -> None:
    mapped, packed = case
    before, after = pack(mapped, 1, packed), pack(mapped, 1, packed, exact_effort=0.5)
    check(mapped, 1, packed, after)
    assert set(np.flatnonzero(before >= 0)) <= set(np.flatnonzero(after >= 0))
