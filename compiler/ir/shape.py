"""Shapes: data type, dimensions, layout, tiling and memory space, and the exact number of bytes that they take.

The text form is XLA's: `bf16[2048,1024]{1,0:T(8,128)(2,1)S(1)}` is a 2048 by 1024 array of bfloat16, dimension 1 minor,
stored in tiles of 8 by 128 whose rows are interleaved in pairs, in memory space 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

# Bits of one element, for every type that XLA prints (xla_data.proto, PrimitiveType). "token" and "opaque" own no
# memory; a tuple's own table of pointers is not part of the program's data.
BITS_PER_ELEMENT: dict[str, int] = {
    "pred": 8,
    "s1": 1, "s2": 2, "s4": 4, "s8": 8, "s16": 16, "s32": 32, "s64": 64,
    "u1": 1, "u2": 2, "u4": 4, "u8": 8, "u16": 16, "u32": 32, "u64": 64,
    "f4e2m1fn": 4, "f6e2m3fn": 6, "f6e3m2fn": 6,
    "f8e3m4": 8, "f8e4m3": 8, "f8e4m3b11fnuz": 8, "f8e4m3fn": 8, "f8e4m3fnuz": 8,
    "f8e5m2": 8, "f8e5m2fnuz": 8, "f8e8m0fnu": 8,
    "bf16": 16, "f16": 16, "f32": 32, "f64": 64,
    "c64": 64, "c128": 128,
    "token": 0, "opaque": 0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array's elements lie in memory.

    Attributes:
      minor_to_major: dimension numbers, fastest varying first.
      tiles: tile sizes, outermost tile first; `-1` is XLA's `*`, a dimension combined with the next more minor one.
      memory_space: XLA's number of the memory, 0 for the default one (`S(k)` in text).
      element_bits: bits of one stored element where it is packed below a byte (`E(4)`), else 0.
      extra: remaining attributes exactly as printed, such as `#(u32)` or `SC(0:512)`; they do not change the size.
      tail_padding: the array is padded at its end to a multiple of so many elements (`L(1024)`).
    """

    minor_to_major: tuple[int, ...] = ()
    tiles: tuple[tuple[int, ...], ...] = ()
    memory_space: int = 0
    element_bits: int = 0
    extra: str = ""
    tail_padding: int = 1


@dataclass(frozen=True)
class Shape:
    """An array, a tuple of shapes, a token or an opaque handle.

    Attributes:
      dtype: a key of `BITS_PER_ELEMENT`, or "tuple".
      dims: dimensions; a bounded dynamic one holds its bound, an unbounded one -1.
      layout: None where the text gives none: row-major, untiled, default memory.
      dynamic: per dimension, whether its size is only known at run time; empty when none is.
      elements: the elements of a tuple.
      is_buffer: whether the array is a buffer that instructions update in place, `b(f32[8])` in text.
    """

    dtype: str
    dims: tuple[int, ...] = ()
    layout: Layout | None = None
    dynamic: tuple[bool, ...] = ()
    elements: tuple[Shape, ...] = ()
    is_buffer: bool = False

    @property
    def is_tuple(self) -> bool:
        return self.dtype == "tuple"

    @property
    def is_array(self) -> bool:
        return self.dtype not in ("tuple", "token", "opaque")

    @property
    def memory_space(self) -> int:
        return self.layout.memory_space if self.layout is not None else 0

    @property
    def num_elements(self) -> int:
        """Elements of an array, without padding; 0 for a tuple, a token and an opaque."""
        return _product([max(d, 0) for d in self.dims]) if self.is_array else 0

    def with_memory_space(self, memory_space: int) -> Shape:
        """Returns the same array in another memory."""
        layout = self.layout or Layout(tuple(reversed(range(len(self.dims)))))
        return replace(self, layout=replace(layout, memory_space=memory_space))

    def without_layout(self) -> Shape:
        """Returns the same shape with no layouts: its data types, dimensions and structure."""
        if self.is_tuple:
            return replace(self, elements=tuple([element.without_layout() for element in self.elements]))
        return replace(self, layout=None) if self.layout is not None else self

    def leaves(self, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Shape]]:
        """Yields `(tuple index, shape)` of every leaf that is not a tuple, in order."""
        if not self.is_tuple:
            yield path, self
            return
        for i, element in enumerate(self.elements):
            yield from element.leaves((*path, i))

    def at(self, path: tuple[int, ...]) -> Shape:
        """Returns the shape at a tuple index."""
        shape = self
        for i in path:
            shape = shape.elements[i]
        return shape

    @cached_property
    def has_unknown_size(self) -> bool:
        """Whether a dimension has neither a size nor a bound; of a tuple, one of any leaf."""
        return any(dim < 0 for dim in self.dims) or any(element.has_unknown_size for element in self.elements)

    @cached_property
    def bytes(self) -> int:
        """Bytes in memory, padded to the tiles of the layout; of a tuple, the sum over its leaves.

        An array with an unbounded dimension counts 0, because its size is not known.
        """
        if self.is_tuple:
            return sum(element.bytes for element in self.elements)
        if not self.is_array:
            return 0
        elements = self._padded_elements()
        if self.layout is not None:
            elements = _round_up(elements, self.layout.tail_padding)
        return -(-elements * self._stored_bits // 8)

    @cached_property
    def unpadded_bytes(self) -> int:
        """Bytes that the elements take without the padding of the layout; of a tuple, the sum over its leaves."""
        if self.is_tuple:
            return sum(element.unpadded_bytes for element in self.elements)
        return -(-self.num_elements * self._stored_bits // 8) if self.is_array else 0

    @property
    def _stored_bits(self) -> int:
        """Bits of one element in memory: XLA stores a sub-byte one in a byte unless the layout packs it."""
        if self.layout is not None and self.layout.element_bits:
            return self.layout.element_bits
        return max(BITS_PER_ELEMENT[self.dtype], 8)

    def _padded_elements(self) -> int:
        """Elements that the layout stores: each tile applies to the most minor dimensions of what the last one left.

        Tiling `[20, 300]` by `T(8,128)` gives `[3, 3, 8, 128]`; a further `(2,1)` splits the last two dimensions again
        (XLA, "Tiled layout").
        """
        layout = self.layout
        if layout is None or not layout.tiles:
            return self.num_elements
        physical = [max(self.dims[d], 0) for d in reversed(layout.minor_to_major)]
        for tile in layout.tiles:
            if tile and tile[-1] == -1:
                raise ValueError(f"tile {tile} has nothing to combine its most minor dimension with")
            if len(physical) < len(tile):
                physical = [1] * (len(tile) - len(physical)) + physical
            tiled = physical[len(physical) - len(tile) :]
            del physical[len(physical) - len(tile) :]
            carry = 1
            sizes: list[int] = []
            for dim, size in zip(tiled, tile, strict=True):
                carry *= dim
                if size != -1:
                    physical.append(-(-carry // size))
                    sizes.append(size)
                    carry = 1
            physical += sizes
        return _product(physical)

    def __str__(self) -> str:
        return print_shape(self)


def _product(sizes: Sequence[int]) -> int:
    """Returns the product of sizes; of more than 64, whose product is slow to compute, at most one beyond 2^64."""
    if len(sizes) <= 64:
        return math.prod(sizes)
    if 0 in sizes:
        return 0
    product = 1
    for size in sizes:
        product *= size
        if product >> 64:
            break
    return product


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def print_shape(shape: Shape) -> str:
    """Returns XLA's text of a shape, layout included.

    >>> print_shape(Shape("bf16", (8, 4), Layout((1, 0), ((8, 128), (2, 1)), memory_space=1)))
    'bf16[8,4]{1,0:T(8,128)(2,1)S(1)}'
    """
    if shape.is_tuple:
        parts = []
        for i, element in enumerate(shape.elements):
            mark = f"/*index={i}*/" if i and i % 5 == 0 else ""
            parts.append(mark + print_shape(element))
        return "(" + ", ".join(parts) + ")"
    if shape.dtype in ("token", "opaque"):
        return f"{shape.dtype}[]"
    dims = []
    for i, dim in enumerate(shape.dims):
        is_dynamic = bool(shape.dynamic) and shape.dynamic[i]
        dims.append("?" if dim < 0 else f"<={dim}" if is_dynamic else str(dim))
    text = f"{shape.dtype}[{','.join(dims)}]" + print_layout(shape.layout)
    return f"b({text})" if shape.is_buffer else text


# An attribute of a layout: its key, and its parentheses, which nest at most three deep.
LAYOUT_ATTRIBUTE = r"([A-Z]++|#|\*)(\([^()]*+(?:\([^()]*+(?:\([^()]*+\)[^()]*+)*\)[^()]*+)*\))"
_EXTRA = re.compile(LAYOUT_ATTRIBUTE)
# The order in which XLA's Layout::Print writes the attributes, and the only one that its parser takes.
LAYOUT_ATTRIBUTES = ("D", "T", "L", "#", "*", "E", "S", "SC", "P", "M")


def print_layout(layout: Layout | None) -> str:
    """Returns XLA's text of a layout with its braces; "" where there is nothing to say."""
    if layout is None:
        return ""
    attributes: dict[str, str] = {}
    if layout.tiles:
        tiles = [",".join("*" if size == -1 else str(size) for size in tile) for tile in layout.tiles]
        attributes["T"] = "T" + "".join(f"({tile})" for tile in tiles)
    if layout.tail_padding != 1:
        attributes["L"] = f"L({layout.tail_padding})"
    if layout.element_bits:
        attributes["E"] = f"E({layout.element_bits})"
    if layout.memory_space:
        attributes["S"] = f"S({layout.memory_space})"
    if layout.extra:
        for match in _EXTRA.finditer(layout.extra):
            attributes[match.group(1)] = match.group()
    text = "".join(attributes.pop(key) for key in LAYOUT_ATTRIBUTES if key in attributes) + "".join(attributes.values())
    minor_to_major = ",".join(map(str, layout.minor_to_major))
    if not minor_to_major and not text:
        return ""
    return "{" + minor_to_major + (":" + text if text else "") + "}"
