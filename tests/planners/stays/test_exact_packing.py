"""Constraint programming for what best fit leaves over."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.planners.stays.exact_packing import PlacedBlocks, place_left_over

Row = tuple[int, int, int]


def blocks_of(rows: list[Row], capacity: int, weight: list[float] | None = None) -> PlacedBlocks:
    """Returns blocks `(start, end, size)` that all weigh the same by default."""
    start, end, size = np.array(rows, np.int64).T
    item, floor = np.arange(len(rows)), np.zeros(len(rows), np.int64)
    return PlacedBlocks(start, end, item, size, floor, np.array(weight or [1.0] * len(rows)), capacity)


def placed(
    rows: list[Row], offsets: list[int], capacity: int, effort: float = 2.0, weight: list[float] | None = None
) -> list[int]:
    return place_left_over(blocks_of(rows, capacity, weight), np.array(offsets), effort).tolist()


def most_that_fits(rows: list[Row], weight: list[float], capacity: int) -> float:
    """Returns the most weight that can be placed, by trying every offset of every block."""
    best = 0.0

    def go_on(number: int, taken: list[tuple[int, Row]], worth: float) -> None:
        nonlocal best
        best = max(best, worth)
        if number == len(rows):
            return
        start, end, size = rows[number]
        for offset in range(capacity - size + 1):
            if all(
                end <= other[0] or other[1] <= start or offset + size <= at or at + other[2] <= offset
                for at, other in taken
            ):
                go_on(number + 1, [*taken, (offset, rows[number])], worth + weight[number])
        go_on(number + 1, taken, worth)

    go_on(0, [], 0.0)
    return best


def test_a_neighbour_moves_to_make_room() -> None:
    #   6 ┤      free        the middle block lies badly: 2 free above it and 2 below
    #   4 ┤  ████████
    #   2 ┤  ████████
    #   0 ┤      free
    assert sorted(placed([(0, 2, 2), (0, 2, 4)], [2, -1], 6)) in ([0, 2], [0, 4])


def test_what_is_not_alive_meanwhile_stays() -> None:
    offsets = placed([(0, 2, 2), (0, 2, 4), (1, 4, 2), (3, 4, 4)], [2, -1, 6, 2], 8)
    assert offsets[3] == 2
    assert -1 not in offsets


def test_what_cannot_be_placed_is_left() -> None:
    assert placed([(0, 2, 4), (0, 2, 4), (0, 2, 4)], [0, 4, -1], 8) == [0, 4, -1]
    assert placed([(0, 2, 9)], [-1], 8) == [-1]


def test_the_same_effort_gives_the_same_offsets() -> None:
    rows = [(i % 5, i % 5 + 2 + i % 3, 1 + i % 4) for i in range(30)]
    offsets = [-1] * 30
    assert placed(rows, offsets, 40) == placed(rows, offsets, 40)


def test_what_is_worth_most_is_placed_and_what_was_placed_stays_placed() -> None:
    rows = [(0, 2, 4), (1, 3, 4), (1, 3, 3), (2, 4, 5)]
    offsets = placed(rows, [1, -1, -1, -1], 8, weight=[1.0, 2.0, 3.0, 9.0])
    assert [offset >= 0 for offset in offsets] == [True, False, True, True]
    assert placed(rows[:3], [1, -1, -1], 8, weight=[0.0, 2.0, 1.0])[2] == -1


def test_groups_share_no_time_with_each_other() -> None:
    blocks = blocks_of([(6, 9, 1), (0, 3, 1), (2, 5, 1), (5, 6, 1), (8, 9, 1)], 4)
    assert blocks.clusters(np.array([0, 1, 2, 4])) == [[1, 2], [0, 4]]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=5), st.data())
@settings(max_examples=40)
def test_all_together_are_placed_as_well_as_can_be(given_rows: list[Row], data: st.DataObject) -> None:
    """Nothing is placed before, and all blocks share a time, so that one window holds them all."""
    rows = [(start, 4 + length, size) for start, length, size in given_rows]
    weight = [float(data.draw(st.integers(1, 9))) for _ in rows]
    offsets = placed(rows, [-1] * len(rows), 4, weight=weight)
    assert sum(w for w, offset in zip(weight, offsets, strict=True) if offset >= 0) == most_that_fits(rows, weight, 4)
