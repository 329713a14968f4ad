"""What no order is below, without a search.

The sets of indices of the pairs of a tree, each set a bag, are a tree decomposition of the graph in which two indices
are neighbours if a tensor, or the output, has both (Markov and Shi, SIAM J. Comput. 38(3), 2008). Such a decomposition
has a vertex that is in one bag with all its neighbours, and so has any graph that comes about by merging neighbours,
where a merged vertex counts as the smaller of the two. That is the bound of contraction degeneracy for treewidth
(Bodlaender and Koster, *Treewidth computations II*, 2011), here with logarithms of sizes as weights.
"""

from __future__ import annotations

import math

from memplan.planners.contraction.network import TensorNetwork, bits_of
from memplan.planners.contraction.problem import Quantity

# The bound takes the square of the number of indices.
_MOST_INDICES = 2_000


def easy_bound(network: TensorNetwork, minimize: Quantity) -> float:
    """Returns flops, or bytes of the peak, that every tree over all tensors has at least."""
    result = network.elements(network.output)
    if minimize == "peak":
        return float(result * network.itemsize)
    sizes = [network.elements(indices) for indices in network.leaves]
    # Each tensor is in one pair, which costs at least its elements, and a pair has two sides.
    return float(max(result, *sizes, math.ceil(sum(sizes) / 2), _largest_bag(network)))


def _largest_bag(network: TensorNetwork) -> int:
    """Returns elements that the indices of some pair have at least."""
    if len(network.sizes) > _MOST_INDICES:
        return 0
    weights = [math.log2(size) for size in network.sizes]
    near: dict[int, set[int]] = {bit: set() for bit in range(len(weights))}
    for indices in (*network.leaves, network.output):
        bits = bits_of(indices)
        for bit in bits:
            near[bit].update(bits)
    for bit, others in near.items():
        others.discard(bit)
    around = {bit: weights[bit] + math.fsum(weights[other] for other in others) for bit, others in near.items()}
    bound = 0.0
    while near:
        vertex = min(around, key=lambda bit: (around[bit], bit))
        bound = max(bound, around.pop(vertex))
        others = near.pop(vertex)
        for other in others:
            near[other].discard(vertex)
        if others:
            # The neighbour that has fewest neighbours in common becomes one with it.
            merged = min(others, key=lambda bit: (len(near[bit] & others), bit))
            weights[merged] = min(weights[merged], weights[vertex])
            near[merged] |= others - {merged}
            for other in others - {merged}:
                near[other].add(merged)
        for other in others.union(*(near[other] for other in others)):
            around[other] = weights[other] + math.fsum(weights[bit] for bit in near[other])
    return math.ceil(2.0**bound * (1 - 1e-9)) if bound < 1000 else 0
