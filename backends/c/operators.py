"""Operations on scalars in C99, with the meaning that XLA gives them: integers wrap, conversions saturate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from memplan.compiler.embedded.expressions import INTEGER_RANGES

# `memplan_f32` is float that may lie where something of another type did.
TYPES = {
    "bool": "uint8_t",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "memplan_i16",
    "uint16": "memplan_u16",
    "int32": "memplan_i32",
    "uint32": "memplan_u32",
    "float32": "memplan_f32",
}

# For casts, which must not have attributes.
_PLAIN = TYPES | {name: f"{name}_t" for name in ("int16", "uint16", "int32", "uint32")} | {"float32": "float"}

_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_BITS = {"and": "&", "or": "|", "xor": "^"}
_PLAIN_SIGN = {"add": "+", "sub": "-", "mul": "*"}

# Of floats: functions of math.h.
_FUNCTIONS = {
    "abs": "fabsf", "atan2": "atan2f", "cbrt": "cbrtf", "ceil": "ceilf", "cos": "cosf", "erf": "erff", "exp": "expf",
    "exp2": "exp2f", "expm1": "expm1f", "floor": "floorf", "log": "logf", "log1p": "log1pf", "pow": "powf",
    "rem": "fmodf", "round": "rintf", "round_away": "roundf", "sin": "sinf", "sqrt": "sqrtf", "tan": "tanf",
    "tanh": "tanhf",
}  # fmt: skip


def constant_text(value: int | float | bool, dtype: str) -> str:
    """Returns a number as C has it; floats are exact."""
    if dtype == "float32":
        if math.isnan(value):
            return "NAN"
        if math.isinf(value):
            return "INFINITY" if value > 0 else "(-INFINITY)"
        text = f"{float(np.float32(value)).hex()}f"
        short = f"{np.float32(value)!s}f" if "e" not in str(np.float32(value)) else text
        return f"({short})" if text.startswith("-") else short
    if dtype == "uint32":
        return f"{int(value)}u"
    if int(value) == -(2**31):
        return "INT32_MIN"
    return f"({int(value)})" if value < 0 else str(int(value))


def convert_text(source: str, target: str, value: str) -> str:
    """Returns a conversion; from float to integers it saturates, and what is no number becomes 0, as in XLA."""
    if source == target:
        return value
    if target == "bool":
        return f"(uint8_t)({value} != 0)"
    if source == "float32":
        low, high = INTEGER_RANGES[target]
        if target in ("int32", "uint32"):
            return f"f32_to_{target}({value})"
        return f"({_PLAIN[target]})f32_to_int({value}, {constant_text(low, 'int32')}, {high})"
    return f"({_PLAIN[target]}){value}"


def operation_text(name: str, operands: Sequence[str], dtypes: Sequence[str], dtype: str, is_exact: bool) -> str:
    """Returns an operation.

    Args:
      name: one of `OPERATIONS`.
      operands: their texts, each an identifier, a call, or in brackets where a sign could bind otherwise.
      dtypes: of the operands.
      dtype: of the result.
      is_exact: whether an integer result cannot overflow.
    """
    first, last = operands[0], operands[-1]
    operand = dtypes[-1]
    if name == "convert":
        return convert_text(dtypes[0], dtype, first)
    if name == "select":
        return f"({first} ? {operands[1]} : {last})"
    if name in _COMPARE:
        return f"({first} {_COMPARE[name]} {last})"
    if name == "is_finite":
        return f"(isfinite({first}) != 0)"
    if name in ("max", "min"):
        kind = operand if operand in ("float32", "uint32") else "int32"
        text = f"{name}_{kind}({first}, {last})"
        return text if operand == kind else _cut(text, operand)
    if operand == "float32":
        return _float_text(name, first, last, len(operands))
    return _integer_text(name, first, last, operand, is_exact)


def _float_text(name: str, first: str, last: str, count: int) -> str:
    if name in _PLAIN_SIGN or name == "div":
        return f"({first} {_PLAIN_SIGN.get(name, '/')} {last})"
    match name:
        case "neg":
            return f"(-{first})"
        case "sign":
            return f"sign_float32({first})"
        case "rsqrt":
            return f"(1.0f / sqrtf({first}))"
        case "logistic":
            return f"(1.0f / (1.0f + expf(-{first})))"
    return f"{_FUNCTIONS[name]}({first})" if count == 1 else f"{_FUNCTIONS[name]}({first}, {last})"


def _integer_text(name: str, first: str, last: str, dtype: str, is_exact: bool) -> str:
    if name in _PLAIN_SIGN:
        if is_exact:
            return _cut(f"({first} {_PLAIN_SIGN[name]} {last})", dtype)
        return f"({_PLAIN[dtype]})((uint32_t){first} {_PLAIN_SIGN[name]} (uint32_t){last})"
    if name in _BITS:
        return _cut(f"({first} {_BITS[name]} {last})", dtype)
    match name:
        case "not":
            return f"(uint8_t)(!{first})" if dtype == "bool" else _cut(f"(~{first})", dtype)
        case "neg":
            return _cut(f"(-{first})", dtype) if is_exact else f"({_PLAIN[dtype]})(0u - (uint32_t){first})"
        case "abs" | "sign" if dtype.startswith("u"):
            return first if name == "abs" else _cut(f"({first} != 0)", dtype)
        case "abs":
            return f"({_PLAIN[dtype]})abs_int32({first})"
        case "sign":
            return _cut(f"(({first} > 0) - ({first} < 0))", dtype)
    bits = 8 * np.dtype(dtype).itemsize
    if name in ("div", "rem"):
        kind = "uint32" if dtype.startswith("u") else "int32"
        return f"({_PLAIN[dtype]}){name}_{kind}({first}, {last})"
    if name == "shift_right_arithmetic":
        return f"({_PLAIN[dtype]})shift_right_arithmetic((int{bits}_t){first}, (uint32_t){last}, {bits}u)"
    unsigned = f"(uint{bits}_t)"
    return f"({_PLAIN[dtype]}){name}({unsigned}{first}, (uint32_t){last}, {bits}u)"


def _cut(text: str, dtype: str) -> str:
    """Returns a value that C has as int, in its narrower type."""
    return text if dtype in ("int32", "uint32", "bool") else f"({_PLAIN[dtype]}){text}"


def neutral(combine: str, dtype: str) -> str:
    """Returns what a reduction starts with."""
    match combine:
        case "sum" | "or" | "xor":
            return constant_text(0.0 if dtype == "float32" else 0, dtype)
        case "prod":
            return constant_text(1.0 if dtype == "float32" else 1, dtype)
        case "and":
            return "1" if dtype == "bool" else f"({_PLAIN[dtype]})~0u"
    is_max = combine == "max"
    if dtype == "float32":
        return constant_text(-math.inf if is_max else math.inf, dtype)
    return constant_text(INTEGER_RANGES[dtype][0 if is_max else 1], dtype)


def combined(combine: str, accumulator: str, value: str, dtype: str, is_exact: bool) -> str:
    """Returns the accumulator after one more value."""
    name = {"sum": "add", "prod": "mul"}.get(combine, combine)
    if dtype == "bool" and name in ("max", "min"):
        name = "or" if name == "max" else "and"
    return operation_text(name, (accumulator, value), (dtype, dtype), dtype, is_exact)
