"""A tree of pairs: its flops, and its peak if one side of each pair is finished before the other is begun.

Of the two sides, the one goes first that leaves the lower peak (Sethi and Ullman, JACM 17(4), 1970, for memory in
place of registers). An order that goes back and forth between sides may have a lower peak still (Liu, SIAM J.
Algebraic Discrete Methods 8(3), 1987); it is not considered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from memplan.planners.contraction.network import TensorNetwork


class TreeNode(NamedTuple):
    """A tensor of the problem, or the result of a pair.

    Attributes:
      sides: the two nodes that are contracted, the one that goes first in front; None for a tensor of the problem.
      tensors: which tensors of the problem are in it.
      indices: that it has.
      bytes: that it takes until it is used.
      flops: of its tree.
      peak: of its tree.
    """

    sides: tuple[TreeNode, TreeNode] | None
    tensors: int
    indices: int
    bytes: int
    flops: int
    peak: int


def leaf(network: TensorNetwork, number: int) -> TreeNode:
    """Returns the node of a tensor of the problem."""
    bytes_ = network.leaf_bytes[number]
    return TreeNode(None, 1 << number, network.leaves[number], bytes_, 0, bytes_)


def pair(network: TensorNetwork, first: TreeNode, second: TreeNode) -> TreeNode:
    """Returns the node of a pair."""
    union, tensors = first.indices | second.indices, first.tensors | second.tensors
    kept = network.open_indices(union, tensors)
    bytes_ = network.elements(kept) * network.itemsize
    forth, back = max(first.peak, held(first) + second.peak), max(second.peak, held(second) + first.peak)
    flops = first.flops + second.flops + network.pair_flops(union, kept)
    sides = (first, second) if forth <= back else (second, first)
    peak = max(min(forth, back), first.bytes + second.bytes + bytes_)
    return TreeNode(sides, tensors, kept, bytes_, flops, peak)


def held(node: TreeNode) -> int:
    """Returns the bytes that wait for the other side; the copy of a tensor is made where it is used."""
    return node.bytes if node.sides is not None else 0


def postorder(root: TreeNode) -> Iterator[TreeNode]:
    """Yields nodes after their sides, in the order of execution, without recursion: trees may be deep."""
    stack = [(root, False)]
    while stack:
        node, is_open = stack.pop()
        if node.sides is None or is_open:
            yield node
        else:
            stack += [(node, True), (node.sides[1], False), (node.sides[0], False)]


def path_of(root: TreeNode, count: int) -> tuple[tuple[int, int], ...]:
    """Returns the path of a tree over `count` tensors; see `ContractionPlan`."""
    numbers: dict[int, int] = {}
    path = []
    for node in postorder(root):
        if node.sides is None:
            numbers[node.tensors] = node.tensors.bit_length() - 1
        else:
            first, second = (numbers[side.tensors] for side in node.sides)
            path.append((min(first, second), max(first, second)))
            numbers[node.tensors] = count + len(path) - 1
    return tuple(path)


def tree_of(network: TensorNetwork, path: Sequence[Sequence[int]]) -> TreeNode:
    """Returns the tree of a path; its own order of execution may be a better one than that of the path."""
    nodes = [leaf(network, number) for number in range(len(network.leaves))]
    for first, second in path:
        nodes.append(pair(network, nodes[first], nodes[second]))
    return nodes[-1]
