"""Sums of products: reductions of two elements' product, as in convolutions, dense layers and their gradients."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.compiler.embedded.affine import LoopIndex
from memplan.compiler.embedded.expressions import (
    Condition,
    Constant,
    Element,
    Expression,
    Guarded,
    Reduction,
    ScalarOperation,
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


def product_sum(reduction: Reduction) -> ProductSum | None:
    """Returns a reduction as a sum of products; None if it is none."""
    body, conditions = unguarded(reduction)
    if reduction.combine != "sum" or reduction.dtype not in ("int32", "float32"):
        return None
    if not isinstance(body, ScalarOperation) or body.name != "mul" or body.dtype != reduction.dtype:
        return None
    first, second = (_factor(operand) for operand in body.operands)
    if first is None or second is None:
        return None
    if reduction.dtype == "int32" and {first.element.dtype, second.element.dtype} != {"int8"}:
        return None
    return ProductSum((first, second), reduction.loops, conditions, reduction.dtype)


def unguarded(reduction: Reduction) -> tuple[Expression, tuple[Condition, ...]]:
    """Returns the body of a reduction, and the conditions without which an iteration adds nothing."""
    body = reduction.body
    if reduction.combine == "sum" and isinstance(body, Guarded) and _is_zero(body.outside):
        return body.inside, body.conditions
    return body, ()


def _is_zero(expression: Expression) -> bool:
    return isinstance(expression, Constant) and expression.value == 0


def _factor(expression: Expression) -> Factor | None:
    zero = 0.0
    if isinstance(expression, ScalarOperation) and expression.name in ("sub", "add") and expression.dtype in _WIDE:
        sign = 1 if expression.name == "sub" else -1
        expression, other = expression.operands
        if not isinstance(other, Constant):
            return None
        zero = sign * other.value
    while isinstance(expression, ScalarOperation) and expression.name == "convert" and expression.dtype in _WIDE:
        (expression,) = expression.operands
    if not isinstance(expression, Element) or not expression.index.is_linear:
        return None
    if expression.dtype == "float32":
        return Factor(expression, 0) if zero == 0 else None
    if expression.dtype != "int8" or zero != int(zero) or not _ZEROS[0] <= zero <= _ZEROS[1]:
        return None
    return Factor(expression, int(zero))
