"""The best tree over few nodes, by dynamic programming over their subsets.

Subsets are built from pairs of smaller ones, level by level, among them pairs that share no index. What is above a cap
on flops or peak is dropped, with what the rest is at least yet to cost (Pfeifer, Haegeman and Verstraete, Phys. Rev. E
90, 033315, 2014, who raise such a cap until an order is within it). Flops and peak of a tree grow with those of its
sides, so a subset needs its best tree only, or with a limit on the other quantity those that no other tree beats in
both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.planners.contraction.network import TensorNetwork, bits_of
from memplan.planners.contraction.problem import Quantity
from memplan.planners.contraction.tree import TreeNode, held, pair

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Subsets are masks of one word.
MAX_NODES = 63

# Pairs that are looked at together: few enough for the cache.
_CHUNK = 1 << 17

# Pairs of one level that are worth a look, at most: some hundred bytes each.
_MOST_TAKEN = 2_000_000

# What the rounding of logarithms may come to.
_ROUNDING = 1 + 1e-9


@dataclass
class _Level:
    """Trees over as many nodes each.

    Attributes:
      start: the number of the first tree.
      mask: `[trees] uint64` the nodes of each.
      members: `[trees, indices]` 1.0 for an index that the result has.
      log2: `[trees]` of the elements of the result.
      bytes, held, flops, peak: `[trees]` as in `TreeNode`.
      sides: `[trees, 2]` numbers of trees.
    """

    start: int
    mask: NDArray[np.uint64]
    members: Floats
    log2: Floats
    bytes: Floats
    held: Floats
    flops: Floats
    peak: Floats
    sides: Integers


@dataclass
class SubsetResult:
    """What a search found.

    Attributes:
      tree: the best; None if no tree is within cap and limit.
      finished: whether that is proven; otherwise the search ran out of work.
      work: pairs that it looked at.
    """

    tree: TreeNode | None
    finished: bool
    work: int


class SubsetSearch:
    """Searches the trees over nodes, up to 63.

    Args:
      network: the network.
      nodes: tensors of it, or trees that stay as they are.
      minimize: flops or peak.
      limit: on the other; infinity for none.
    """

    def __init__(self, network: TensorNetwork, nodes: Sequence[TreeNode], minimize: Quantity, limit: float = math.inf):
        self._network, self._nodes, self._minimize, self._limit = network, nodes, minimize, limit
        tensors = 0
        indices = 0
        for node in nodes:
            tensors, indices = tensors | node.tensors, indices | node.indices
        bits = bits_of(indices)
        self._weights = np.array([math.log2(network.sizes[bit]) for bit in bits])
        self._leaves = np.array([[float(node.indices >> bit & 1) for bit in bits] for node in nodes])
        self._leaves = self._leaves.reshape(len(nodes), len(bits))
        self._total = self._leaves.sum(0)
        self._stays: NDArray[np.bool_] = np.array(
            [bool(network.output >> bit & 1 or network.holders[bit] & ~tensors) for bit in bits], dtype=bool
        )
        self._elements = np.array([float(network.elements(node.indices)) for node in nodes])
        self._few_products = minimize == "flops" and math.isinf(limit) and self._is_plain()

    def run(self, cap: float, work: float = math.inf) -> SubsetResult:
        """Returns the best tree whose minimized quantity is at most a cap.

        Args:
          cap: infinity for none.
          work: pairs to look at, at most.
        """
        caps = (cap, self._limit) if self._minimize == "flops" else (self._limit, cap)
        self._most_flops, self._most_peak = (each * _ROUNDING for each in caps)
        levels = [self._first()]
        done = 0
        for size in range(2, len(self._nodes) + 1):
            found = []
            taken = 0
            for small in range(1, size // 2 + 1):
                first, second = levels[small - 1], levels[size - small - 1]
                done += len(first.mask) * len(second.mask)
                if done > work:
                    return SubsetResult(None, False, done)
                for pairs in self._pairs(first, second):
                    found.append(pairs)
                    taken += len(pairs[2])
                    if taken > _MOST_TAKEN:
                        return SubsetResult(None, False, done)
            start = levels[-1].start + len(levels[-1].mask)
            levels.append(self._selected(found, start, size == len(self._nodes)))
        last = levels[-1]
        if not len(last.mask):
            return SubsetResult(None, True, done)
        values, others = (last.flops, last.peak) if self._minimize == "flops" else (last.peak, last.flops)
        best = int(np.lexsort((others, values))[0])
        return SubsetResult(self._tree(levels, last.start + best), True, done)

    def _first(self) -> _Level:
        nodes = self._nodes
        return _Level(
            start=0,
            mask=np.array([1 << number for number in range(len(nodes))], np.uint64),
            members=self._leaves,
            log2=self._leaves @ self._weights,
            bytes=np.array([float(node.bytes) for node in nodes]),
            held=np.array([float(held(node)) for node in nodes]),
            flops=np.array([float(node.flops) for node in nodes]),
            peak=np.array([float(node.peak) for node in nodes]),
            sides=np.zeros((len(nodes), 2), np.int64),
        )

    def _pairs(self, first: _Level, second: _Level) -> Iterator[tuple[_Level, _Level, Integers, Integers, Floats]]:
        """Yields pairs that may be within the caps: levels, rows in them, and log2 of the elements of all indices."""
        rows = max(1, _CHUNK // max(1, len(second.mask)))
        for begin in range(0, len(first.mask), rows):
            part = slice(begin, begin + rows)
            good = (first.mask[part, None] & second.mask) == 0
            if first is second:
                good &= np.arange(begin, begin + len(good))[:, None] < np.arange(len(second.mask))
            shared = (first.members[part] * self._weights) @ second.members.T
            union = first.log2[part, None] + second.log2 - shared
            if math.isfinite(self._most_flops):
                with np.errstate(over="ignore"):
                    flops = first.flops[part, None] + second.flops + np.exp2(union)
                good &= flops <= self._most_flops
                if self._few_products:
                    good &= (shared > 0) | self._useful_products(first, second, part, flops)
            if math.isfinite(self._most_peak):
                good &= first.bytes[part, None] + second.bytes <= self._most_peak
            i, j = np.nonzero(good)
            if len(i):
                yield first, second, i + begin, j, union[i, j]

    def _is_plain(self) -> bool:
        """Whether the nodes are connected, and each index joins two of them or leads out of one."""
        if not ((self._total == 1) == self._stays).all() or (self._total > 2).any():
            return False
        joined = self._leaves @ self._leaves.T > 0
        reached = np.eye(1, len(self._nodes), dtype=bool)[0]
        for _ in self._nodes:
            reached = joined[reached].any(0) | reached
        return bool(reached.all())

    def _useful_products(self, first: _Level, second: _Level, part: slice, flops: Floats) -> NDArray[np.bool_]:
        """Returns which pairs may be worth a product of A and B that share no index, in a plain network.

        Say that C is next. Where A has an index that C has not, B goes to C first for no more flops, and the other way
        round. Where C has all indices of both, with A and B elements, and c times as many itself, the product comes to
        AB + 2ABc flops, and A to C first, then B, to 2ABc + 2Bc: the product may be better if A < 2c and B < 2c. Such a
        C costs ABc ≥ AB max(A, B) / 2 twice.
        """
        inner = (first.members[part] @ self._stays == 0)[:, None] & (second.members @ self._stays == 0)
        with np.errstate(over="ignore"):
            product = np.exp2(first.log2[part, None] + second.log2)
            larger = np.exp2(np.maximum(first.log2[part, None], second.log2))
            useful: NDArray[np.bool_] = inner & (flops + product * larger <= self._most_flops)
        return useful

    def _selected(
        self, found: list[tuple[_Level, _Level, Integers, Integers, Floats]], start: int, is_last: bool
    ) -> _Level:
        """Returns the trees worth keeping of those that pairs make."""
        masks: list[NDArray[np.uint64]] = []
        columns: list[list[Floats]] = [[] for _ in range(6)]
        for first, second, i, j, union in found:
            forth = np.maximum(first.peak[i], first.held[i] + second.peak[j])
            back = np.maximum(second.peak[j], second.held[j] + first.peak[i])
            masks.append(first.mask[i] | second.mask[j])
            parts = (
                union,
                first.flops[i] + second.flops[j],
                np.minimum(forth, back),
                first.bytes[i] + second.bytes[j],
                (first.start + i).astype(np.float64),
                (second.start + j).astype(np.float64),
            )
            for column, part in zip(columns, parts, strict=True):
                column.append(part)
        union, flops, peak, stand, left, right = (
            np.concatenate(column) if column else np.zeros(0) for column in columns
        )
        mask = np.concatenate(masks) if masks else np.zeros(0, np.uint64)
        subsets, group = np.unique(mask, return_inverse=True)
        nodes = (subsets[:, None] >> np.arange(len(self._nodes), dtype=np.uint64) & np.uint64(1)).astype(np.float64)
        count = nodes @ self._leaves
        members = ((count > 0) & (self._stays | (count < self._total))).astype(np.float64)
        log2 = members @ self._weights
        with np.errstate(over="ignore"):
            elements = np.rint(np.exp2(log2))
            # An index of the pair that the result has not is summed; none is of size 1.
            flops = flops + np.rint(np.exp2(union)) * (1.0 + (union > log2[group] + 0.5))
            peak = np.maximum(peak, stand + (elements * self._network.itemsize)[group])
        # Each tensor is used once more, each pair uses two, and costs at least as much as the larger one.
        rest = np.maximum(elements, (elements + self._elements.sum() - nodes @ self._elements) / 2)
        good = (flops + rest[group] * (not is_last) <= self._most_flops) & (peak <= self._most_peak)
        rows = np.nonzero(good)[0]
        rows = rows[self._best(group[rows], flops[rows], peak[rows])]
        which = group[rows]
        return _Level(
            start=start,
            mask=subsets[which],
            members=members[which],
            log2=log2[which],
            bytes=elements[which] * self._network.itemsize,
            held=elements[which] * self._network.itemsize,
            flops=flops[rows],
            peak=peak[rows],
            sides=np.stack([left[rows], right[rows]], 1).astype(np.int64),
        )

    def _best(self, group: Integers, flops: Floats, peak: Floats) -> Integers:
        """Returns the best row of each group, or those that no other row of it beats in both quantities."""
        if not len(group):
            return np.zeros(0, np.int64)
        value, other = (flops, peak) if self._minimize == "flops" else (peak, flops)
        order = np.lexsort((other, value, group))
        group = group[order]
        is_first = np.ones(len(order), bool)
        is_first[1:] = group[1:] != group[:-1]
        if math.isinf(self._limit):
            return order[is_first]
        # Ranks fall from group to group, so that the least so far is that of the row's own group.
        rank = np.unique(other[order], return_inverse=True)[1] - group.astype(np.int64) * (len(order) + 1)
        least = np.minimum.accumulate(rank)
        is_first[1:] |= rank[1:] < least[:-1]
        return order[is_first]

    def _tree(self, levels: list[_Level], number: int) -> TreeNode:
        if number < len(self._nodes):
            return self._nodes[number]
        level = next(level for level in reversed(levels) if level.start <= number)
        first, second = level.sides[number - level.start].tolist()
        return pair(self._network, self._tree(levels, first), self._tree(levels, second))
