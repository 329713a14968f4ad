"""Arithmetic of scalar integers and truth values as HLO defines it: modulo the width of the type.

Floating-point numbers take part as long as they are integers that their type represents exactly: these are not rounded.

A shift by the width or more leaves nothing but the sign. What a division by zero gives differs between XLA's backends
(openxla.org/xla/operation_semantics), so it has no result here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from memplan.compiler.ir.shape import BITS_PER_ELEMENT

# Floating-point types, to the bits of their significands: integers of up to so many bits are exact.
_SIGNIFICAND_BITS = {"bf16": 8, "f16": 11, "f32": 24, "f64": 53}


def is_integer(dtype: str) -> bool:
    """Tells whether a type is one of signed or unsigned integers, or of truth values."""
    return dtype == "pred" or (dtype[:1] in "su" and dtype in BITS_PER_ELEMENT)


def is_exact(dtype: str) -> bool:
    """Tells whether integers of a type can be followed: those of integers, and those that a float represents."""
    return is_integer(dtype) or dtype in _SIGNIFICAND_BITS


def range_of(dtype: str) -> tuple[int, int]:
    """Returns the least and the greatest value of a type; of floating-point numbers, between which integers are exact.

    >>> range_of("s8"), range_of("pred"), range_of("bf16")
    ((-128, 127), (0, 1), (-256, 256))
    """
    if dtype == "pred":
        return 0, 1
    if dtype in _SIGNIFICAND_BITS:
        greatest = 1 << _SIGNIFICAND_BITS[dtype]
        return -greatest, greatest
    bits = BITS_PER_ELEMENT[dtype]
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if dtype[0] == "s" else (0, (1 << bits) - 1)


def exactly(value: int, dtype: str) -> int | None:
    """Returns a value that is in the range of its type; None for another."""
    low, high = range_of(dtype)
    return value if low <= value <= high else None


def kept(value: int, dtype: str) -> int | None:
    """Returns what a type keeps of an integer: it modulo 2^bits; of a truth value, whether it is not 0.

    None where a floating-point number would be rounded.

    >>> kept(130, "s8"), kept(-1, "u32"), kept(2, "pred"), kept(257, "bf16")
    (-126, 4294967295, 1, None)
    """
    if dtype == "pred":
        return int(value != 0)
    if not is_integer(dtype):
        return exactly(value, dtype)
    low, high = range_of(dtype)
    return (value - low) % (high - low + 1) + low


# By direction; they compare arrays too.
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "LT": operator.lt, "LE": operator.le, "GT": operator.gt, "GE": operator.ge, "EQ": operator.eq, "NE": operator.ne,
}  # fmt: skip


def _divide(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _remainder(a: int, b: int) -> int:
    return a - b * _divide(a, b)


_BINARY: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": _divide,
    "remainder": _remainder,
    "maximum": max,
    "minimum": min,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
}
_SHIFTS = frozenset({"shift-left", "shift-right-arithmetic", "shift-right-logical"})
_UNARY: dict[str, Callable[[int], int]] = {
    "negate": operator.neg,
    "abs": abs,
    "not": operator.invert,
    "sign": lambda a: (a > 0) - (a < 0),
}
_OF_BITS = frozenset({"and", "or", "xor", "not"})
ARITHMETIC = frozenset((*_BINARY, *_UNARY, *_SHIFTS, "clamp"))


def computed(opcode: str, dtype: str, operands: Sequence[int]) -> int | None:
    """Returns the result of an instruction whose opcode is in `ARITHMETIC`; None where it has none that is certain.

    Args:
      dtype: of the result, which is that of the operands.

    >>> computed("divide", "s32", [-7, 2]), computed("shift-left", "u8", [3, 7]), computed("divide", "s32", [1, 0])
    (-3, 128, None)
    """
    if dtype == "pred":
        return _computed_truth(opcode, operands)
    if opcode in _UNARY and len(operands) == 1 and (is_integer(dtype) or opcode not in _OF_BITS):
        return kept(_UNARY[opcode](operands[0]), dtype)
    if opcode in _BINARY and len(operands) == 2:
        left, right = operands
        if right == 0 and opcode in ("divide", "remainder"):
            return None
        if not is_integer(dtype) and (opcode in _OF_BITS or (opcode == "divide" and left % right)):
            return None
        return kept(_BINARY[opcode](left, right), dtype)
    if opcode in _SHIFTS and len(operands) == 2 and is_integer(dtype):
        return _shifted(opcode, dtype, *operands)
    if opcode == "clamp" and len(operands) == 3:
        low, value, high = operands
        return min(max(low, value), high)
    return None


def _computed_truth(opcode: str, operands: Sequence[int]) -> int | None:
    if opcode == "not" and len(operands) == 1:
        return 1 - operands[0]
    if opcode in ("and", "or", "xor", "maximum", "minimum") and len(operands) == 2:
        return _BINARY[opcode](*operands)
    return None


def _shifted(opcode: str, dtype: str, value: int, count: int) -> int | None:
    bits = BITS_PER_ELEMENT[dtype]
    unsigned = value % (1 << bits)
    signed = unsigned - (1 << bits) if unsigned >> (bits - 1) else unsigned
    is_too_far = not 0 <= count < bits
    if opcode == "shift-left":
        return 0 if is_too_far else kept(value << count, dtype)
    if opcode == "shift-right-logical":
        return 0 if is_too_far else kept(unsigned >> count, dtype)
    return kept((-1 if signed < 0 else 0) if is_too_far else signed >> count, dtype)
