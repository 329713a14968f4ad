"""How a sum of products becomes a call of the library (`sum_functions.py`): its form, pointers and strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memplan.backends.c.sum_functions import function_name
from memplan.compiler.embedded.affine import AffineIndex, LoopIndex
from memplan.compiler.embedded.expressions import Condition, Reduction, Within
from memplan.compiler.embedded.products import Factor, ProductSum, product_sums


@dataclass(frozen=True)
class LibrarySum:
    """A reduction as loops around a call.

    Attributes:
      function: its name.
      x, w: its operands; x has the zero point.
      outer: loops around the call.
      rows: the loop over the rows of a window; None for `dots`.
      columns: the innermost loop.
      joined: a loop inside `columns` with which it runs through memory as one; None if there is none.
      block: the step's loop of which the call does several iterations at once; None if it makes one result.
      dtype: of the sums.
      conditions: of the products, by the loop of the reduction that is the innermost one in them, -1 for none.
    """

    function: str
    x: Factor
    w: Factor
    outer: tuple[LoopIndex, ...]
    rows: LoopIndex | None
    columns: LoopIndex
    joined: LoopIndex | None
    block: int | None
    dtype: str
    conditions: dict[int, list[Condition]]

    @property
    def is_window(self) -> bool:
        return self.function.startswith("windows")


def library_sums(reduction: Reduction, block: int | None) -> tuple[LibrarySum, ...]:
    """Returns how a reduction is computed by calls of the library, one after the other; none if it is not.

    Args:
      reduction: of a step.
      block: the innermost loop of the step, if several of its iterations may be computed at once.
    """
    found = product_sums(reduction) if reduction.loops else ()
    calls = [_library_sum(each, block) for each in found]
    if block is not None and any(call is None or call.block is None for call in calls):
        calls = [_library_sum(each, None) for each in found]
    known = [call for call in calls if call is not None]
    return tuple(known) if len(known) == len(found) else ()


def _library_sum(found: ProductSum, block: int | None) -> LibrarySum | None:
    if block is not None and any(block in condition.index.loops for condition in found.conditions):
        block = None
    x, w = found.factors
    steps = [0, 0] if block is None else [each.element.index.coefficient(block) for each in (x, w)]
    if block is not None and not any(steps):
        return None
    if all(steps) and steps != [1, 1]:
        block = None
    is_window = all(steps) or len(found.loops) > 1 if block is None else all(steps)
    if is_window or block is None:  # Both factors are alike.
        is_other = not x.zero and (w.zero != 0 or w.element.dtype == "int8")
    else:
        is_other = steps[0] != 0  # The results share x.
    if is_other:
        x, w = w, x
    if w.zero:
        return None
    return _with_loops(found, "windows" if is_window else "dots", x, w, block)


def _with_loops(found: ProductSum, form: str, x: Factor, w: Factor, block: int | None) -> LibrarySum | None:
    conditions = placed(found.conditions, found.loops)
    loops = list(found.loops)
    columns, joined = loops.pop(), None
    inner = len(loops)
    if loops and not conditions.get(inner) and _is_one(loops[-1], columns, x, w):
        columns, joined = loops.pop(), columns
        inner -= 1
    rows = loops.pop() if form == "windows" and loops else None
    if form == "windows" and rows is None and block is None:
        form = "dots"
    for place in range(len(loops), inner + 1):
        if not _are_ranges(conditions.get(place, ()), found.loops[place]):
            return None
    name = function_name(form, x.element.dtype, w.element.dtype, found.dtype)
    return LibrarySum(name, x, w, tuple(loops), rows, columns, joined, block, found.dtype, conditions)


def _is_one(outer: LoopIndex, inner: LoopIndex, x: Factor, w: Factor) -> bool:
    """Whether two loops run through both operands as one."""
    indices = [each.element.index for each in (x, w)]
    return all(i.coefficient(outer.number) == i.coefficient(inner.number) * inner.extent for i in indices)


def _are_ranges(conditions: Sequence[Condition], loop: LoopIndex) -> bool:
    """Whether the conditions cut one range, which is never empty, out of a loop."""
    if not conditions:
        return True
    (condition, *others) = conditions
    if others or not is_range(condition, loop):
        return False
    assert isinstance(condition, Within)
    low, high = (condition.index - AffineIndex(0, ((loop, 1),))).bounds
    return condition.low < condition.high and condition.low - low < loop.extent and condition.high - high > 0


def is_range(condition: Condition, loop: LoopIndex) -> bool:
    """Whether a condition holds for a range of a loop."""
    return isinstance(condition, Within) and condition.index.is_linear and condition.index.coefficient(loop.number) == 1


def placed(conditions: Sequence[Condition], loops: Sequence[LoopIndex]) -> dict[int, list[Condition]]:
    """Returns conditions by the innermost of a reduction's loops that they depend on; -1 for none of them."""
    found: dict[int, list[Condition]] = {}
    for condition in conditions:
        place = max((k for k, loop in enumerate(loops) if loop.number in condition.index.loops), default=-1)
        found.setdefault(place, []).append(condition)
    return found
