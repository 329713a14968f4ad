"""Which integer operations cannot overflow, so that they are plain C; others are made to wrap as JAX's do."""

from __future__ import annotations

import math

from memplan.compiler.embedded.expressions import (
    INTEGER_RANGES,
    Constant,
    Element,
    Expression,
    Guarded,
    Position,
    Reduction,
    ScalarOperation,
)

Range = tuple[int, int]


class ValueRanges:
    """The least and greatest values of integer expressions before they are cut to their types."""

    def __init__(self) -> None:
        self._known: dict[int, Range] = {}

    def fits(self, expression: Expression) -> bool:
        """Whether an integer expression has its exact value within its type; True for floats."""
        if expression.dtype not in INTEGER_RANGES:
            return True
        low, high = self._exact(expression)
        least, most = INTEGER_RANGES[expression.dtype]
        return least <= low and high <= most

    def _range(self, expression: Expression) -> Range:
        """Returns the range after the cut."""
        if id(expression) not in self._known:
            whole = INTEGER_RANGES.get(expression.dtype, (0, 0))
            low, high = self._exact(expression)
            self._known[id(expression)] = (low, high) if whole[0] <= low and high <= whole[1] else whole
        return self._known[id(expression)]

    def _exact(self, expression: Expression) -> Range:
        whole = INTEGER_RANGES.get(expression.dtype, (0, 0))
        match expression:
            case Constant():
                return (int(expression.value),) * 2 if expression.dtype in INTEGER_RANGES else whole
            case Element():
                return whole
            case Position():
                return expression.index.bounds
            case Guarded():
                inside, outside = self._range(expression.inside), self._range(expression.outside)
                return min(inside[0], outside[0]), max(inside[1], outside[1])
            case Reduction():
                return self._reduced(expression, whole)
            case ScalarOperation():
                return self._operated(expression, whole)
        return whole

    def _reduced(self, expression: Reduction, whole: Range) -> Range:
        low, high = self._range(expression.body)
        if expression.combine == "sum":
            count = math.prod(loop.extent for loop in expression.loops)
            # Every part of the sum must fit, not only the whole.
            return min(count * low, 0), max(count * high, 0)
        if expression.combine == "prod":
            return -(2**63), 2**63
        return whole

    def _operated(self, expression: ScalarOperation, whole: Range) -> Range:
        if any(operand.dtype not in INTEGER_RANGES for operand in expression.operands):
            return whole
        ranges = [self._range(operand) for operand in expression.operands]
        (low, high), (other_low, other_high) = ranges[0], ranges[-1]
        match expression.name:
            case "add":
                return low + other_low, high + other_high
            case "sub":
                return low - other_high, high - other_low
            case "mul":
                ends = [a * b for a in (low, high) for b in (other_low, other_high)]
                return min(ends), max(ends)
            case "neg":
                return -high, -low
            case "abs":
                return (0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))
            case "convert":
                return low, high
            case "max":
                return max(low, other_low), max(high, other_high)
            case "min":
                return min(low, other_low), min(high, other_high)
            case "select":
                return min(ranges[1][0], ranges[2][0]), max(ranges[1][1], ranges[2][1])
        return whole


def clamped(expression: ScalarOperation) -> tuple[Expression, int, int] | None:
    """Returns the float that a conversion to a narrow integer takes, and the least and greatest result.

    A conversion saturates, so limits around the float before it are its own: `(int8)min(max(x, -128), 127)` is x
    converted, and what is not a number becomes 0 either way. None if there are no such limits.
    """
    (value,) = expression.operands
    if value.dtype != "float32" or expression.dtype not in ("int8", "uint8", "int16", "uint16"):
        return None
    low, high = INTEGER_RANGES[expression.dtype]
    found = None
    while isinstance(value, ScalarOperation) and value.name in ("max", "min"):
        limits = [operand for operand in value.operands if isinstance(operand, Constant)]
        others = [operand for operand in value.operands if not isinstance(operand, Constant)]
        if len(limits) != 1 or not math.isfinite(limits[0].value) or limits[0].value != int(limits[0].value):
            break
        limit = int(limits[0].value)
        if value.name == "max" and limit <= high:
            low = max(low, limit)
        elif value.name == "min" and limit >= low:
            high = min(high, limit)
        else:
            break
        value = others[0]
        found = value, low, high
    return found
