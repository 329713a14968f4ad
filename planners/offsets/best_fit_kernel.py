"""One block after another takes a gap among those placed before: the inner loops, compiled by numba.

Which companions of a block are placed already is asked of a tree over the starts of all intervals, whose nodes hold the
latest end below them (Cormen et al., "Introduction to Algorithms", interval trees), so a pass over n blocks costs
O(n log n + number of overlaps).
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.kernels import entry

UNPLACED = -1

_HUGE = np.int64(2**62)


@entry
def _show(tree: np.ndarray, leaves: int, position: int, end: int) -> None:
    """Makes an interval, by its position in the order of starts, one that `_companions` finds."""
    node = leaves + position
    while node >= 1 and tree[node] < end:
        tree[node] = end
        node >>= 1


@entry
def _companions(
    tree: np.ndarray, leaves: int, before: int, start: int, found: np.ndarray, count: int, stack: np.ndarray
) -> int:
    """Appends to `found[count:]` the positions below `before` of intervals that end after `start`; returns its end."""
    # Depth first from the root; a node covers the positions [low, low + width).
    depth = 1
    stack[0, 0], stack[0, 1], stack[0, 2] = 1, 0, leaves
    while depth > 0:
        depth -= 1
        node, low, width = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        if low >= before or tree[node] <= start:
            continue
        if width == 1:
            found[count] = low
            count += 1
            continue
        half = width >> 1
        stack[depth, 0], stack[depth, 1], stack[depth, 2] = 2 * node, low, half
        stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2] = 2 * node + 1, low + half, half
        depth += 2
    return count


@entry
def fit(
    order: np.ndarray,
    pointer: np.ndarray,
    position: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    block_at: np.ndarray,
    before: np.ndarray,
    size: np.ndarray,
    alignment: np.ndarray,
    fixed: np.ndarray,
    limit: int,
    target: int,
    is_best_fit: bool,
    offsets: np.ndarray,
) -> int:
    """Places all blocks; those that are fixed come first, wherever they stand in the order.

    Args:
      order: `[num_blocks]` the blocks in the order in which they choose.
      pointer: `[num_blocks + 1]` where each block's intervals begin in `position`.
      position: `[num_intervals]` place of each interval in the order of starts.
      starts, ends, block_at: `[num_intervals]` half-open times and block, ascending by start.
      before: `[num_intervals]` how many intervals start before each one's end.
      size, alignment, fixed: `[num_blocks]` bytes; `fixed` is -1 where any offset will do.
      limit: a block that would end above it ends the pass.
      target: height up to which a gap counts as one for best fit.
      is_best_fit: whether to take the smallest gap that is large enough, otherwise the lowest one.
      offsets: `[num_blocks]` receives the offsets.

    Returns:
      the height, or 2**62 where the limit ended the pass.
    """
    num_intervals = len(starts)
    leaves = 1
    while leaves < num_intervals:
        leaves *= 2
    tree = np.full(2 * leaves, -1, np.int64)
    stack = np.empty((70, 3), np.int64)
    found = np.empty(num_intervals + 1, np.int64)
    seen = np.full(len(size), -1, np.int64)
    others = np.empty(len(size) + 1, np.int64)
    keys = np.empty(len(size) + 1, np.int64)
    height = np.int64(0)
    for block in range(len(size)):
        offsets[block] = fixed[block]
        if fixed[block] >= 0:
            height = max(height, fixed[block] + size[block])
            for i in range(pointer[block], pointer[block + 1]):
                _show(tree, leaves, position[i], ends[position[i]])
    if height > limit:
        return int(_HUGE)
    for rank in range(len(order)):
        block = order[rank]
        if fixed[block] >= 0:
            continue
        num_others = 0
        for i in range(pointer[block], pointer[block + 1]):
            place = position[i]
            count = _companions(tree, leaves, before[place], starts[place], found, 0, stack)
            # One that meets several intervals of the block is found several times.
            for k in range(count):
                other = block_at[found[k]]
                if seen[other] != rank:
                    seen[other] = rank
                    keys[num_others] = offsets[other]
                    others[num_others] = other
                    num_others += 1
        ascending = np.argsort(keys[:num_others])
        lowest, chosen, chosen_gap = np.int64(0), np.int64(UNPLACED), _HUGE
        for i in range(num_others):
            other = others[ascending[i]]
            top = offsets[other]
            gap = top - lowest
            if gap >= size[block] and gap < chosen_gap:
                chosen, chosen_gap = lowest, gap
                if not is_best_fit:
                    break
            top += size[other]
            if top > lowest:
                rest = top % alignment[block] if alignment[block] > 1 else 0
                lowest = top + alignment[block] - rest if rest else top
        if chosen == UNPLACED or (target - lowest >= size[block] and target - lowest < chosen_gap):
            chosen = lowest
        top = chosen + size[block]
        if top > limit:
            return int(_HUGE)
        height = max(height, top)
        offsets[block] = chosen
        for i in range(pointer[block], pointer[block + 1]):
            _show(tree, leaves, position[i], ends[position[i]])
    return int(height)


@entry
def improve(
    order: np.ndarray,
    pointer: np.ndarray,
    position: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    block_at: np.ndarray,
    before: np.ndarray,
    size: np.ndarray,
    alignment: np.ndarray,
    fixed: np.ndarray,
    height: int,
    target: int,
    rounds: int,
    seed: int,
    stop: np.ndarray,
    offsets: np.ndarray,
) -> int:
    """Moves blocks that end too high to the front of the order, and keeps what is no worse.

    Squeaky wheel optimization (Joslin and Clements, 1999) with a random part: each round, one of the blocks that end
    above the target, or else any, chooses earlier, at a random place of the order.

    Args:
      order: `[num_blocks]` of a first-fit pass that gave `offsets` and `height`; is changed to the best one found.
      height, offsets: of that pass; the offsets are changed to the best ones found.
      target: height at which to stop.
      rounds: how many passes to try.
      seed: of the random choices.
      stop: `[1] int64` the rounds end when another thread makes this other than zero.
      others: as for `fit`.

    Returns:
      the height of the best offsets found.
    """
    np.random.seed(seed)
    num_blocks = len(order)
    trial, trial_offsets = order.copy(), offsets.copy()
    current = offsets.copy()
    high = np.empty(num_blocks, np.int64)
    for _ in range(rounds):
        if height <= target or stop[0] != 0:
            break
        num_high = 0
        for rank in range(num_blocks):
            block = order[rank]
            if current[block] + size[block] > target:
                high[num_high] = rank
                num_high += 1
        if num_high > 0 and np.random.random() < 0.8:
            source = high[np.random.randint(num_high)]
        else:
            source = np.random.randint(num_blocks)
        destination = np.random.randint(source + 1)
        trial[:] = order
        moved = trial[source]
        for rank in range(source, destination, -1):
            trial[rank] = trial[rank - 1]
        trial[destination] = moved
        found = fit(
            trial, pointer, position, starts, ends, block_at, before, size, alignment, fixed, height, target, False,
            trial_offsets,
        )  # fmt: skip
        if found <= height:
            if found < height:
                offsets[:] = trial_offsets
            height = found
            order[:] = trial
            current[:] = trial_offsets
    return int(height)
