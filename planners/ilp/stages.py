"""The parts of the time in which a copy can move, in the relaxation of the mapping (see `relaxation.py`, *Copies*).

A copy is issued and awaited by operations of one region. The loops and conditionals inside the region run completely
while the copy is in flight, so each of them is one stage; the time between them is cut into dyadic nodes.

    region    op   op  ┌── loop ──┐  op   op   op
    stages    [      ] [          ] [    ][  ][ ]      fine towards the end that counts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memplan.planners.ilp.tree import Tree
from memplan.planners.stays.chains import Slots


@dataclass(frozen=True)
class Stage:
    """A part of the time in which a copy can move.

    Attributes:
      nodes: neighbouring nodes of the tree.
      is_whole: whether the copy is issued before the stage and awaited after it, as for one position, a loop or a
        conditional.
    """

    nodes: list[int]
    is_whole: bool


def inner_regions(slots: Slots) -> list[list[tuple[int, int]]]:
    """Returns per region the half-open times of the loops and conditionals directly inside it, in order."""
    return [
        [
            (int(slots.time[slot]), int(slots.end[slot]))
            for slot in range(int(first), int(last))
            if not slots.is_operation[slot]
        ]
        for first, last in zip(slots.first, slots.last, strict=True)
    ]


def make_stages(
    tree: Tree,
    ratio: float,
    inner: Sequence[tuple[int, int]],
    start: int,
    done: int,
    fine_start: bool,
    fine_end: bool,
) -> list[Stage]:
    """Returns the stages of a copy, in order.

    Args:
      tree: over the positions.
      ratio, fine_start, fine_end: see `Tree.graded`.
      inner: the result of `inner_regions` for the copy's region.
      start, done: the earliest time at which it can start, the latest at which it can be done.
    """
    stages: list[Stage] = []
    at, end = 2 * start, 2 * done + 1

    def between(first: int, last: int) -> None:
        if first < last:
            nodes = tree.graded(2 * start, end, fine_start, fine_end, ratio, (first, last))
            stages.extend(Stage([node], tree.size <= node) for node in nodes)

    for first, last in inner:
        if start <= first and last <= done:
            between(at, 2 * first)
            stages.append(Stage(tree.cover(2 * first, 2 * last), True))
            at = 2 * last
    between(at, end)
    return stages
