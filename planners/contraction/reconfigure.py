"""Better trees from a given one: parts of a few nodes are searched exactly and put back.

Gray and Kourtis, Quantum 5, 410, 2021, section 4.3 ("subtree reconfiguration"). A part is a node of the tree with some
of its descendants, those of the most flops taken apart first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from memplan.planners.contraction.exact import SubsetSearch
from memplan.planners.contraction.network import TensorNetwork
from memplan.planners.contraction.problem import Quantity
from memplan.planners.contraction.tree import TreeNode, pair, postorder

Rank = Callable[[TreeNode], tuple[float, ...]]


def reconfigure(
    network: TensorNetwork, root: TreeNode, rank: Rank, minimize: Quantity, limit: float, size: int, rounds: int
) -> TreeNode:
    """Returns the best tree of those that rounds of changes lead to.

    Args:
      network: the network.
      root: the tree to start from.
      rank: of whole trees, the lowest is the best.
      minimize: what the search of parts minimizes.
      limit: on the other quantity; infinity for none.
      size: nodes of a part.
      rounds: the most; they end earlier if nothing changes.
    """
    seen: set[tuple[int, ...]] = set()
    best = root
    for _ in range(rounds):
        changed = _round(network, root, minimize, limit, size, seen)
        if changed is root:
            break
        root = changed
        best = min(best, root, key=rank)
    return best


def _round(
    network: TensorNetwork, root: TreeNode, minimize: Quantity, limit: float, size: int, seen: set[tuple[int, ...]]
) -> TreeNode:
    """Returns the tree after one try at every node, those below first; the tree itself if nothing changed."""
    made: dict[int, TreeNode] = {}
    total, is_changed = root.flops, False
    for node in postorder(root):
        if node.sides is None:
            made[node.tensors] = node
            continue
        before = pair(network, *(made.pop(side.tensors) for side in node.sides))
        after = before
        parts = _parts(before, size)
        key = tuple(sorted(part.tensors for part in parts))
        if len(parts) > 2 and key not in seen:
            seen.add(key)
            # What all other pairs take of a limit on flops is not to be had here.
            here = limit if minimize == "flops" else limit - (total - before.flops)
            after = _searched(network, before, parts, minimize, here)
        if after is not before:
            is_changed = True
            total += after.flops - before.flops
        made[node.tensors] = after
    return made[root.tensors] if is_changed else root


def _searched(
    network: TensorNetwork, before: TreeNode, parts: list[TreeNode], minimize: Quantity, limit: float
) -> TreeNode:
    """Returns the best tree of parts if it beats the one that there is."""
    value, other = (before.flops, before.peak) if minimize == "flops" else (before.peak, before.flops)
    cap = value if other <= limit else math.inf
    found = SubsetSearch(network, parts, minimize, limit).run(cap).tree
    if found is None:
        return before
    if other > limit:
        return found
    new, new_other = (found.flops, found.peak) if minimize == "flops" else (found.peak, found.flops)
    return found if (new, new_other) < (value, other) else before


def _parts(node: TreeNode, size: int) -> list[TreeNode]:
    """Returns the roots of what is left below when nodes are taken apart, `size` at most."""
    heap = [(-node.flops, node.tensors, node)]
    leaves: list[TreeNode] = []
    while heap and len(heap) + len(leaves) < size:
        _, _, top = heapq.heappop(heap)
        if top.sides is None:
            leaves.append(top)
            continue
        for side in top.sides:
            heapq.heappush(heap, (-side.flops, side.tensors, side))
    return leaves + [top for _, _, top in heap]
