"""The exact search: whether everything fits a capacity, depth first over canonical placements. Compiled by numba.

The method is that of Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning",
ASPLOS 2023, sections 4 and 5. Blocks are placed from the bottom up: each lies on those beneath it, and offsets never
decrease along a path of the search. A *section* is a span of time in which no block starts or ends.

    offset
      ▲                 ┌───┐          the path so far: a, b, c
      │        ┌────────┤ c │          d may come next: on b and c, the lowest that it can lie
      ├────────┤   b    ├───┤          floor of a section: the lowest offset of any block still to come there
      │   a    │        │///│ ◄─ lost
      └────────┴────────┴───┴──► time, in sections

A path is given up for these reasons (each is a switch of `Techniques` and sound by itself):

- `sections`: in some section the blocks still to come there exceed the capacity, even if each lies as low as its own
  floor allows (as jobs with release dates on one machine); the paper has the floor of the section for all of them;
- `dominance`: some block still to come would end beneath the block that is placed now, so it should be placed first;
- `blocked`: a block that lies too low for the order of the path must be lifted by another block, and cannot be lifted
  enough: its floor is the top of the lowest block that can still slip beneath it (not in the paper; needs `sections`);
- `decomposition`: where no block still to come spans a boundary between sections, both sides are searched one after the
  other, and if one fails, the other is not tried again;
- `reordering`: each such side gets an order of its own, by the loads that are left in its sections.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memplan.compiler.kernels import entry, internal
from memplan.planners.offsets.branching_limits_kernel import fits_floors, fits_levels
from memplan.planners.offsets.branching_path_kernel import (
    HUGE,
    PART_ROW,
    STEP_ROW,
    RankedBlocks,
    SearchPath,
    place,
    span_of,
    start_path,
    take_back,
)

FOUND, EXHAUSTED, LIMIT = 1, 0, -1


class Techniques(NamedTuple):
    """What makes the search fast. Each can be turned off, and it stays sound and complete.

    Attributes:
      sections: give up where the blocks still to come do not fit a section.
      dominance: give up where a block still to come would fit beneath the one placed.
      blocked: a block that is too low for the order of the path must be lifted by another one (needs `sections`).
      decomposition: search parts that no longer share any time one by one.
      reordering: order each part by its own loads (needs `decomposition`).
    """

    sections: bool = True
    dominance: bool = True
    blocked: bool = True
    decomposition: bool = True
    reordering: bool = False


@entry
def search(
    blocks: RankedBlocks,
    num_sections: int,
    capacity: int,
    node_limit: int,
    techniques: Techniques,
    stop: np.ndarray,
    nodes: np.ndarray,
    conflicts: np.ndarray,
    offsets: np.ndarray,
) -> int:
    """Searches for offsets below a capacity in bytes.

    Args:
      blocks: what is to be placed; none has size 0.
      num_sections: of time.
      node_limit: how many placements may be tried before the search gives up.
      techniques: which are used.
      stop: `[1] int64` the search gives up when another thread makes this other than zero.
      nodes: `[1] int64` is set to the number of placements tried.
      conflicts: `[num_sections] int64` how often a path was given up for each section is added to it.
      offsets: `[num_blocks] int64` receives the offsets if they are found.

    Returns:
      FOUND, EXHAUSTED (proven: there are none), or LIMIT.
    """
    num_blocks = len(blocks.size)
    path = start_path(blocks, num_sections, conflicts, offsets)
    if not _fits_empty(blocks, path, capacity):
        return EXHAUSTED
    ranks = np.zeros((num_blocks + 1, num_blocks), np.int32)
    for number in range(num_blocks):
        ranks[0, number] = number
    steps = np.zeros(num_blocks + 2, STEP_ROW)
    steps[0].high, steps[0].last, steps[0].parent = num_blocks, num_sections, -1
    candidates = np.empty(num_blocks * (num_blocks + 3) // 2 + 1, np.int32)
    parts = np.empty(2 * num_blocks + num_sections + 4, PART_ROW)
    most = np.zeros(num_blocks, np.int64)
    trail, count, depth, is_new, result = 0, 0, 0, True, LIMIT
    while True:
        step = steps[depth]
        if is_new:
            _choose(step, blocks, path, ranks[step.level], candidates, techniques.dominance)
            is_new = False
        if step.next == step.end:
            # Go back to the block before, or out of one of several parts to the block whose choice made them.
            if step.parent < 0:
                result = EXHAUSTED
                break
            while depth > step.parent:
                depth -= 1
                trail = take_back(steps[depth], blocks, path, trail)
            continue
        if count >= node_limit or stop[0] != 0:
            break
        count += 1
        block = np.int64(candidates[step.next])
        step.next += 1
        fits, is_cut, trail = place(step, block, blocks, path, trail, capacity)
        if fits and techniques.sections:
            fits = fits_floors(step, blocks, path, capacity) and fits_levels(
                step, blocks, path, ranks[step.level], capacity, techniques.blocked
            )
        if not fits:
            trail = take_back(step, blocks, path, trail)
            continue
        _split(step, blocks, path, parts, is_cut and techniques.decomposition)
        owner = _owner_of_next_part(steps, depth)
        if owner < 0:
            result = FOUND
            break
        part = parts[steps[owner].part]
        steps[owner].part += 1
        _descend(steps, depth, owner, part, path, ranks)
        depth += 1
        if techniques.reordering and part.is_cut != 0:
            _reorder(steps[depth], blocks, path, most, ranks)
        is_new = True
    nodes[0] = count
    return result


@internal
def _fits_empty(blocks: RankedBlocks, path: SearchPath, capacity: int) -> bool:
    """Whether, before anything is placed, each block fits the capacity alone, and so do the sizes in each section."""
    for block in range(len(blocks.size)):
        if path.lowest[block] + blocks.size[block] > capacity:
            return False
    for section in range(len(path.total)):  # noqa: SIM110
        if path.total[section] > capacity:
            return False
    return True


@internal
def _owner_of_next_part(steps: np.ndarray, depth: int) -> int:
    """Returns the step with a part still to search: this one, or one that it is in a part of; -1 if all are done."""
    owner = depth
    while owner >= 0 and steps[owner].part == steps[owner].parts_end:
        owner = steps[owner].parent
    return owner


@internal
def _descend(steps: np.ndarray, depth: int, owner: int, part: np.record, path: SearchPath, ranks: np.ndarray) -> None:
    """Makes the step after `depth`, which chooses a block of a part that `owner` left."""
    step, child = steps[depth], steps[depth + 1]
    placed, level = steps[owner].placed, steps[owner].level
    child.low, child.high, child.first, child.last = part.low, part.high, part.first, part.last
    child.offset, child.rank, child.level = path.offsets[placed], ranks[level, placed], level
    child.parent, child.begin, child.parts = owner, step.end, step.parts_end


@internal
def _choose(
    step: np.record,
    blocks: RankedBlocks,
    path: SearchPath,
    rank_of: np.ndarray,
    candidates: np.ndarray,
    use_dominance: bool,
) -> None:
    """Lists the blocks of a step's part that may come next, the lowest first."""
    lowest, order = path.lowest, path.order
    ceiling = HUGE
    if use_dominance:
        for i in range(step.low, step.high):
            ceiling = min(ceiling, lowest[order[i]] + blocks.size[order[i]])
    begin = step.begin
    end = begin
    least, rank = step.offset, step.rank
    for i in range(step.low, step.high):
        block = order[i]
        offset = lowest[block]
        if offset >= ceiling or offset < least or (offset == least and rank_of[block] < rank):
            continue
        j = end
        while j > begin and (
            lowest[candidates[j - 1]] > offset
            or (lowest[candidates[j - 1]] == offset and rank_of[candidates[j - 1]] > rank_of[block])
        ):
            candidates[j] = candidates[j - 1]
            j -= 1
        candidates[j] = block
        end += 1
    step.next, step.end = begin, end


@internal
def _split(step: np.record, blocks: RankedBlocks, path: SearchPath, parts: np.ndarray, is_cut: bool) -> None:
    """Lists the parts that remain of a step's part: those between the boundaries that are cut now, or all of it."""
    order = path.order
    low, high = step.low, step.high - 1
    count = step.parts
    step.part = count
    if high > low and not is_cut:
        part = parts[count]
        part.low, part.high, part.first, part.last, part.is_cut = low, high, step.first, step.last, 0
        count += 1
    elif high > low:
        begin = step.first
        first, last = span_of(blocks, step.placed)
        for section in range(first, last):
            if section < last - 1 and path.cuts[section] != 0:
                continue
            end = section + 1 if section < last - 1 else step.last
            # Bring the blocks within [begin, end) to the front.
            start = low
            for i in range(start, high):
                block = order[i]
                own_first, own_last = span_of(blocks, block)
                if own_first >= begin and own_last <= end:
                    order[i] = order[low]
                    order[low] = block
                    low += 1
            if low > start:
                part = parts[count]
                part.low, part.high, part.first, part.last, part.is_cut = start, low, begin, end, 1
                count += 1
            begin = end
    step.parts_end = count


@internal
def _reorder(step: np.record, blocks: RankedBlocks, path: SearchPath, most: np.ndarray, ranks: np.ndarray) -> None:
    """Ranks the blocks of a part by the largest load that is left in any of their sections, then by their numbers."""
    order = path.order
    low, high = step.low, step.high
    # The ranks are new, so the rank of the block placed before means nothing.
    level = step.level + 1
    step.level, step.rank = level, -1
    rank_of = ranks[level]
    for i in range(low, high):
        block = order[i]
        most[block] = 0
        for j in range(blocks.pointer[block], blocks.pointer[block + 1]):
            for section in range(blocks.first[j], blocks.last[j]):
                most[block] = max(most[block], path.total[section])
        j = i
        while j > low and (
            most[order[j - 1]] < most[block] or (most[order[j - 1]] == most[block] and order[j - 1] > block)
        ):
            order[j] = order[j - 1]
            j -= 1
        order[j] = block
    for i in range(low, high):
        rank_of[order[i]] = i - low
