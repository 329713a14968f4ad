"""Scalar expressions: what one element of a step's result is, in terms of elements of buffers.

Nodes are made by a `Builder`, which returns the same node for the same content, so a node is a name for a value. Equal
content is one object, and nodes are compared and hashed by identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memplan.compiler.embedded.affine import AffineIndex, LoopIndex

# The types of elements, and their sizes in bytes.
ITEM_SIZES = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "float32": 4}

INTEGER_RANGES = {
    "bool": (0, 1),
    "int8": (-(2**7), 2**7 - 1),
    "uint8": (0, 2**8 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
}

# How many operands each operation has. The names are those of JAX's primitives.
OPERATIONS = {
    **dict.fromkeys(("abs", "cbrt", "ceil", "convert", "cos", "erf", "exp", "exp2", "expm1", "floor", "is_finite"), 1),
    **dict.fromkeys(("log", "log1p", "logistic", "neg", "not", "round", "round_away", "rsqrt", "sign", "sin"), 1),
    **dict.fromkeys(("sqrt", "tan", "tanh"), 1),
    **dict.fromkeys(("add", "and", "atan2", "div", "eq", "ge", "gt", "le", "lt", "max", "min", "mul", "ne", "or"), 2),
    **dict.fromkeys(("pow", "rem", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sub", "xor"), 2),
    "select": 3,  # condition, value if it is true, value if not
}

# What a reduction starts with is the neutral element. `argmax` and `argmin` give the place of the first greatest one.
COMBINES = ("sum", "prod", "max", "min", "and", "or", "xor", "argmax", "argmin")


@dataclass(frozen=True, eq=False)
class Constant:
    """A number, as a Python int, float or bool."""

    value: int | float | bool
    dtype: str


@dataclass(frozen=True, eq=False)
class Element:
    """An element of a buffer.

    Attributes:
      buffer: index in `EmbeddedProgram.buffers`.
      index: the number of the element.
      dtype: that of the buffer.
    """

    buffer: int
    index: AffineIndex
    dtype: str


@dataclass(frozen=True, eq=False)
class Position:
    """An index as a number, as of `iota`."""

    index: AffineIndex
    dtype: str


@dataclass(frozen=True, eq=False)
class ScalarOperation:
    """An operation on scalars, one of `OPERATIONS`; the dtype is that of its result."""

    name: str
    operands: tuple[Expression, ...]
    dtype: str


@dataclass(frozen=True)
class Within:
    """Whether `low <= index < high`."""

    index: AffineIndex
    low: int
    high: int


@dataclass(frozen=True)
class Divisible:
    """Whether an index, which may be negative, is a multiple of a divisor above 1."""

    index: AffineIndex
    divisor: int


Condition = Within | Divisible


@dataclass(frozen=True, eq=False)
class Guarded:
    """One of two values; the one that is not taken is not computed, as its loads may lie outside of buffers.

    Attributes:
      conditions: all of which must hold.
      inside: the value if they do.
      outside: the value if they do not.
      dtype: of both.
    """

    conditions: tuple[Condition, ...]
    inside: Expression
    outside: Expression
    dtype: str


@dataclass(frozen=True, eq=False)
class Reduction:
    """The combination of a body over loops of its own.

    Attributes:
      combine: one of `COMBINES`.
      loops: outermost first. `argmax` and `argmin` have one.
      body: depends on these loops and on those around the reduction.
      dtype: of the result and the accumulator; for `argmax` and `argmin` the type of the place.
    """

    combine: str
    loops: tuple[LoopIndex, ...]
    body: Expression
    dtype: str


Expression = Constant | Element | Position | ScalarOperation | Guarded | Reduction


class Builder:
    """Makes expressions of one step."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Any] = {}

    def _one(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def constant(self, value: int | float | bool, dtype: str) -> Constant:
        """Returns a number; the sign of zero counts."""
        return self._one(("constant", repr(value), dtype), lambda: Constant(value, dtype))

    def load(self, buffer: int, index: AffineIndex, dtype: str) -> Element:
        return self._one(("load", buffer, index), lambda: Element(buffer, index, dtype))

    def position(self, index: AffineIndex, dtype: str) -> Position:
        return self._one(("position", index, dtype), lambda: Position(index, dtype))

    def operation(self, name: str, operands: tuple[Expression, ...], dtype: str) -> Expression:
        if name == "convert" and operands[0].dtype == dtype:
            return operands[0]
        return self._one((name, dtype, *map(id, operands)), lambda: ScalarOperation(name, operands, dtype))

    def guarded(self, conditions: tuple[Condition, ...], inside: Expression, outside: Expression) -> Expression:
        """Returns a guarded value, without conditions that always hold; `outside` alone if one never does."""
        left: list[Condition] = []
        for condition in conditions:
            low, high = condition.index.bounds
            if isinstance(condition, Within):
                if high < condition.low or low >= condition.high:
                    return outside
                if condition.low <= low and high < condition.high:
                    continue
            elif all(c % condition.divisor == 0 for _, c in condition.index.terms):
                if condition.index.constant % condition.divisor:
                    return outside
                continue
            left.append(condition)
        if not left or inside is outside:
            return inside
        return self._one(
            ("guarded", tuple(left), id(inside), id(outside)),
            lambda: Guarded(tuple(left), inside, outside, inside.dtype),
        )

    def reduction(self, combine: str, loops: tuple[LoopIndex, ...], body: Expression, dtype: str) -> Reduction:
        return self._one(("reduction", combine, loops, id(body)), lambda: Reduction(combine, loops, body, dtype))


def children(expression: Expression) -> tuple[Expression, ...]:
    """Returns the expressions directly within one."""
    match expression:
        case ScalarOperation():
            return expression.operands
        case Guarded():
            return expression.inside, expression.outside
        case Reduction():
            return (expression.body,)
    return ()


def indices(expression: Expression) -> Iterator[AffineIndex]:
    """Yields the indices that stand in an expression itself, not in those within it."""
    match expression:
        case Element() | Position():
            yield expression.index
        case Guarded():
            for condition in expression.conditions:
                yield condition.index


def walk(*roots: Expression) -> Iterator[Expression]:
    """Yields each expression once, those within it after it."""
    seen: set[int] = set()
    stack = list(roots)[::-1]
    while stack:
        expression = stack.pop()
        if id(expression) not in seen:
            seen.add(id(expression))
            yield expression
            stack.extend(reversed(children(expression)))


def rebuilt(
    expression: Expression,
    builder: Builder,
    index: Callable[[AffineIndex], AffineIndex] = lambda index: index,
    loops: Callable[[tuple[LoopIndex, ...]], tuple[LoopIndex, ...]] = lambda loops: loops,
    buffers: Mapping[int, int] | None = None,
    layouts: Mapping[int, Callable[[AffineIndex], AffineIndex]] | None = None,
) -> Expression:
    """Returns an expression with changed indices, loops of reductions and buffers.

    Args:
      expression: that is changed.
      builder: makes the new one.
      index: returns what an index becomes.
      loops: returns what the loops of a reduction become.
      buffers: what buffers become; those that are not in it stay.
      layouts: what else becomes of the indices into some buffers, by these as they were.
    """
    made: dict[int, Expression] = {}
    renamed, moved = buffers or {}, layouts or {}

    def of(old: Expression) -> Expression:
        if id(old) not in made:
            made[id(old)] = new(old)
        return made[id(old)]

    def new(old: Expression) -> Expression:
        match old:
            case Element():
                place = index(moved[old.buffer](old.index) if old.buffer in moved else old.index)
                return builder.load(renamed.get(old.buffer, old.buffer), place, old.dtype)
            case Position():
                return builder.position(index(old.index), old.dtype)
            case ScalarOperation():
                return builder.operation(old.name, tuple(of(operand) for operand in old.operands), old.dtype)
            case Guarded():
                conditions: tuple[Condition, ...] = tuple(
                    Within(index(c.index), c.low, c.high)
                    if isinstance(c, Within)
                    else Divisible(index(c.index), c.divisor)
                    for c in old.conditions
                )
                return builder.guarded(conditions, of(old.inside), of(old.outside))
            case Reduction():
                return builder.reduction(old.combine, loops(old.loops), of(old.body), old.dtype)
        return builder.constant(old.value, old.dtype)

    return of(expression)
