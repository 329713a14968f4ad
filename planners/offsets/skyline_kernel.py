"""Blocks stacked on a skyline: the lowest place is filled first. Compiled by numba.

    offset                        The skyline has a height at each section of the time. Its lowest segment takes a block
      ▲   ┌──┐                    that is alive within it and has the highest rank of those. If there is none, the
      │ ┌─┘  └──┐    ┌──          segment is raised to its lower neighbour, and what is beneath it stays unused.
      │ │       └────┘ ◄── the lowest segment
      └─┴───────────────► time

This is best fit for packing into a strip (Burke, Kendall and Whitwell, "A new placement heuristic for the orthogonal
stock-cutting problem", 2004), as it is used for the memory of neural networks (Sekiyama et al., "Profile-guided memory
optimization for deep neural networks", 2018), where times are fixed. Blocks are found in a k-d tree (Bentley, 1975) by
the sections in which they begin and end, so a pass over n blocks takes O(n) steps of about O(log n) each, O(√n) at
most, however many blocks overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memplan.compiler.kernels import entry, internal

TOO_HIGH = np.int64(2**62)

# Nodes that wait at the same time: one for each level of the tree, and the two that are looked at next.
_MAX_WAITING = 70


class BlockTree(NamedTuple):
    """The k-d tree: node 1 is the root, and nodes 2i and 2i + 1 are below node i.

    Attributes:
      block: `[num_leaves] int64` the block at each leaf; -1 for none.
      first_low, first_high: `[2 * num_leaves] int64` the lowest and highest section in which blocks below a node begin.
      last_low, last_high: `[2 * num_leaves] int64` the same for the section before which they end.
    """

    block: np.ndarray
    first_low: np.ndarray
    first_high: np.ndarray
    last_low: np.ndarray
    last_high: np.ndarray


class _Skyline(NamedTuple):
    """The segments, each known by its first section.

    Attributes:
      depth: `[2 * leaves] int64` for each node the largest of minus the heights below it; -TOO_HIGH where no segment
        begins.
      end: `[num_sections + 1] int64` where the segment that begins there ends.
      previous: `[num_sections + 1] int64` the segment that ends there; -1 for none.
    """

    depth: np.ndarray
    end: np.ndarray
    previous: np.ndarray


@internal
def _put(tree: np.ndarray, leaf: int, value: int) -> None:
    """Writes to a leaf of a tree whose nodes hold the largest value below them."""
    node = leaf + len(tree) // 2
    tree[node] = value
    node >>= 1
    while node >= 1:
        tree[node] = max(tree[2 * node], tree[2 * node + 1])
        node >>= 1


@internal
def _leaf_of_largest(tree: np.ndarray, node: int) -> int:
    """Returns the first leaf below a node that holds the largest value."""
    while node < len(tree) // 2:
        node *= 2
        if tree[node] < tree[node + 1]:
            node += 1
    return node - len(tree) // 2


@internal
def _highest_within(blocks: BlockTree, ranks: np.ndarray, stack: np.ndarray, first: int, last: int) -> int:
    """Returns the leaf of the highest rank among blocks that are alive from `first` to `last` at most; -1 for none."""
    found, rank = -1, np.int64(0)
    stack[0] = 1
    waiting = 1
    while waiting > 0:
        waiting -= 1
        node = stack[waiting]
        if ranks[node] <= rank or blocks.first_high[node] < first or blocks.last_low[node] > last:
            continue
        if blocks.first_low[node] >= first and blocks.last_high[node] <= last:
            rank = ranks[node]
            found = _leaf_of_largest(ranks, node)
        elif node < len(blocks.block):
            # The child of the higher rank is looked at first.
            is_right_higher = ranks[2 * node] < ranks[2 * node + 1]
            stack[waiting] = 2 * node + 1 - is_right_higher
            stack[waiting + 1] = 2 * node + is_right_higher
            waiting += 2
    return found


@internal
def _remove(skyline: _Skyline, segment: int) -> None:
    """Makes a segment a part of the one before it."""
    before, end = skyline.previous[segment], skyline.end[segment]
    skyline.end[before], skyline.previous[end] = end, before
    _put(skyline.depth, segment, -TOO_HIGH)


@internal
def _split(skyline: _Skyline, segment: int, at: int, height: int) -> None:
    """Makes the part of a segment from a section on a segment of its own."""
    end = skyline.end[segment]
    skyline.end[segment], skyline.previous[at] = at, segment
    skyline.end[at], skyline.previous[end] = end, at
    _put(skyline.depth, at, -height)


@internal
def _join(skyline: _Skyline, segment: int, num_sections: int) -> None:
    """Joins a segment with its neighbours of the same height."""
    leaves = len(skyline.depth) // 2
    depth, end, before = skyline.depth[leaves + segment], skyline.end[segment], skyline.previous[segment]
    if end < num_sections and skyline.depth[leaves + end] == depth:
        _remove(skyline, end)
    if before >= 0 and skyline.depth[leaves + before] == depth:
        _remove(skyline, segment)


@internal
def _raise(skyline: _Skyline, segment: int, num_sections: int) -> None:
    """Raises a segment to the lower one of its neighbours."""
    leaves = len(skyline.depth) // 2
    end, before, depth = skyline.end[segment], skyline.previous[segment], -TOO_HIGH
    if end < num_sections:
        depth = skyline.depth[leaves + end]
    if before >= 0:
        depth = max(depth, skyline.depth[leaves + before])
    _put(skyline.depth, segment, depth)
    _join(skyline, segment, num_sections)


@internal
def _skyline_of(floor: np.ndarray) -> _Skyline:
    leaves = 1
    while leaves < len(floor):
        leaves *= 2
    skyline = _Skyline(
        np.full(2 * leaves, -TOO_HIGH, np.int64),
        np.zeros(len(floor) + 1, np.int64),
        np.full(len(floor) + 1, -1, np.int64),
    )
    begin = 0
    for section in range(1, len(floor) + 1):
        if section == len(floor) or floor[section] != floor[begin]:
            skyline.end[begin], skyline.previous[section] = section, begin
            _put(skyline.depth, begin, -floor[begin])
            begin = section
    return skyline


@entry
def stack_blocks(
    size: np.ndarray,
    alignment: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    blocks: BlockTree,
    rank: np.ndarray,
    floor: np.ndarray,
    limit: int,
    offsets: np.ndarray,
) -> int:
    """Places all blocks.

    Args:
      size, alignment: `[num_blocks] int64` bytes.
      first, last: `[num_blocks] int64` half-open sections.
      blocks: the tree over them.
      rank: `[num_blocks] int64` from 1 on; among blocks that have room at the lowest place, the highest one takes it.
      floor: `[num_sections] int64` the heights from which blocks are stacked.
      limit: a block that would end above it ends the pass.
      offsets: `[num_blocks] int64` receives the offsets.

    Returns:
      the height, or `TOO_HIGH` where the limit ended the pass.
    """
    skyline = _skyline_of(floor)
    ranks = np.zeros(2 * len(blocks.block), np.int64)
    for leaf in range(len(blocks.block)):
        if blocks.block[leaf] >= 0:
            ranks[len(blocks.block) + leaf] = rank[blocks.block[leaf]]
    for node in range(len(blocks.block) - 1, 0, -1):
        ranks[node] = max(ranks[2 * node], ranks[2 * node + 1])
    waiting = np.empty(_MAX_WAITING, np.int64)
    highest = np.int64(0)
    while ranks[1] > 0:
        height = -skyline.depth[1]
        segment = _leaf_of_largest(skyline.depth, 1)
        leaf = _highest_within(blocks, ranks, waiting, segment, skyline.end[segment])
        if leaf < 0:
            _raise(skyline, segment, len(floor))
            continue
        _put(ranks, leaf, 0)
        block = blocks.block[leaf]
        rest = height % alignment[block]
        offsets[block] = height + alignment[block] - rest if rest else height
        top = offsets[block] + size[block]
        if top > limit:
            return int(TOO_HIGH)
        highest = max(highest, top)
        if last[block] < skyline.end[segment]:
            _split(skyline, segment, last[block], height)
        if first[block] > segment:
            _split(skyline, segment, first[block], top)
        else:
            _put(skyline.depth, segment, -top)
        _join(skyline, first[block], len(floor))
    return int(highest)
