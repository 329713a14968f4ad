"""The pass `shape_cleanup`: leaves out changes of shape, layout or type that do nothing, and merges two into one.

reshape, bitcast, transpose, copy, convert or broadcast to what it is already; pad by nothing; slice of everything;
concatenation of one; element of a tuple that is made here                                       the operand
reshape of reshape, bitcast of bitcast, transpose of transpose, broadcast of broadcast, copy of copy,
convert of a convert that kept every value                                                       one of them

The rules are those of XLA's AlgebraicSimplifier (xla/hlo/transforms/simplifiers/algebraic_simplifier.cc).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from memplan.compiler.ir import Graph, Instruction, Shape
from memplan.compiler.ir.shape import BITS_PER_ELEMENT
from memplan.passes.base import GraphContext, GraphPass, RewrittenGraph
from memplan.passes.graph_edit import rewritten_by

Found = Instruction | int | None

# The bits of exponent and mantissa, including the implied one.
_FLOATS = {"bf16": (8, 8), "f16": (5, 11), "f32": (8, 24), "f64": (11, 53), "f8e4m3fn": (4, 4), "f8e5m2": (5, 3)}


def rewrite(graph: Graph, context: GraphContext) -> RewrittenGraph:
    """Cleans up everywhere, also within loops and branches."""
    del context
    return rewritten_by(graph, lambda: _cleaned)


def _cleaned(instruction: Instruction, instructions: list[Instruction]) -> Found:
    clean = _RULES.get(instruction.opcode)
    return clean(instruction, instructions) if clean is not None else None


def _numbers(instruction: Instruction, key: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", instruction.attribute(key)))


def _source(instruction: Instruction, instructions: Sequence[Instruction]) -> Instruction:
    return instructions[instruction.operands[0]]


def _skipping(instruction: Instruction, inner: Instruction, attributes: Sequence[tuple[str, str]] = ()) -> Instruction:
    """Returns an instruction that does what `inner` and then `instruction` do, with changed attributes."""
    outer_value, inner_value = instruction.evaluate, inner.evaluate
    both = None
    if outer_value is not None and inner_value is not None:

        def both(array: object) -> object:
            return outer_value(inner_value(array))

    changed = dict(attributes)
    return replace(
        instruction,
        operands=inner.operands,
        attributes=tuple((key, changed.get(key, value)) for key, value in instruction.attributes),
        evaluate=both,
    )


def _reshape(instruction: Instruction, instructions: Sequence[Instruction]) -> Found:
    inner = _source(instruction, instructions)
    if inner.shape == instruction.shape:
        return instruction.operands[0]
    if inner.opcode != instruction.opcode or inner.shape.dtype != instruction.shape.dtype:
        return None
    first = instructions[inner.operands[0]].shape
    if first == instruction.shape:
        return inner.operands[0]
    # A view of a view has the bytes of the first view only where neither is padded.
    return _skipping(instruction, inner) if _is_plain(first) and _is_plain(instruction.shape) else None


def _is_plain(shape: Shape) -> bool:
    return shape.is_array and (shape.layout is None or not shape.layout.tiles)


def _transpose(instruction: Instruction, instructions: Sequence[Instruction]) -> Found:
    inner, order = _source(instruction, instructions), _numbers(instruction, "dimensions")
    if order == tuple(range(len(order))) and inner.shape == instruction.shape:
        return instruction.operands[0]
    if inner.opcode != "transpose":
        return None
    inner_order = _numbers(inner, "dimensions")
    whole = tuple(inner_order[axis] for axis in order)
    if whole == tuple(range(len(whole))) and instructions[inner.operands[0]].shape == instruction.shape:
        return inner.operands[0]
    return _skipping(instruction, inner, [("dimensions", _braced(whole))])


def _broadcast(instruction: Instruction, instructions: Sequence[Instruction]) -> Found:
    inner, places = _source(instruction, instructions), _numbers(instruction, "dimensions")
    if inner.shape == instruction.shape and places == tuple(range(len(places))):
        return instruction.operands[0]
    if inner.opcode != "broadcast":
        return None
    whole = tuple(places[place] for place in _numbers(inner, "dimensions"))
    return _skipping(instruction, inner, [("dimensions", _braced(whole))])


def _copy(instruction: Instruction, instructions: Sequence[Instruction]) -> Found:
    """Merges two copies that keep the layout; a single copy stays, since it exists to own memory."""
    inner = _source(instruction, instructions)
    if inner.opcode == "copy" and inner.shape.memory_space == instruction.shape.memory_space:
        return _skipping(instruction, inner)
    return None


def _convert(instruction: Instruction, instructions: Sequence[Instruction]) -> Found:
    inner = _source(instruction, instructions)
    if inner.shape == instruction.shape:
        return instruction.operands[0]
    if inner.opcode != "convert":
        return None
    first = instructions[inner.operands[0]].shape
    if not keeps_values(first.dtype, inner.shape.dtype):
        return None
    return inner.operands[0] if first == instruction.shape else _skipping(instruction, inner)


def keeps_values(narrow: str, wide: str) -> bool:
    """Whether every value of a type is a value of another type.

    >>> keeps_values("bf16", "f32"), keeps_values("bf16", "f16"), keeps_values("s32", "f32"), keeps_values("u8", "s16")
    (True, False, False, True)
    """
    if narrow in _FLOATS and wide in _FLOATS:
        return all(a <= b for a, b in zip(_FLOATS[narrow], _FLOATS[wide], strict=True))
    bits = BITS_PER_ELEMENT.get(narrow, 0)
    if narrow == "pred":
        return wide in _FLOATS or re.fullmatch(r"[su]\d+", wide) is not None
    if re.fullmatch(r"[su]\d+", narrow) is None:
        return False
    if wide in _FLOATS:
        return bits <= _FLOATS[wide][1]
    is_integer = re.fullmatch(r"[su]\d+", wide) is not None
    if narrow[0] == wide[0]:
        return is_integer and bits <= BITS_PER_ELEMENT[wide]
    return is_integer and narrow[0] == "u" and bits < BITS_PER_ELEMENT[wide]


def _pad(instruction: Instruction, instructions: Sequence[Instruction]) -> Found:
    is_none = not any(_numbers(instruction, "padding")) and "-" not in instruction.attribute("padding")
    return instruction.operands[0] if is_none and _is_as_before(instruction, instructions) else None


def _as_before(instruction: Instruction, instructions: Sequence[Instruction]) -> Found:
    return instruction.operands[0] if _is_as_before(instruction, instructions) else None


def _is_as_before(instruction: Instruction, instructions: Sequence[Instruction]) -> bool:
    return _source(instruction, instructions).shape == instruction.shape


def _concatenate(instruction: Instruction, instructions: Sequence[Instruction]) -> Found:
    return _as_before(instruction, instructions) if len(instruction.operands) == 1 else None


def _element(instruction: Instruction, instructions: Sequence[Instruction]) -> Found:
    inner = _source(instruction, instructions)
    if inner.opcode != "tuple":
        return None
    found = inner.operands[int(instruction.attribute("index"))]
    return found if instructions[found].shape == instruction.shape else None


def _braced(numbers: Sequence[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


_RULES: dict[str, Callable[[Instruction, Sequence[Instruction]], Found]] = {
    "bitcast": _reshape,
    "broadcast": _broadcast,
    "concatenate": _concatenate,
    "convert": _convert,
    "copy": _copy,
    "get-tuple-element": _element,
    "pad": _pad,
    "reshape": _reshape,
    "slice": _as_before,
    "transpose": _transpose,
}

PASS = GraphPass("shape_cleanup", "Changes of shape, layout or type that change nothing, or are one.", rewrite)
