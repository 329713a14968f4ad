"""A path of the branch and bound: what is placed, and what that means for the blocks still to come. Compiled by numba.

A path takes a block up by `place` and gives it back by `take_back`, which undoes what placing it raised (a *trail*, as
in SAT solvers). `branching_kernel.py` says which block comes next.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import internal

UNPLACED = -1

# More bytes than any offset.
HUGE = np.int64(2**62)

# A step of the path: the choice of the next block of a part.
#   low, high         the part is the blocks order[low:high]
#   first, last       half-open sections within which they take memory
#   offset, rank      of the block placed before
#   level             which row of the ranks counts
#   parent            the step to go back to if this one fails; -1 for none
#   begin, next, end  its candidates[begin:end], and which is next
#   placed, trail     the block that it has placed, and where the trail began
#   parts, parts_end  the parts[parts:parts_end] that remain after what it placed
#   part              which of them is searched next
STEP_ROW = np.dtype(
    [
        (name, np.int64)
        for name in (
            "low", "high", "first", "last", "offset", "rank", "level", "parent",
            "begin", "next", "end", "placed", "trail", "parts", "part", "parts_end",
        )
    ],
    align=True,
)  # fmt: skip

# A part of what remains: as in a step, and whether it has others beside it.
PART_ROW = np.dtype([(name, np.int64) for name in ("low", "high", "first", "last", "is_cut")], align=True)


class RankedBlocks(NamedTuple):
    """The blocks to place, numbered by rank: of two blocks that may lie equally low, the first is tried first.

    Attributes:
      size, alignment: `[num_blocks] int64` bytes.
      fixed: `[num_blocks] int64` the only offset allowed; -1 where any is.
      pointer: `[num_blocks + 1]` where each block's ranges of sections begin.
      first, last: `[num_ranges]` half-open ranges of sections, ascending for each block.
      companion_pointer: `[num_blocks + 1]` where each block's companions begin.
      companions: `[num_pairs]` the blocks that are alive at the same time as each block.
    """

    size: np.ndarray
    alignment: np.ndarray
    fixed: np.ndarray
    pointer: np.ndarray
    first: np.ndarray
    last: np.ndarray
    companion_pointer: np.ndarray
    companions: np.ndarray


by_reference(RankedBlocks)


class SearchPath(NamedTuple):
    """A path of the search.

    Attributes:
      offsets: `[num_blocks] int64` of the blocks that are placed, otherwise UNPLACED.
      lowest: `[num_blocks] int64` the lowest offset of each block, given what is placed.
      total: `[num_sections] int64` sizes of the blocks still to come.
      cuts: `[num_sections] int64` how many of them span the boundary after the section.
      order: `[num_blocks] int64` the blocks, those of a part side by side.
      floors: `[num_blocks] int64` scratch: the lowest offset of each block, given the order of the path.
      tops: `[num_blocks] int64` scratch: the least top of each block still to come; HUGE for others.
      level: `[num_sections] int64` scratch.
      trail_block, trail_lowest: `[num_pairs + 1] int64` what `lowest` was before it was raised.
      conflicts: `[num_sections] int64` how often a path was given up for each section.
    """

    offsets: np.ndarray
    lowest: np.ndarray
    total: np.ndarray
    cuts: np.ndarray
    order: np.ndarray
    floors: np.ndarray
    tops: np.ndarray
    level: np.ndarray
    trail_block: np.ndarray
    trail_lowest: np.ndarray
    conflicts: np.ndarray


@internal
def start_path(blocks: RankedBlocks, num_sections: int, conflicts: np.ndarray, offsets: np.ndarray) -> SearchPath:
    """Returns the empty path."""
    num_blocks, num_pairs = len(blocks.size), len(blocks.companions)
    path = SearchPath(
        offsets,
        np.zeros(num_blocks, np.int64),
        np.zeros(num_sections, np.int64),
        np.zeros(num_sections, np.int64),
        np.empty(num_blocks, np.int64),
        np.zeros(num_blocks, np.int64),
        np.empty(num_blocks, np.int64),
        np.zeros(num_sections, np.int64),
        np.empty(num_pairs + 1, np.int64),
        np.empty(num_pairs + 1, np.int64),
        conflicts,
    )
    for block in range(num_blocks):
        offsets[block] = UNPLACED
        path.lowest[block] = max(blocks.fixed[block], 0)
        path.order[block] = block
        path.tops[block] = HUGE
        _count_in(blocks, path, block)
    return path


@internal
def _count_in(blocks: RankedBlocks, path: SearchPath, block: int) -> None:
    """Counts a block among those still to come: its size in its sections, and the boundaries that it spans."""
    for i in range(blocks.pointer[block], blocks.pointer[block + 1]):
        for section in range(blocks.first[i], blocks.last[i]):
            path.total[section] += blocks.size[block]
    begin, end = span_of(blocks, block)
    for section in range(begin, end - 1):
        path.cuts[section] += 1


@internal
def span_of(blocks: RankedBlocks, block: int) -> tuple[int, int]:
    """Returns the sections from a block's first to its last, gaps included."""
    return blocks.first[blocks.pointer[block]], blocks.last[blocks.pointer[block + 1] - 1]


@internal
def place(
    step: np.record, block: int, blocks: RankedBlocks, path: SearchPath, trail: int, capacity: int
) -> tuple[bool, bool, int]:
    """Places a block as low as it can lie, and moves it to the end of the step's part of the order.

    Returns:
      whether the blocks above it still fit, whether some boundary is no longer spanned, and the end of the trail.
    """
    offsets, lowest, total, order = path.offsets, path.lowest, path.total, path.order
    step.placed, step.trail = block, trail
    offsets[block] = lowest[block]
    top = lowest[block] + blocks.size[block]
    fits, is_cut = True, False
    for i in range(blocks.pointer[block], blocks.pointer[block + 1]):
        for section in range(blocks.first[i], blocks.last[i]):
            total[section] -= blocks.size[block]
            if total[section] > 0 and top + total[section] > capacity:
                fits = False
                path.conflicts[section] += 1
    begin, end = span_of(blocks, block)
    for section in range(begin, end - 1):
        path.cuts[section] -= 1
        if path.cuts[section] == 0:
            is_cut = True
    i, last = step.low, step.high - 1
    while order[i] != block:
        i += 1
    while i < last:
        order[i] = order[i + 1]
        i += 1
    order[last] = block
    if fits:
        for i in range(blocks.companion_pointer[block], blocks.companion_pointer[block + 1]):
            other = blocks.companions[i]
            if offsets[other] != UNPLACED or lowest[other] >= top:
                continue
            path.trail_block[trail], path.trail_lowest[trail] = other, lowest[other]
            trail += 1
            rest = top % blocks.alignment[other] if blocks.alignment[other] > 1 else 0
            lowest[other] = top + blocks.alignment[other] - rest if rest else top
            if lowest[other] + blocks.size[other] > capacity or blocks.fixed[other] >= 0:
                fits = False
                begin, end = span_of(blocks, other)
                for section in range(begin, end):
                    path.conflicts[section] += 1
                break
    return fits, is_cut, trail


@internal
def take_back(step: np.record, blocks: RankedBlocks, path: SearchPath, trail: int) -> int:
    """Removes the block that a step placed; returns the new end of the trail."""
    block = step.placed
    path.offsets[block] = UNPLACED
    while trail > step.trail:
        trail -= 1
        path.lowest[path.trail_block[trail]] = path.trail_lowest[trail]
    _count_in(blocks, path, block)
    return trail
