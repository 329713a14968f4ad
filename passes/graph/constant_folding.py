"""The pass `constant_folding`: folds what depends on constants alone, and leaves out neutral operations.

    add(2, 3), compare(1, 2), select(true, x, y), convert(1)        scalars, computed here
    multiply(x, 1), divide(x, 1), subtract(x, 0), and(x, true)      x

It is exact to the bit: integers wrap, floats are those of IEEE (add, subtract, multiply, maximum and minimum of f32 and
f64, and comparisons), and `x + 0` stays for floats, since it turns -0 into 0 (Muchnick, Advanced Compiler Design,
section 12.1; XLA's HloConstantFolding and AlgebraicSimplifier).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from memplan.compiler.ir import Graph, Instruction, Shape
from memplan.compiler.ir.integers import COMPARISONS
from memplan.passes.base import GraphContext, GraphPass, RewrittenGraph
from memplan.passes.graph_edit import rewritten_by

_DTYPES = {
    "pred": np.bool_, "s8": np.int8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "u8": np.uint8,
    "u16": np.uint16, "u32": np.uint32, "u64": np.uint64, "f32": np.float32, "f64": np.float64,
}  # fmt: skip

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "maximum": np.maximum,
    "minimum": np.minimum, "and": operator.and_, "or": operator.or_, "xor": operator.xor,
}  # fmt: skip
_UNARY: dict[str, Callable[[Any], Any]] = {"negate": operator.neg, "abs": np.abs, "not": np.invert}

# The neutral right operand; where the operation commutes, it is a neutral left operand, too.
_NEUTRAL = {"multiply": 1, "divide": 1, "subtract": 0, "add": 0, "or": 0, "xor": 0}
_COMMUTES = frozenset({"multiply", "add", "or", "xor", "and"})


def rewrite(graph: Graph, context: GraphContext) -> RewrittenGraph:
    """Folds everywhere, also within loops and branches."""
    del context
    return rewritten_by(graph, lambda: _folded)


def _folded(instruction: Instruction, instructions: Sequence[Instruction]) -> Instruction | int | None:
    opcode, shape, operands = instruction.opcode, instruction.shape, instruction.operands
    if opcode not in _FOLDED:
        return None
    values = [_scalar(instructions, operand) for operand in operands]
    if opcode == "select" and values[0] is not None:
        chosen = operands[1 if values[0] else 2]
        return chosen if instructions[chosen].shape == shape else None
    if opcode in _NEUTRAL or opcode == "and":
        kept = _kept(instruction, instructions, values)
        if kept is not None:
            return kept
    if shape.dims or shape.dtype not in _DTYPES or not all(instructions[o].opcode == "constant" for o in operands):
        return None
    known = [value for value in values if value is not None]
    if len(known) < len(operands):
        return None
    result = _computed(instruction, known)
    return None if result is None else _constant(instruction, result)


_FOLDED = frozenset({*_BINARY, *_UNARY, *_NEUTRAL, "and", "compare", "convert", "select"})


def _kept(instruction: Instruction, instructions: Sequence[Instruction], values: Sequence[Any]) -> int | None:
    """Returns the operand that the other, neutral one does not change; None if neither is neutral."""
    opcode, shape = instruction.opcode, instruction.shape
    if opcode == "add" and shape.dtype[0] not in "su":
        return None
    for number in (1, 0) if opcode in _COMMUTES else (1,):
        value, other = values[number], instruction.operands[1 - number]
        neutral = value is not None and (
            (shape.dtype == "pred" and bool(value)) if opcode == "and" else value == _NEUTRAL[opcode]
        )
        # 0 - 0 is 0, but -0 is no neutral element of it.
        if opcode == "subtract" and neutral and np.signbit(np.asarray(value, np.float64)):
            continue
        if neutral and instructions[other].shape == shape:
            return other
    return None


def _computed(instruction: Instruction, values: Sequence[Any]) -> Any:
    opcode, dtype = instruction.opcode, _DTYPES[instruction.shape.dtype]
    with np.errstate(all="ignore"):
        if opcode == "compare":
            compare = COMPARISONS.get(instruction.attribute("direction"))
            return None if compare is None or instruction.attribute("type") == "TOTALORDER" else compare(*values)
        if opcode == "convert":
            is_exact = np.array_equal(np.asarray(values[0]).astype(dtype), values[0])
            return np.asarray(values[0]).astype(dtype)[()] if is_exact else None
        if opcode in _UNARY and not (opcode == "negate" and dtype is np.bool_):
            return dtype(_UNARY[opcode](values[0]))
        if opcode in _BINARY and not (dtype is np.bool_ and opcode in ("add", "subtract", "multiply")):
            return np.asarray(_BINARY[opcode](*values)).astype(dtype)[()]
    return None


def _scalar(instructions: Sequence[Instruction], number: int) -> Any:
    """Returns the value of a scalar constant or of one that is broadcast; None if it is not known."""
    instruction = instructions[number]
    if instruction.opcode == "broadcast":
        instruction = instructions[instruction.operands[0]]
    if instruction.opcode != "constant" or instruction.shape.dims or instruction.shape.dtype not in _DTYPES:
        return None
    dtype = _DTYPES[instruction.shape.dtype]
    if instruction.evaluate is not None:
        return np.asarray(instruction.evaluate()).astype(dtype)[()]
    text = instruction.payload.strip()
    try:
        if dtype is np.bool_:
            return {"true": np.True_, "false": np.False_}[text]
        return dtype(float(text)) if instruction.shape.dtype[0] == "f" else dtype(int(text))
    except (ValueError, KeyError, OverflowError):
        return None


def _constant(instruction: Instruction, value: Any) -> Instruction:
    """Returns a constant in the place of an instruction."""
    array: Any = np.asarray(value, _DTYPES[instruction.shape.dtype])
    return replace(
        instruction,
        opcode="constant",
        operands=(),
        called=(),
        attributes=tuple((key, text) for key, text in instruction.attributes if key == "metadata"),
        payload=_literal(instruction.shape, array[()]),
        evaluate=None if instruction.evaluate is None else lambda: array,
    )


def _literal(shape: Shape, value: Any) -> str:
    if shape.dtype == "pred":
        return "true" if value else "false"
    if shape.dtype[0] != "f":
        return str(int(value))
    if np.isnan(value):
        return "nan"
    return ("-inf" if value < 0 else "inf") if np.isinf(value) else str(value)


PASS = GraphPass(
    "constant_folding", "Scalars that depend on constants alone, and what a constant changes not.", rewrite
)
