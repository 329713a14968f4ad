"""Dyadic intervals over time, so that a long interval takes a few numbers of a program and not one for each moment.

Time is cut into *positions*, two for each operation: `2 t` is the wait before operation `t`, `2 t + 1` its run; the
last one is the wait for the program's end. The nodes of a binary tree over them are numbered as in a heap: 1 is the
root, `2 v` and `2 v + 1` are the halves of `v`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tree:
    """The tree over positions `[0, size)`; `size` is a power of two."""

    size: int

    @staticmethod
    def over(num_positions: int) -> Tree:
        """Returns the smallest tree with that many leaves."""
        return Tree(1 << max(1, (num_positions - 1).bit_length()))

    def interval(self, node: int) -> tuple[int, int]:
        """Returns the half-open positions of a node."""
        width = self.size >> (node.bit_length() - 1)
        first = node * width - self.size
        return first, first + width

    @staticmethod
    def ancestors(nodes: Iterable[int]) -> set[int]:
        """Returns all nodes that contain one of some nodes, these themselves not included.

        >>> sorted(Tree.ancestors([5, 12]))
        [1, 2, 3, 6]
        """
        found = set()
        for node in nodes:
            while node > 1:
                node //= 2
                found.add(node)
        return found

    def cover(self, first: int, last: int) -> list[int]:
        """Returns the fewest nodes that together are `[first, last)`, in order.

        >>> tree = Tree.over(8)
        >>> [tree.interval(node) for node in tree.cover(1, 7)]
        [(1, 2), (2, 4), (4, 6), (6, 7)]
        """
        left, right = [], []
        low, high = first + self.size, last + self.size
        while low < high:
            if low & 1:
                left.append(low)
                low += 1
            if high & 1:
                high -= 1
                right.append(high)
            low, high = low >> 1, high >> 1
        return left + right[::-1]

    def graded(
        self,
        first: int,
        last: int,
        fine_start: bool,
        fine_end: bool,
        ratio: float,
        part: tuple[int, int] | None = None,
    ) -> list[int]:
        """Returns nodes that together are `[first, last)`, in order; they are smaller near a fine end.

        Args:
          first, last: positions.
          fine_start, fine_end: which ends are fine.
          ratio: a node of more than one position is no wider than this times its distance from a fine end.
          part: the part of `[first, last)` whose nodes are wanted; all of it by default.
        """
        nodes = []
        pending = self.cover(*(part or (first, last)))[::-1]
        while pending:
            node = pending.pop()
            start, end = self.interval(node)
            distance = float("inf")
            if fine_start:
                distance = start - first
            if fine_end:
                distance = min(distance, last - end)
            if end - start == 1 or end - start <= ratio * distance:
                nodes.append(node)
            else:
                pending += [2 * node + 1, 2 * node]
        return nodes
