"""What the solvers compute on: tensors as sets of bits, after the sums that every order makes first.

Indices of size 1 are left out, those of one tensor alone are summed, and those that always come together are one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from memplan.planners.contraction.problem import ContractionProblem


@dataclass(frozen=True)
class TensorNetwork:
    """Tensors and indices, each index with its own bit.

    Attributes:
      leaves: `[tensors]` the indices of each.
      leaf_bytes: `[tensors]` bytes of its own copy, if sums or diagonals come first; 0 if the tensor is used as it is.
      sizes: `[indices]`.
      holders: `[indices]` the tensors that have it, each tensor with its own bit.
      output: the indices of the result.
      itemsize: bytes of an element.
      first_flops: of the sums within single tensors.
    """

    leaves: tuple[int, ...]
    leaf_bytes: tuple[int, ...]
    sizes: tuple[int, ...]
    holders: tuple[int, ...]
    output: int
    itemsize: int
    first_flops: int

    @cached_property
    def _elements(self) -> dict[int, int]:
        return {}

    def elements(self, indices: int) -> int:
        """Returns the product of the sizes of indices."""
        found = self._elements.get(indices)
        if found is None:
            found = self._elements[indices] = math.prod(self.sizes[bit] for bit in bits_of(indices))
        return found

    def open_indices(self, indices: int, tensors: int) -> int:
        """Returns which indices the contraction of a set of tensors keeps, of those that its two sides have."""
        kept = indices & self.output
        for bit in bits_of(indices & ~self.output):
            if self.holders[bit] & ~tensors:
                kept |= 1 << bit
        return kept

    def pair_flops(self, union: int, kept: int) -> int:
        """Returns the flops of a pair, of all indices that it has and those that it keeps."""
        return self.elements(union) * (1 if union == kept else 2)


def bits_of(mask: int) -> list[int]:
    """Returns the places of the bits that are set, ascending.

    >>> bits_of(0b1010)
    [1, 3]
    """
    places = []
    while mask:
        low = mask & -mask
        places.append(low.bit_length() - 1)
        mask ^= low
    return places


def network_of(problem: ContractionProblem) -> TensorNetwork:
    """Returns the network of a problem that is sound."""
    holders: dict[str, int] = {}
    for number, indices in enumerate(problem.operands):
        for index in indices:
            holders[index] = holders.get(index, 0) | 1 << number
    output = set(problem.output)
    wide = {index for index in holders if problem.sizes[index] > 1}
    lone = {index for index in wide if holders[index].bit_count() == 1 and index not in output}
    groups: dict[tuple[int, bool], list[str]] = {}
    for index in sorted(wide - lone):
        groups.setdefault((holders[index], index in output), []).append(index)
    leaves, leaf_bytes, first = [0] * len(problem.operands), [], 0
    for bit, (tensors, _) in enumerate(groups):
        for number in bits_of(tensors):
            leaves[number] |= 1 << bit
    sizes = tuple(math.prod(problem.sizes[index] for index in group) for group in groups.values())
    for number, indices in enumerate(problem.operands):
        summed = lone & set(indices)
        own = math.prod(sizes[bit] for bit in bits_of(leaves[number]))
        if summed:
            first += own * math.prod(problem.sizes[index] for index in summed)
        has_diagonal = any(indices.count(index) > 1 for index in wide & set(indices))
        leaf_bytes.append(own * problem.itemsize if summed or has_diagonal else 0)
    return TensorNetwork(
        leaves=tuple(leaves),
        leaf_bytes=tuple(leaf_bytes),
        sizes=sizes,
        holders=tuple(tensors for tensors, _ in groups),
        output=sum(1 << bit for bit, (_, kept) in enumerate(groups) if kept),
        itemsize=problem.itemsize,
        first_flops=first,
    )
