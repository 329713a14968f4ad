"""The ContractionProblem: tensors to be contracted pair by pair, as one einsum writes it.

The value is the same in any order, but the work and the memory are not. Flops are counted as opt_einsum counts them
(Smith and Gray, JOSS 3(26):753, 2018): a pair costs the product of the sizes of all its indices, twice that if an
index is summed. An index may be in any number of tensors, and in the output.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from memplan.compiler.errors import PlannerError

Quantity = Literal["flops", "peak"]

MAX_TENSORS = 5_000

# What an expression holds besides indices.
_SIGNS = ",->. "


@dataclass(frozen=True)
class ContractionProblem:
    """Tensors and their indices, and what the order of contraction is to be good for.

    Attributes:
      operands: the indices of each tensor, in order. An index that a tensor has twice is its diagonal.
      output: the indices of the result, in order; those that are missing are summed.
      sizes: of the indices.
      itemsize: bytes of an element.
      minimize: "flops", or "peak": the most bytes of intermediates and result that stand in memory at one time.
      limit: the most of the other that is allowed; None for any.
    """

    operands: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]
    sizes: Mapping[str, int] = field(hash=False)
    itemsize: int = 4
    minimize: Quantity = "flops"
    limit: float | None = None

    def check(self) -> None:
        """Raises PlannerError, naming the place, if the expression or a number makes no sense."""
        if self.minimize not in ("flops", "peak"):
            raise PlannerError(f"minimize is {self.minimize!r}: it must be 'flops' or 'peak'")
        if not 0 < len(self.operands) <= MAX_TENSORS:
            raise PlannerError(f"there are {len(self.operands):,} tensors: memplan orders 1 to {MAX_TENSORS:,}")
        known = {index for indices in self.operands for index in indices}
        for index, count in Counter(self.output).items():
            if count > 1:
                raise PlannerError(f"the output has the index {index} {count} times")
            if index not in known:
                raise PlannerError(f"the output has the index {index}, and no tensor has it")
        for index in sorted(known):
            size = self.sizes.get(index)
            if size is None:
                raise PlannerError(f"the index {index} has no size")
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise PlannerError(f"the size of the index {index} is {size!r}: it must be a positive integer")
        if isinstance(self.itemsize, bool) or not isinstance(self.itemsize, int) or self.itemsize < 1:
            raise PlannerError(f"itemsize is {self.itemsize!r}: it must be a positive integer")
        if self.limit is not None and not (isinstance(self.limit, int | float) and self.limit >= 0):
            raise PlannerError(f"the limit is {self.limit!r}: it must be a number that is not negative")

    @property
    def limited(self) -> Quantity:
        """The quantity that the limit is on."""
        return "peak" if self.minimize == "flops" else "flops"

    @property
    def expression(self) -> str:
        """The expression, for indices of one character each."""
        return ",".join("".join(indices) for indices in self.operands) + "->" + "".join(self.output)


def contraction_problem(
    expression: str,
    sizes: Mapping[str, int] | list[tuple[int, ...]],
    itemsize: int = 4,
    minimize: Quantity = "flops",
    limit: float | None = None,
) -> ContractionProblem:
    """Returns the problem of an einsum expression.

    >>> contraction_problem("ij,jk", {"i": 2, "j": 3, "k": 4}).expression
    'ij,jk->ik'

    Args:
      expression: as of `jnp.einsum`, without an ellipsis. Without "->", the output has the indices that are there
        once, sorted.
      sizes: of the indices, or the shapes of the tensors.
      itemsize, minimize, limit: see `ContractionProblem`.

    Raises:
      PlannerError: the expression is malformed, or sizes are missing or do not agree.
    """
    left, arrow, right = expression.replace(" ", "").partition("->")
    operands = tuple(tuple(part) for part in left.split(","))
    for sign in _SIGNS:
        if any(sign in part for part in (*operands, right)):
            what = "an ellipsis: write its indices out" if sign == "." else f"a {sign!r} in a wrong place"
            raise PlannerError(f"the expression {expression:.80} has {what}")
    counts = Counter(index for indices in operands for index in indices)
    output = tuple(right) if arrow else tuple(sorted(index for index, count in counts.items() if count == 1))
    known = dict(sizes) if isinstance(sizes, Mapping) else _sizes_of(operands, sizes)
    problem = ContractionProblem(operands, output, known, itemsize, minimize, limit)
    problem.check()
    return problem


def _sizes_of(operands: tuple[tuple[str, ...], ...], shapes: list[tuple[int, ...]]) -> dict[str, int]:
    if len(shapes) != len(operands):
        raise PlannerError(f"the expression has {len(operands)} tensors, and there are {len(shapes)} shapes")
    sizes: dict[str, int] = {}
    for number, (indices, shape) in enumerate(zip(operands, shapes, strict=True)):
        if len(indices) != len(shape):
            raise PlannerError(f"tensor {number} ({''.join(indices)}) has {len(shape)} axes, not {len(indices)}")
        for index, size in zip(indices, shape, strict=True):
            if sizes.setdefault(index, size) != size:
                raise PlannerError(f"the index {index} has the sizes {sizes[index]} and {size}")
    return sizes


def elements(problem: ContractionProblem, indices: frozenset[str] | set[str]) -> int:
    """Returns the elements of a tensor with these indices."""
    return math.prod(problem.sizes[index] for index in indices)
