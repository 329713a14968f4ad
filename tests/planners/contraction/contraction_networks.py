"""Tensor networks, and their best orders by enumeration."""

from __future__ import annotations

import random
from collections.abc import Iterator

from memplan.planners.contraction import ContractionProblem
from memplan.planners.contraction.problem import Quantity

Node = int | tuple["Node", "Node"]


def drawn_network(
    tensors: int, seed: int, minimize: Quantity = "flops", limit: float | None = None
) -> ContractionProblem:
    """Returns a connected network at random: a tree of indices, half as many more, and some in the output."""
    draw = random.Random(seed)
    operands: list[list[str]] = [[] for _ in range(tensors)]
    sizes = {}
    for number in range(1, tensors + tensors // 2):
        index = chr(ord("a") + number) if number < 26 else chr(0x100 + number)
        sizes[index] = draw.randint(2, 6)
        first = number if number < tensors else draw.randrange(1, tensors)
        for tensor in (first, draw.randrange(first)):
            operands[tensor].append(index)
    output = tuple(index for index in sizes if draw.random() < 0.2)
    return ContractionProblem(tuple(map(tuple, operands)), output, sizes, 4, minimize, limit)


def trees(nodes: tuple[int, ...]) -> Iterator[Node]:
    """Yields every tree over nodes, each with both orders of each pair."""
    if len(nodes) == 1:
        yield nodes[0]
    for mask in range(1, 2 ** len(nodes) - 1):
        for first in trees(tuple(node for place, node in enumerate(nodes) if mask >> place & 1)):
            for second in trees(tuple(node for place, node in enumerate(nodes) if not mask >> place & 1)):
                yield first, second


def cost_of(problem: ContractionProblem, tree: Node) -> tuple[int, int]:
    """Returns flops and peak of a tree, its sides in their order, by walking it with sets."""
    flops = peak = standing = 0

    def elements(indices: set[str]) -> int:
        product = 1
        for index in indices:
            product *= problem.sizes[index]
        return product

    def walk(node: Node) -> tuple[set[str], set[int], int]:
        nonlocal flops, peak, standing
        if isinstance(node, int):
            indices = set(problem.operands[node])
            used = set(problem.output).union(*(o for n, o in enumerate(problem.operands) if n != node))
            kept = indices & used
            flops += elements(indices) if elements(indices) > elements(kept) else 0
            wide = [index for index in problem.operands[node] if problem.sizes[index] > 1]
            is_copy = elements(indices) > elements(kept) or len(set(wide)) < len(wide)
            return kept, {node}, -problem.itemsize * elements(kept) if is_copy else 0
        (one, left, bytes_one), (other, right, bytes_other) = walk(node[0]), walk(node[1])
        rest = [o for n, o in enumerate(problem.operands) if n not in left | right]
        result = (one | other) & set(problem.output).union(*rest)
        flops += elements(one | other) * (2 if elements(result) < elements(one | other) else 1)
        new = problem.itemsize * elements(result)
        copies = -min(bytes_one, 0) - min(bytes_other, 0)
        peak = max(peak, standing + copies + new)
        standing += new - max(bytes_one, 0) - max(bytes_other, 0)
        return result, left | right, new

    walk(tree)
    return flops, peak
