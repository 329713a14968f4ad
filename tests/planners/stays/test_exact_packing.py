"""Constraint programming for what best fit leaves over."""

from __future__ import annotations

import numpy as np

from memplan.planners.stays.exact_packing import place_left_over


def placed(rows: list[tuple[int, int, int]], offsets: list[int], capacity: int, effort: float = 2.0) -> list[int]:
    """Offsets of blocks `(start, end, size)`."""
    start, end, size = np.array(rows, np.int64).T
    item, floor = np.arange(len(rows)), np.zeros(len(rows), np.int64)
    return place_left_over(start, end, item, size, floor, capacity, np.array(offsets), effort).tolist()


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
