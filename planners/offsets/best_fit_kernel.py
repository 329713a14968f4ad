"""First fit and best fit: one block after another takes a gap among the blocks placed before. Compiled by numba.

The placed companions of a block are found in a tree over the starts of all intervals, whose nodes hold the latest end
below them (Cormen et al., "Introduction to Algorithms", interval trees), so a pass over n blocks costs O(n log n +
number of overlaps).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memplan.compiler.arrays_kernel import argsort, copy_to, fill
from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import entry, internal

UNPLACED = -1

_HUGE = np.int64(2**62)

# The share of the moves of `improve` that take a block that ends too high, where there is one.
_SHARE_OF_HIGH = 0.8

# A node of the tree that is still to be looked at: the positions [low, low + width) below it.
_NODE_ROW = np.dtype([("node", np.int64), ("low", np.int64), ("width", np.int64)], align=True)

# Nodes that wait at the same time: two for each level of the tree.
_MAX_WAITING = 70


class Intervals(NamedTuple):
    """When blocks take memory. An interval's position is its place in the order of starts.

    Attributes:
      pointer: `[num_blocks + 1] int64` where each block's intervals begin in `position`.
      position: `[num_intervals] int64` positions, by block.
      starts, ends: `[num_intervals] int64` half-open times, by position.
      block_at: `[num_intervals] int64` block, by position.
      before: `[num_intervals] int64` how many intervals start before the end of each, by position.
    """

    pointer: np.ndarray
    position: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    block_at: np.ndarray
    before: np.ndarray


class BlockSizes(NamedTuple):
    """What blocks take.

    Attributes:
      size, alignment: `[num_blocks] int64` bytes.
      fixed: `[num_blocks] int64` the only offset allowed; -1 where any is.
    """

    size: np.ndarray
    alignment: np.ndarray
    fixed: np.ndarray


by_reference(Intervals, BlockSizes)


class _Placed(NamedTuple):
    """The tree of the intervals of the blocks that are placed, and scratch memory for what is read from it.

    Attributes:
      tree: `[2 * leaves] int64` the latest end below each node, -1 for none.
      stack: `[_MAX_WAITING]` nodes still to be looked at.
      found: `[num_intervals + 1] int64` positions.
      seen: `[num_blocks] int64` the last rank for which each block was found.
      others, offsets: `[num_blocks + 1] int64` the blocks found, and where they lie.
      ascending, spare: `[num_blocks + 1] int64` their numbers by offset, and scratch.
    """

    tree: np.ndarray
    stack: np.ndarray
    found: np.ndarray
    seen: np.ndarray
    others: np.ndarray
    offsets: np.ndarray
    ascending: np.ndarray
    spare: np.ndarray


@internal
def _empty(num_intervals: int, num_blocks: int) -> _Placed:
    leaves = 1
    while leaves < num_intervals:
        leaves *= 2
    placed = _Placed(
        np.empty(2 * leaves, np.int64),
        np.empty(_MAX_WAITING, _NODE_ROW),
        np.empty(num_intervals + 1, np.int64),
        np.empty(num_blocks, np.int64),
        np.empty(num_blocks + 1, np.int64),
        np.empty(num_blocks + 1, np.int64),
        np.empty(num_blocks + 1, np.int64),
        np.empty(num_blocks + 1, np.int64),
    )
    fill(placed.tree, -1)
    fill(placed.seen, -1)
    return placed


@internal
def _add(placed: _Placed, intervals: Intervals, block: int) -> None:
    """Enters a block's intervals into the tree."""
    tree = placed.tree
    for i in range(intervals.pointer[block], intervals.pointer[block + 1]):
        position = intervals.position[i]
        end = intervals.ends[position]
        node = len(tree) // 2 + position
        while node >= 1 and tree[node] < end:
            tree[node] = end
            node >>= 1


@internal
def _overlapping(placed: _Placed, before: int, start: int) -> int:
    """Finds the positions below `before` of placed intervals that end after `start`; returns how many there are."""
    tree, stack = placed.tree, placed.stack
    # Depth first from the root.
    count, depth = 0, 1
    stack[0].node, stack[0].low, stack[0].width = 1, 0, len(tree) // 2
    while depth > 0:
        depth -= 1
        node, low, width = stack[depth].node, stack[depth].low, stack[depth].width
        if low >= before or tree[node] <= start:
            continue
        if width == 1:
            placed.found[count] = low
            count += 1
            continue
        half = width >> 1
        stack[depth].node, stack[depth].low, stack[depth].width = 2 * node, low, half
        stack[depth + 1].node, stack[depth + 1].low, stack[depth + 1].width = 2 * node + 1, low + half, half
        depth += 2
    return count


@internal
def _find_companions(placed: _Placed, intervals: Intervals, block: int, rank: int, offsets: np.ndarray) -> int:
    """Finds the placed blocks that are alive at the same time as a block; returns how many there are."""
    num_others = 0
    for i in range(intervals.pointer[block], intervals.pointer[block + 1]):
        position = intervals.position[i]
        count = _overlapping(placed, intervals.before[position], intervals.starts[position])
        # A block that meets several intervals is found several times.
        for k in range(count):
            other = intervals.block_at[placed.found[k]]
            if placed.seen[other] != rank:
                placed.seen[other] = rank
                placed.offsets[num_others] = offsets[other]
                placed.others[num_others] = other
                num_others += 1
    return num_others


@internal
def _chosen_offset(
    placed: _Placed, num_others: int, sizes: BlockSizes, block: int, floor: int, target: int, is_best_fit: bool
) -> int:
    """Returns the offset of the gap that a block takes among its companions, from `floor` on."""
    size, alignment = sizes.size[block], sizes.alignment[block]
    ascending = placed.ascending
    argsort(placed.offsets, num_others, ascending, placed.spare)
    lowest, chosen, chosen_gap = np.int64(floor), np.int64(UNPLACED), _HUGE
    for i in range(num_others):
        top = placed.offsets[ascending[i]]
        gap = top - lowest
        if gap >= size and gap < chosen_gap:
            chosen, chosen_gap = lowest, gap
            if not is_best_fit:
                break
        top += sizes.size[placed.others[ascending[i]]]
        if top > lowest:
            rest = top % alignment if alignment > 1 else 0
            lowest = top + alignment - rest if rest else top
    if chosen == UNPLACED or (target - lowest >= size and target - lowest < chosen_gap):
        chosen = lowest
    return int(chosen)


@entry
def fit(
    order: np.ndarray,
    intervals: Intervals,
    sizes: BlockSizes,
    limit: int,
    target: int,
    is_best_fit: bool,
    offsets: np.ndarray,
) -> int:
    """Places all blocks; those that are fixed come first, wherever they stand in the order.

    Args:
      order: `[num_blocks]` the blocks in the order in which they choose.
      intervals: when they take memory.
      sizes: what they take.
      limit: a block that would end above it ends the pass.
      target: height up to which a gap counts as one for best fit.
      is_best_fit: whether to take the smallest gap that is large enough, otherwise the lowest one.
      offsets: `[num_blocks]` receives the offsets.

    Returns:
      the height, or 2**62 where the limit ended the pass.
    """
    size, fixed = sizes.size, sizes.fixed
    placed = _empty(len(intervals.starts), len(size))
    height = np.int64(0)
    for block in range(len(size)):
        offsets[block] = fixed[block]
        if fixed[block] >= 0:
            height = max(height, fixed[block] + size[block])
            _add(placed, intervals, block)
    if height > limit:
        return int(_HUGE)
    for rank in range(len(order)):
        block = order[rank]
        if fixed[block] >= 0:
            continue
        num_others = _find_companions(placed, intervals, block, rank, offsets)
        chosen = _chosen_offset(placed, num_others, sizes, block, 0, target, is_best_fit)
        if chosen + size[block] > limit:
            return int(_HUGE)
        height = max(height, chosen + size[block])
        offsets[block] = chosen
        _add(placed, intervals, block)
    return int(height)


@entry
def fit_most(
    order: np.ndarray,
    intervals: Intervals,
    sizes: BlockSizes,
    floor: np.ndarray,
    capacity: int,
    is_best_fit: bool,
) -> np.ndarray:
    """Places the blocks that find a gap, and leaves the others out.

    Args:
      order: `[num_chosen]` the blocks in the order in which they choose; others are left out.
      intervals: when they take memory.
      sizes: what they take; none is fixed.
      floor: `[num_blocks]` the lowest offset that each may have.
      capacity: of the memory.
      is_best_fit: whether to take the smallest gap that is large enough, otherwise the lowest one.

    Returns:
      `[num_blocks]` offsets, `UNPLACED` for the blocks that are left out.
    """
    offsets = np.empty(len(sizes.size), np.int64)
    fill(offsets, UNPLACED)
    placed = _empty(len(intervals.starts), len(sizes.size))
    for rank in range(len(order)):
        block = order[rank]
        num_others = _find_companions(placed, intervals, block, rank, offsets)
        chosen = _chosen_offset(placed, num_others, sizes, block, floor[block], capacity, is_best_fit)
        if chosen + sizes.size[block] <= capacity:
            offsets[block] = chosen
            _add(placed, intervals, block)
    return offsets


@entry
def improve(
    order: np.ndarray,
    intervals: Intervals,
    sizes: BlockSizes,
    height: int,
    target: int,
    rounds: int,
    seed: int,
    stop: np.ndarray,
    offsets: np.ndarray,
) -> int:
    """Moves blocks that end too high to the front of the order, and keeps an order that is no worse.

    This is squeaky wheel optimization (Joslin and Clements, 1999) with a random part: in each round a block that ends
    above the target, or sometimes any block, chooses earlier, at a random place of the order.

    Args:
      order: `[num_blocks]` of a first-fit pass that gave `offsets` and `height`; is changed to the best one found.
      intervals, sizes: as for `fit`.
      height, offsets: of that pass; the offsets are changed to the best ones found.
      target: height at which to stop.
      rounds: how many passes to try.
      seed: of the random choices.
      stop: `[1] int64` the rounds end when another thread makes this other than zero.

    Returns:
      the height of the best offsets found.
    """
    np.random.seed(seed)
    num_blocks = len(order)
    trial, trial_offsets = np.empty(num_blocks, np.int64), np.empty(num_blocks, np.int64)
    current = np.empty(num_blocks, np.int64)
    copy_to(current, offsets)
    high = np.empty(num_blocks, np.int64)
    for _ in range(rounds):
        if height <= target or stop[0] != 0:
            break
        num_high = 0
        for rank in range(num_blocks):
            block = order[rank]
            if current[block] + sizes.size[block] > target:
                high[num_high] = rank
                num_high += 1
        if num_high > 0 and np.random.random() < _SHARE_OF_HIGH:
            source = high[np.random.randint(num_high)]
        else:
            source = np.random.randint(num_blocks)
        destination = np.random.randint(source + 1)
        copy_to(trial, order)
        moved = trial[source]
        for rank in range(source, destination, -1):
            trial[rank] = trial[rank - 1]
        trial[destination] = moved
        found = fit(trial, intervals, sizes, height, target, False, trial_offsets)
        if found <= height:
            if found < height:
                copy_to(offsets, trial_offsets)
            height = found
            copy_to(order, trial)
            copy_to(current, trial_offsets)
    return int(height)
