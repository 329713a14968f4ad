"""A tree by taking the pair next that shrinks memory most, with or without chance.

Gray and Kourtis, "Hyper-optimized tensor network contraction", Quantum 5, 410, 2021, section 4.1: the score of a pair
is what its result is larger than its two sides, and noise in the logarithm of the score draws other trees.
"""

from __future__ import annotations

import heapq
import math
import random

from memplan.planners.contraction.network import TensorNetwork, bits_of
from memplan.planners.contraction.tree import TreeNode, leaf, pair

# An index that more tensors have than this offers pairs of the smallest of them.
_MOST_HOLDERS = 12


def greedy_tree(network: TensorNetwork, draw: random.Random | None = None) -> TreeNode:
    """Returns a tree over all tensors.

    Args:
      network: of one tensor or more.
      draw: adds noise, and draws its strength; None for the plain greedy tree.
    """
    strength = 0.0 if draw is None else 10.0 ** draw.uniform(-2.0, 0.5)
    weight = 1.0 if draw is None else draw.uniform(0.3, 1.5)
    nodes = {number: leaf(network, number) for number in range(len(network.leaves))}
    holders = [set(bits_of(mask)) for mask in network.holders]
    heap: list[tuple[float, int, int]] = []

    def offer(first: int, second: int) -> None:
        one, other = nodes[first], nodes[second]
        kept = network.open_indices(one.indices | other.indices, one.tensors | other.tensors)
        score = network.elements(kept) - weight * (network.elements(one.indices) + network.elements(other.indices))
        if strength:
            assert draw is not None
            noise = -math.log(-math.log(draw.random() or 0.5))
            score = math.copysign(math.log2(1 + abs(score)), score) - strength * noise
        heapq.heappush(heap, (float(score), first, second))

    def neighbours(number: int) -> list[int]:
        found: set[int] = set()
        for bit in bits_of(nodes[number].indices):
            others = holders[bit] - {number}
            if len(others) > _MOST_HOLDERS:
                found.update(sorted(others, key=lambda o: (network.elements(nodes[o].indices), o))[:_MOST_HOLDERS])
            else:
                found.update(others)
        return sorted(found)

    for number in list(nodes):
        for other in neighbours(number):
            if number < other or number not in neighbours(other):
                offer(*sorted((number, other)))
    new = len(nodes)
    while heap:
        _, first, second = heapq.heappop(heap)
        if first not in nodes or second not in nodes:
            continue
        for side in (first, second):
            for bit in bits_of(nodes[side].indices):
                holders[bit].discard(side)
        nodes[new] = pair(network, nodes.pop(first), nodes.pop(second))
        for bit in bits_of(nodes[new].indices):
            holders[bit].add(new)
        for other in neighbours(new):
            offer(other, new)
        new += 1
    return _joined(network, list(nodes.values()))


def _joined(network: TensorNetwork, parts: list[TreeNode]) -> TreeNode:
    """Returns one tree of parts that share no index, the smallest first."""
    heap = [(network.elements(part.indices), number, part) for number, part in enumerate(parts)]
    heapq.heapify(heap)
    new = len(heap)
    while len(heap) > 1:
        joined = pair(network, heapq.heappop(heap)[2], heapq.heappop(heap)[2])
        heapq.heappush(heap, (network.elements(joined.indices), new, joined))
        new += 1
    return heap[0][2]
