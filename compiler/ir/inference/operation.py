"""What the rules of shape inference work on: an operation, and arrays as lists of dimensions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from memplan.compiler.ir.graph import Computation
from memplan.compiler.ir.shape import BITS_PER_ELEMENT, Shape

# A dimension: its size, and whether that is only known at run time.
Dimension = tuple[int, bool]

COMPONENT_OF = {"c64": "f32", "c128": "f64"}
COMPLEX_OF = {"f32": "c64", "f64": "c128"}

# Per floating-point type, the exponent at which it overflows, and the bits of its significand.
_RANGE_AND_PRECISION = {
    "f64": (1024, 53), "f32": (128, 24), "bf16": (128, 8), "f16": (16, 11),
    "f8e5m2": (16, 3), "f8e5m2fnuz": (16, 3), "f8e4m3": (8, 4), "f8e4m3fn": (9, 4), "f8e4m3b11fnuz": (5, 4),
    "f8e4m3fnuz": (8, 4), "f8e3m4": (4, 5), "f4e2m1fn": (3, 2), "f6e2m3fn": (3, 4), "f6e3m2fn": (5, 3),
    "f8e8m0fnu": (128, 1),
}  # fmt: skip


class ShapeUnknown(Exception):
    """A shape that does not follow: the message is the reason, to be read after "the shape is left out, and"."""


@dataclass(frozen=True)
class InferenceInput:
    """What the shape of a result follows from.

    Attributes:
      callees: in the order of `Instruction.called`.
    """

    opcode: str
    operands: Sequence[Shape]
    attributes: Mapping[str, str]
    callees: Sequence[Computation]

    @property
    def first(self) -> Shape:
        return self.operands[0]

    def array(self, index: int) -> Shape:
        shape = self.operands[index]
        if not shape.is_array:
            raise ShapeUnknown(f"operand {index} is {shape!s:.60}, which is no array")
        return shape

    def numbers(self, key: str) -> tuple[int, ...]:
        """Returns the numbers of a list such as `{0,2}`; none where the attribute is missing."""
        return tuple(map(int, re.findall(r"-?\d{1,18}", self.attributes.get(key, ""))))

    def dimensions(self, key: str, rank: int) -> tuple[int, ...]:
        """Returns dimension numbers; raises ShapeUnknown unless they name different ones of `rank` dimensions."""
        found = self.numbers(key)
        if len(set(found)) < len(found) or any(not 0 <= number < rank for number in found):
            raise ShapeUnknown(f"{key}={self.attributes[key]!s:.60} names no dimensions of its operand")
        return found


def higher_precision(a: str, b: str) -> str:
    """Returns the type of the two that holds more: complex before real, then range, precision, width and sign."""

    def rank(dtype: str) -> tuple[bool, int, int, int, bool]:
        component = COMPONENT_OF.get(dtype, dtype)
        exponent, significand = _RANGE_AND_PRECISION.get(component, (-1, -1))
        bits = 1 if dtype == "pred" else BITS_PER_ELEMENT[component]
        return dtype in COMPONENT_OF, exponent, significand, bits, component.startswith("s")

    return a if rank(a) >= rank(b) else b


def with_type(shape: Shape, dtype: str) -> Shape:
    """Returns an array of another data type; elements below a byte stay packed only where the new type is as small."""
    layout = shape.layout
    if layout is not None and layout.element_bits:
        bits = BITS_PER_ELEMENT[dtype]
        layout = replace(layout, element_bits=bits if bits < 8 else 0)
    return Shape(dtype, shape.dims, layout, shape.dynamic)


def dimensions_of(shape: Shape) -> list[Dimension]:
    return list(zip(shape.dims, shape.dynamic or (False,) * len(shape.dims), strict=True))


def array_of(dtype: str, dimensions: Sequence[Dimension]) -> Shape:
    """Returns an array with the default layout."""
    dynamic = tuple(is_dynamic for _, is_dynamic in dimensions)
    return Shape(dtype, tuple(size for size, _ in dimensions), None, dynamic if any(dynamic) else ())


def tuple_of(elements: Sequence[Shape]) -> Shape:
    return Shape("tuple", elements=tuple(elements))


def marked_dynamic(shape: Shape, marks: Sequence[bool]) -> Shape:
    dynamic = tuple(a or b for a, b in zip(shape.dynamic or (False,) * len(marks), marks, strict=True))
    return replace(shape, dynamic=dynamic if any(dynamic) else ())
