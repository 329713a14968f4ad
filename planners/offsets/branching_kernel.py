"""Does everything fit a capacity? The depth-first search over canonical placements, compiled by numba.

The method is that of Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning",
ASPLOS 2023, sections 4 and 5. Blocks are placed from the bottom up: each lies on those beneath it, and offsets never
decrease along a path of the search. A *section* is a span of time in which no block starts or ends.

    offset
      ▲                 ┌───┐          the path so far: a, b, c
      │        ┌────────┤ c │          d may come next: on b and c, the lowest that it can lie
      ├────────┤   b    ├───┤          floor of a section: the lowest offset of any block still to come there
      │   a    │        │///│ ◄─ lost
      └────────┴────────┴───┴──► time, in sections

A path is given up where (each is a switch in `Techniques`, and sound by itself)

- `sections`: in some section the blocks still to come there exceed the capacity, even if each lies as low as its own
  floor allows (as jobs with release dates on one machine); the paper has the floor of the section for all of them;
- `dominance`: some block still to come would end beneath the one that is placed now, so would better be placed first;
- `blocked`: a block that lies too low for the order of the path, so must be lifted by another one, cannot be lifted in
  time: its floor is the top of the lowest block that can still slip beneath it (not in the paper; needs `sections`);
- `decomposition`: when no block still to come spans a boundary between sections, both sides are searched one after the
  other, and if one fails, the other is not tried again;
- `reordering`: each such side is ordered anew, by the loads that are left in its sections.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memplan.compiler.kernels import entry

FOUND, EXHAUSTED, LIMIT = 1, 0, -1
UNPLACED = -1

_HUGE = np.int64(2**62)

# Columns of the frames of the search. A frame chooses the next block of a part: of the blocks order[LOW:HIGH], which
# take memory within the sections FIRST to LAST.
_LOW, _HIGH, _FIRST, _LAST = 0, 1, 2, 3
# Offset and rank of the block placed before; which ranks count; the frame to go back to if this one fails.
_OFFSET, _RANK, _LEVEL, _PARENT = 4, 5, 6, 7
# Its candidates[BEGIN:END], and which is next; what it has placed, and where the trail began.
_BEGIN, _NEXT, _END, _PLACED, _TRAIL = 8, 9, 10, 11, 12
# The parts[PARTS:PARTS_END] that remain after what it placed, and which of them is searched next.
_PARTS, _PART, _PARTS_END = 13, 14, 15
_COLUMNS = 16

# Columns of parts: as of frames, and whether the part has others beside it.
_IS_CUT = 4


class Blocks(NamedTuple):
    """What is to be placed. A block's number is its rank: of two that may lie equally low, the first is tried first.

    Attributes:
      size, alignment: `[num_blocks] int64` bytes.
      fixed: `[num_blocks] int64` the only offset allowed, or -1.
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


class _State(NamedTuple):
    """A path of the search.

    Attributes:
      offsets: `[num_blocks]` of what is placed, otherwise UNPLACED.
      lowest: `[num_blocks]` where each block can lie at the lowest, given what is placed.
      total: `[num_sections]` sizes of the blocks still to come.
      cuts: `[num_sections]` how many of them span the boundary after the section.
      order: `[num_blocks]` the blocks, those of a part side by side.
      floors: `[num_blocks]` scratch: where each block can lie at the lowest, given the order of the path.
      tops: `[num_blocks]` scratch: the least top of each block still to come; huge for others.
      level: `[num_sections]` scratch.
      trail_block, trail_lowest: what `lowest` was before it was raised.
      conflicts: `[num_sections]` how often a path was given up for each.
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


@entry
def search(
    blocks: Blocks,
    num_sections: int,
    capacity: int,
    node_limit: int,
    techniques: np.ndarray,
    stop: np.ndarray,
    nodes: np.ndarray,
    conflicts: np.ndarray,
    offsets: np.ndarray,
) -> int:
    """Searches for offsets under a capacity.

    Args:
      blocks: what is to be placed; none has size 0.
      num_sections: of time.
      capacity: bytes.
      node_limit: how many placements may be tried before the search gives up.
      techniques: `[5] bool`: sections, dominance, blocked, decomposition, reordering.
      stop: `[1] int64` the search gives up when another thread makes this other than zero.
      nodes: `[1] int64` is set to the number of placements tried.
      conflicts: `[num_sections] int64` how often a path was given up for each section is added to it.
      offsets: `[num_blocks] int64` receives the offsets if they are found.

    Returns:
      FOUND, EXHAUSTED (proven: there are none), or LIMIT.
    """
    use_sections, use_dominance, use_blocked = techniques[0], techniques[1], techniques[2]
    use_decomposition, use_reordering = techniques[3], techniques[4]
    num_blocks = len(blocks.size)
    state = _start(blocks, num_sections, conflicts, offsets)
    for block in range(num_blocks):
        if state.lowest[block] + blocks.size[block] > capacity:
            return EXHAUSTED
    for section in range(num_sections):
        if state.total[section] > capacity:
            return EXHAUSTED
    ranks = np.zeros((num_blocks + 1, num_blocks), np.int32)
    ranks[0] = np.arange(num_blocks)
    frames = np.zeros((num_blocks + 2, _COLUMNS), np.int64)
    frames[0, _HIGH], frames[0, _LAST] = num_blocks, num_sections
    frames[0, _PARENT] = -1
    candidates = np.empty(num_blocks * (num_blocks + 3) // 2 + 1, np.int32)
    parts = np.empty((2 * num_blocks + num_sections + 4, 5), np.int64)
    most = np.zeros(num_blocks, np.int64)
    trail, count, depth, is_new, result = 0, 0, 0, True, LIMIT
    while True:
        frame = frames[depth]
        if is_new:
            _choose(frame, blocks, state, ranks[frame[_LEVEL]], candidates, use_dominance)
            is_new = False
        if frame[_NEXT] == frame[_END]:
            # Back to the block before; out of one of several parts, to the block whose choice made them.
            parent = frame[_PARENT]
            if parent < 0:
                result = EXHAUSTED
                break
            while depth > parent:
                depth -= 1
                trail = _take_back(frames[depth], blocks, state, trail)
            continue
        if count >= node_limit or stop[0] != 0:
            break
        count += 1
        block = candidates[frame[_NEXT]]
        frame[_NEXT] += 1
        fits, is_cut, trail = _place(frame, block, blocks, state, trail, capacity)
        if fits and use_sections:
            fits = _fits_floors(frame, blocks, state, capacity) and _fits_levels(
                frame, blocks, state, ranks[frame[_LEVEL]], capacity, use_blocked
            )
        if not fits:
            trail = _take_back(frame, blocks, state, trail)
            continue
        _split(frame, blocks, state, parts, is_cut and use_decomposition)
        # The next part that is not done: of this frame, or of the one that this frame is in a part of.
        owner = depth
        while owner >= 0 and frames[owner, _PART] == frames[owner, _PARTS_END]:
            owner = frames[owner, _PARENT]
        if owner < 0:
            result = FOUND
            break
        part = parts[frames[owner, _PART]]
        frames[owner, _PART] += 1
        placed, level = frames[owner, _PLACED], frames[owner, _LEVEL]
        child = frames[depth + 1]
        child[_LOW], child[_HIGH], child[_FIRST], child[_LAST] = part[_LOW], part[_HIGH], part[_FIRST], part[_LAST]
        child[_OFFSET], child[_RANK], child[_LEVEL] = state.offsets[placed], ranks[level, placed], level
        child[_PARENT], child[_BEGIN], child[_PARTS] = owner, frame[_END], frame[_PARTS_END]
        if use_reordering and part[_IS_CUT] != 0:
            # Ranks are new, so that of the block before says nothing.
            child[_LEVEL], child[_RANK] = level + 1, -1
            _reorder(child, blocks, state, most, ranks[level + 1])
        depth += 1
        is_new = True
    nodes[0] = count
    return result


@entry
def _start(blocks: Blocks, num_sections: int, conflicts: np.ndarray, offsets: np.ndarray) -> _State:
    """Returns the empty path."""
    num_blocks, num_pairs = len(blocks.size), len(blocks.companions)
    state = _State(
        offsets,
        np.zeros(num_blocks, np.int64),
        np.zeros(num_sections, np.int64),
        np.zeros(num_sections, np.int64),
        np.arange(num_blocks),
        np.zeros(num_blocks, np.int64),
        np.full(num_blocks, _HUGE, np.int64),
        np.zeros(num_sections, np.int64),
        np.empty(num_pairs + 1, np.int64),
        np.empty(num_pairs + 1, np.int64),
        conflicts,
    )
    for block in range(num_blocks):
        offsets[block] = UNPLACED
        state.lowest[block] = max(blocks.fixed[block], 0)
        _count_in(blocks, state, block)
    return state


@entry
def _count_in(blocks: Blocks, state: _State, block: int) -> None:
    """Counts a block among those still to come: its size in its sections, and the borders that it spans."""
    for i in range(blocks.pointer[block], blocks.pointer[block + 1]):
        for section in range(blocks.first[i], blocks.last[i]):
            state.total[section] += blocks.size[block]
    begin, end = _span(blocks, block)
    for section in range(begin, end - 1):
        state.cuts[section] += 1


@entry
def _span(blocks: Blocks, block: int) -> tuple[int, int]:
    """Returns the sections from a block's first to its last, gaps included."""
    return blocks.first[blocks.pointer[block]], blocks.last[blocks.pointer[block + 1] - 1]


@entry
def _choose(
    frame: np.ndarray,
    blocks: Blocks,
    state: _State,
    rank_of: np.ndarray,
    candidates: np.ndarray,
    use_dominance: bool,
) -> None:
    """Lists the blocks of a frame's part that may come next, the lowest first."""
    lowest, order = state.lowest, state.order
    ceiling = _HUGE
    if use_dominance:
        for i in range(frame[_LOW], frame[_HIGH]):
            ceiling = min(ceiling, lowest[order[i]] + blocks.size[order[i]])
    begin = frame[_BEGIN]
    end = begin
    least, rank = frame[_OFFSET], frame[_RANK]
    for i in range(frame[_LOW], frame[_HIGH]):
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
    frame[_NEXT], frame[_END] = begin, end


@entry
def _place(
    frame: np.ndarray, block: int, blocks: Blocks, state: _State, trail: int, capacity: int
) -> tuple[bool, bool, int]:
    """Places a block as low as it can lie, and moves it to the end of the frame's part of the order.

    Returns:
      whether those on it still fit, whether no block still to come spans some boundary any more, and the trail's end.
    """
    offsets, lowest, total, order = state.offsets, state.lowest, state.total, state.order
    frame[_PLACED], frame[_TRAIL] = block, trail
    offsets[block] = lowest[block]
    top = lowest[block] + blocks.size[block]
    fits, is_cut = True, False
    for i in range(blocks.pointer[block], blocks.pointer[block + 1]):
        for section in range(blocks.first[i], blocks.last[i]):
            total[section] -= blocks.size[block]
            if total[section] > 0 and top + total[section] > capacity:
                fits = False
                state.conflicts[section] += 1
    begin, end = _span(blocks, block)
    for section in range(begin, end - 1):
        state.cuts[section] -= 1
        if state.cuts[section] == 0:
            is_cut = True
    i, last = frame[_LOW], frame[_HIGH] - 1
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
            state.trail_block[trail], state.trail_lowest[trail] = other, lowest[other]
            trail += 1
            rest = top % blocks.alignment[other] if blocks.alignment[other] > 1 else 0
            lowest[other] = top + blocks.alignment[other] - rest if rest else top
            if lowest[other] + blocks.size[other] > capacity or blocks.fixed[other] >= 0:
                fits = False
                begin, end = _span(blocks, other)
                for section in range(begin, end):
                    state.conflicts[section] += 1
                break
    return fits, is_cut, trail


@entry
def _take_back(frame: np.ndarray, blocks: Blocks, state: _State, trail: int) -> int:
    """Takes the block that a frame placed from where it was; returns the new end of the trail."""
    block = frame[_PLACED]
    state.offsets[block] = UNPLACED
    while trail > frame[_TRAIL]:
        trail -= 1
        state.lowest[state.trail_block[trail]] = state.trail_lowest[trail]
    _count_in(blocks, state, block)
    return trail


@entry
def _fits_floors(frame: np.ndarray, blocks: Blocks, state: _State, capacity: int) -> bool:
    """Whether each section of the part has room for what is still to come above its floor.

    `_fits_levels` finds all that this finds, and more, but takes longer.
    """
    level, total, order = state.level, state.total, state.order
    offset = state.offsets[frame[_PLACED]]
    begin, end = frame[_FIRST], frame[_LAST]
    for section in range(begin, end):
        level[section] = _HUGE
    for i in range(frame[_LOW], frame[_HIGH] - 1):
        least = max(state.lowest[order[i]], offset)
        for j in range(blocks.pointer[order[i]], blocks.pointer[order[i] + 1]):
            for section in range(blocks.first[j], blocks.last[j]):
                level[section] = min(level[section], least)
    worst = np.int64(0)
    for section in range(begin, end):
        if total[section] > 0:
            worst = max(worst, level[section] + total[section])
    if worst <= capacity:
        return True
    for section in range(begin, end):
        if total[section] > 0 and level[section] + total[section] > capacity:
            state.conflicts[section] += 1
    return False


@entry
def _fits_levels(
    frame: np.ndarray, blocks: Blocks, state: _State, rank_of: np.ndarray, capacity: int, use_blocked: bool
) -> bool:
    """Whether each section has room for what is still to come if each block lies on its own floor or higher."""
    lowest, floors, tops, level, order = state.lowest, state.floors, state.tops, state.level, state.order
    low, high, placed = frame[_LOW], frame[_HIGH] - 1, frame[_PLACED]
    offset, rank = state.offsets[placed], rank_of[placed]
    tops[placed] = _HUGE
    for i in range(low, high):
        tops[order[i]] = max(lowest[order[i]], offset) + blocks.size[order[i]]
    for i in range(low, high):
        block = order[i]
        least = max(lowest[block], offset)
        if use_blocked and (lowest[block] < offset or (lowest[block] == offset and rank_of[block] < rank)):
            # Another one must come beneath it.
            lifted = _HUGE
            for j in range(blocks.companion_pointer[block], blocks.companion_pointer[block + 1]):
                lifted = min(lifted, tops[blocks.companions[j]])
            least = max(least, lifted)
            if least + blocks.size[block] > capacity or blocks.fixed[block] >= 0:
                return False
        floors[block] = least
        # By ascending floor. The order is nearly that of the frame before.
        j = i
        while j > low and floors[order[j - 1]] > least:
            order[j] = order[j - 1]
            j -= 1
        order[j] = block
    for section in range(frame[_FIRST], frame[_LAST]):
        level[section] = 0
    for i in range(low, high):
        block = order[i]
        worst = np.int64(0)
        for j in range(blocks.pointer[block], blocks.pointer[block + 1]):
            for section in range(blocks.first[j], blocks.last[j]):
                level[section] = max(level[section], floors[block]) + blocks.size[block]
                worst = max(worst, level[section])
        if worst > capacity:
            for j in range(blocks.pointer[block], blocks.pointer[block + 1]):
                for section in range(blocks.first[j], blocks.last[j]):
                    if level[section] > capacity:
                        state.conflicts[section] += 1
            return False
    return True


@entry
def _split(frame: np.ndarray, blocks: Blocks, state: _State, parts: np.ndarray, is_cut: bool) -> None:
    """Lists the parts of what remains of a frame's part: those between the boundaries that are cut now, or all."""
    order = state.order
    low, high = frame[_LOW], frame[_HIGH] - 1
    count = frame[_PARTS]
    frame[_PART] = count
    if high > low and not is_cut:
        part = parts[count]
        part[_LOW], part[_HIGH], part[_FIRST], part[_LAST], part[_IS_CUT] = low, high, frame[_FIRST], frame[_LAST], 0
        count += 1
    elif high > low:
        begin = frame[_FIRST]
        first, last = _span(blocks, frame[_PLACED])
        for section in range(first, last):
            if section < last - 1 and state.cuts[section] != 0:
                continue
            end = section + 1 if section < last - 1 else frame[_LAST]
            # Those within [begin, end) to the front.
            start = low
            for i in range(start, high):
                block = order[i]
                own_first, own_last = _span(blocks, block)
                if own_first >= begin and own_last <= end:
                    order[i] = order[low]
                    order[low] = block
                    low += 1
            if low > start:
                part = parts[count]
                part[_LOW], part[_HIGH], part[_FIRST], part[_LAST], part[_IS_CUT] = start, low, begin, end, 1
                count += 1
            begin = end
    frame[_PARTS_END] = count


@entry
def _reorder(frame: np.ndarray, blocks: Blocks, state: _State, most: np.ndarray, rank_of: np.ndarray) -> None:
    """Ranks the blocks of a part by the largest load that is left in any of their sections, then by their numbers."""
    order = state.order
    low, high = frame[_LOW], frame[_HIGH]
    for i in range(low, high):
        block = order[i]
        most[block] = 0
        for j in range(blocks.pointer[block], blocks.pointer[block + 1]):
            for section in range(blocks.first[j], blocks.last[j]):
                most[block] = max(most[block], state.total[section])
        j = i
        while j > low and (
            most[order[j - 1]] < most[block] or (most[order[j - 1]] == most[block] and order[j - 1] > block)
        ):
            order[j] = order[j - 1]
            j -= 1
        order[j] = block
    for i in range(low, high):
        rank_of[order[i]] = i - low
