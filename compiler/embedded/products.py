"""Sums of products: reductions of two elements' product, as in convolutions, dense layers and their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from memplan.compiler.embedded.affine import LoopIndex
from memplan.compiler.embedded.expressions import (
    Condition,
    Constant,
    Element,
    Expression,
    Guarded,
    Reduction,
    ScalarOperation,
    Within,
)

# How many results exported code computes in one pass over what they share.
RESULTS_AT_ONCE = 4

# Zero points of int8 and uint8: an int8 value has 16 bits after one of these is subtracted.
_ZEROS = (-128, 255)
# Types in which a difference of an int8 value and a zero point is exact, and to which it converts exactly.
_WIDE = ("int16", "int32", "float32")


@dataclass(frozen=True)
class Factor:
    """A factor of a product: `element - zero`, computed exactly.

    Attributes:
      element: of type int8 or float32, with a linear index.
      zero: a zero point; 0 for floats.
    """

    element: Element
    zero: int


@dataclass(frozen=True)
class ProductSum:
    """A reduction that sums products; products for which a condition does not hold count as 0.

    Attributes:
      factors: the two factors.
      loops: of the reduction, outermost first.
      conditions: all of which must hold.
      dtype: of the sum, int32 or float32.
    """

    factors: tuple[Factor, Factor]
    loops: tuple[LoopIndex, ...]
    conditions: tuple[Condition, ...]
    dtype: str


def product_sums(reduction: Reduction) -> tuple[ProductSum, ...]:
    """Returns a reduction as sums of products that one accumulator adds up in this order; none if it is no such sum.

    There are several where a factor comes from one of two buffers, such as weights of which a part is trained.
    """
    body, conditions = unguarded(reduction)
    if reduction.combine != "sum" or reduction.dtype not in ("int32", "float32"):
        return ()
    if not isinstance(body, ScalarOperation) or body.name != "mul" or body.dtype != reduction.dtype:
        return ()
    found = []
    for (own, first), (other, second) in product(*(_factors(operand) for operand in body.operands)):
        if reduction.dtype == "int32" and {first.element.dtype, second.element.dtype} != {"int8"}:
            return ()
        holding = (*own, *other, *conditions)
        found.append(ProductSum((first, second), reduction.loops, holding, reduction.dtype))
    summed = {loop.number for loop in reduction.loops}
    is_split = any(c.index.loops & summed for each in found for c in each.conditions if c not in conditions)
    if len(found) > 1 and is_split and reduction.dtype == "float32" and len(reduction.loops) > 1:
        return ()  # Its products would be added in another order.
    return tuple(found)


def unguarded(reduction: Reduction) -> tuple[Expression, tuple[Condition, ...]]:
    """Returns the body of a reduction, and the conditions without which an iteration adds nothing."""
    body = reduction.body
    if reduction.combine == "sum" and isinstance(body, Guarded) and _is_zero(body.outside):
        return body.inside, body.conditions
    return body, ()


def _is_zero(expression: Expression) -> bool:
    return isinstance(expression, Constant) and expression.value == 0


def _factors(expression: Expression) -> list[tuple[tuple[Condition, ...], Factor]]:
    """Returns what an operand of a product is, and when; nothing if it is no factor that the library knows."""
    zero = 0.0
    if isinstance(expression, ScalarOperation) and expression.name in ("sub", "add") and expression.dtype in _WIDE:
        sign = 1 if expression.name == "sub" else -1
        expression, other = expression.operands
        if not isinstance(other, Constant):
            return []
        zero = sign * other.value
    while isinstance(expression, ScalarOperation) and expression.name == "convert" and expression.dtype in _WIDE:
        (expression,) = expression.operands
    cases: list[tuple[tuple[Condition, ...], Expression]] = [((), expression)]
    if isinstance(expression, Guarded) and len(expression.conditions) == 1:
        opposite = _opposite(expression.conditions[0])
        if opposite is not None:
            cases = [(expression.conditions, expression.inside), ((opposite,), expression.outside)]
            cases.sort(key=lambda case: getattr(case[0][0], "low", 0))
    found = [(conditions, _factor(case, zero)) for conditions, case in cases]
    known = [(conditions, factor) for conditions, factor in found if factor is not None]
    return known if len(known) == len(found) else []


def _opposite(condition: Condition) -> Condition | None:
    """Returns the condition that holds where another does not; None if that is no range."""
    low, high = condition.index.bounds
    if not isinstance(condition, Within):
        return None
    if condition.low <= low:
        return Within(condition.index, condition.high, high + 1)
    return Within(condition.index, low, condition.low) if condition.high > high else None


def _factor(element: Expression, zero: float) -> Factor | None:
    if not isinstance(element, Element) or not element.index.is_linear:
        return None
    if element.dtype == "float32":
        return Factor(element, 0) if zero == 0 else None
    if element.dtype != "int8" or zero != int(zero) or not _ZEROS[0] <= zero <= _ZEROS[1]:
        return None
    return Factor(element, int(zero))
