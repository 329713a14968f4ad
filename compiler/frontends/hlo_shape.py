"""Shapes as HLO text writes them: `bf16[8,512]{1,0:T(8,128)(2,1)S(1)}`, `(f32[], s32[<=4])`, `token[]`, `b(f32[8])`.

The grammar is that of XLA's `ParseShape` and `ParseLayout` (xla/hlo/parser/hlo_parser.cc); the meaning of a layout's
attributes is documented in XLA's `layout.h` and "Tiled layout" (openxla.org/xla/tiled_layout).
"""

from __future__ import annotations

import re
from functools import lru_cache

from memplan.compiler.frontends.hlo_lexical import MalformedText, excerpt, skip_space
from memplan.compiler.ir.shape import BITS_PER_ELEMENT, LAYOUT_ATTRIBUTE, LAYOUT_ATTRIBUTES, Layout, Shape

MAX_BYTES = 2**63 - 1  # what XLA counts bytes and elements with
_MAX_NESTING = 64
_NUMBER = r"\d{1,19}(?!\d)"  # longer ones exceed 64 bits

# A brace begins a layout if a number or a colon follows it; `{}` right after a shape is the layout of a scalar.
# Its braces may hold the braces of one physical shape, `P(f32[8]{0})`.
_ARRAY = re.compile(r"([A-Za-z]\w*+)\s*+\[([^\]]*+)\](?:\s*+(\{\s*+[\d:][^{}]*+(?:\{[^{}]*+\}[^{}]*+)*\})|(\{\s*+\}))?")
_DIMENSION = re.compile(rf"\s*+(<=)?\s*+({_NUMBER}|\?)\s*+(?:,|$)")
_SPACES = re.compile(r"\s++")
_INTEGERS = re.compile(rf"\s*+{_NUMBER}\s*+(?:,\s*+{_NUMBER}\s*+)*")
_TILE = re.compile(rf"\(\s*+((?:\*|{_NUMBER})\s*+(?:,\s*+(?:\*|{_NUMBER})\s*+)*)?\)")
# `D` and `SC` come with lists, `P` with a shape; what is unknown is kept when it has this form too.
_LAYOUT_ATTRIBUTE = re.compile(rf"\s*+{LAYOUT_ATTRIBUTE}")


def parse_shape(text: str) -> Shape:
    """Returns the shape that the whole of `text` denotes; raises MalformedText with the place in `text`.

    >>> parse_shape("(bf16[8,4]{1,0:T(8,128)(2,1)}, token[])").bytes
    2048
    """
    shape, end = shape_at(text, skip_space(text, 0))
    end = skip_space(text, end)
    if end != len(text):
        raise MalformedText(f"expected the end of the shape, found {excerpt(text, end)}", end)
    return shape


def shape_at(text: str, start: int, depth: int = 0) -> tuple[Shape, int]:
    """Returns the shape that begins at `start`, and the offset after it; raises MalformedText."""
    if text.startswith("(", start) or text.startswith("b(", start):
        if depth == _MAX_NESTING:
            raise MalformedText(f"shape nests deeper than {_MAX_NESTING} tuples", start)
        if text[start] == "b":
            inner, end = shape_at(text, start + 2, depth + 1)
            if not text.startswith(")", end) or not inner.is_array or inner.is_buffer:
                raise MalformedText("expected one array between b( and )", start)
            return Shape(inner.dtype, inner.dims, inner.layout, inner.dynamic, is_buffer=True), end + 1
        return _tuple_at(text, start, depth)
    match = _ARRAY.match(text, start)
    if match is None:
        raise MalformedText(f"expected a shape such as f32[8,128]{{1,0}}, found {excerpt(text, start)}", start)
    try:
        return _array(match.group()), match.end()
    except MalformedText as error:
        raise MalformedText(error.message, start + error.offset) from None


def _tuple_at(text: str, start: int, depth: int) -> tuple[Shape, int]:
    elements: list[Shape] = []
    position = skip_space(text, start + 1)
    if text.startswith(")", position):
        return Shape("tuple"), position + 1
    total = 0
    while True:
        element_start = position
        element, position = shape_at(text, position, depth + 1)
        elements.append(element)
        total += element.bytes
        if total > MAX_BYTES:
            raise MalformedText("the tuple takes more than 2^63 - 1 bytes", element_start)
        position = skip_space(text, position)
        if text.startswith(")", position):
            return Shape("tuple", elements=tuple(elements)), position + 1
        if not text.startswith(",", position):
            raise MalformedText(f"expected , or ) in a tuple's shape, found {excerpt(text, position)}", position)
        position = skip_space(text, position + 1)


@lru_cache(maxsize=65536)
def _array(text: str) -> Shape:
    """Returns the shape of one array, token or opaque; equal texts give the same object."""
    match = _ARRAY.fullmatch(text)
    assert match is not None
    dtype, dims_text, layout_text, empty_layout = match.groups()
    if dtype not in BITS_PER_ELEMENT:
        known = ", ".join(BITS_PER_ELEMENT)
        raise MalformedText(f"data type {dtype!r} is not known; known are {known}", 0)
    dims, dynamic = _dimensions(dims_text, match.start(2))
    if dtype in ("token", "opaque"):
        if dims:
            raise MalformedText(f"a {dtype} has no dimensions", match.start(2))
        return Shape(dtype)
    layout = None
    if empty_layout is not None and dims:
        raise MalformedText(f"layout {{}} does not order the {len(dims)} dimensions of its array", match.start(4) + 1)
    if layout_text is not None:
        layout = _layout(layout_text[1:-1], len(dims), match.start(3) + 1)
    shape = Shape(dtype, dims, layout, dynamic)
    if shape.num_elements > MAX_BYTES or shape.bytes > MAX_BYTES:
        raise MalformedText("the array takes more than 2^63 - 1 bytes", match.start(2))
    return shape


def _dimensions(text: str, offset: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    if not text.strip():
        return (), ()
    dims: list[int] = []
    dynamic: list[bool] = []
    position = 0
    while position < len(text) or text[-1] == ",":
        match = _DIMENSION.match(text, position)
        if match is None:
            raise MalformedText(
                f"expected a dimension of at most 63 bits, found {excerpt(text, position)}", offset + position
            )
        bound, size = match.groups()
        dims.append(-1 if size == "?" else int(size))
        if dims[-1] > MAX_BYTES:
            raise MalformedText(f"dimension {size} exceeds 2^63 - 1", offset + position)
        dynamic.append(bound is not None or size == "?")
        position = match.end()
        if position == len(text) and text[-1] != ",":
            break
    return tuple(dims), tuple(dynamic) if any(dynamic) else ()


def _layout(text: str, rank: int, offset: int) -> Layout | None:
    """Parses what stands between the braces of a layout."""
    order_text, _, attributes = text.partition(":")
    if _SPACES.search(attributes):
        attributes = _SPACES.sub(_kept_space, attributes)
    minor_to_major: tuple[int, ...] = ()
    if order_text.strip():
        if _INTEGERS.fullmatch(order_text) is None:
            raise MalformedText(f"expected the order of dimensions, found {order_text!r}", offset)
        minor_to_major = tuple(map(int, order_text.split(",")))
    if sorted(minor_to_major) != list(range(rank)):
        raise MalformedText(f"layout {{{order_text}}} does not order the {rank} dimensions of its array", offset)
    tiles: list[tuple[int, ...]] = []
    numbers = {"L": 1, "E": 0, "S": 0}
    extra: dict[str, str] = {}
    seen: set[str] = set()
    position = 0
    offset += len(order_text) + 1
    while position < len(attributes.rstrip()):
        match = _LAYOUT_ATTRIBUTE.match(attributes, position)
        if match is None:
            raise MalformedText(
                f"expected a layout's attribute such as T(8,128), found {excerpt(attributes, position)}",
                offset + position,
            )
        key, value = match.groups()
        if key in seen:
            raise MalformedText(f"the layout states {key} twice", offset + match.start())
        seen.add(key)
        if key == "T":
            position = match.start(2)
            while (tile := _TILE.match(attributes, position)) is not None:
                tiles.append(_tile(tile.group(1), offset + position))
                position = tile.end()
            if not tiles:
                raise MalformedText(f"expected a tile such as (8,128), found {value!r}", offset + match.start(2))
            continue
        position = match.end()
        if key in numbers:
            if re.fullmatch(r"\(\d{1,19}\)", value) is None or int(value[1:-1]) > MAX_BYTES:
                raise MalformedText(f"expected a number in {key}{value}", offset + match.start())
            numbers[key] = int(value[1:-1])
        else:
            extra[key] = key + value
    known_first = [key for key in LAYOUT_ATTRIBUTES if key in extra] + [
        key for key in extra if key not in LAYOUT_ATTRIBUTES
    ]
    extra_text = "".join(extra[key] for key in known_first)
    return Layout(minor_to_major, tuple(tiles), numbers["S"], numbers["E"], extra_text, max(numbers["L"], 1))


def _kept_space(match: re.Match[str]) -> str:
    """Returns what is left of spaces: one between two words or numbers, else none."""
    around = match.string[match.start() - 1 : match.start()], match.string[match.end() : match.end() + 1]
    return " " if all(side.isalnum() for side in around) else ""


def _tile(text: str | None, offset: int) -> tuple[int, ...]:
    sizes = tuple(-1 if size.strip() == "*" else int(size) for size in text.split(",")) if text else ()
    if any(size == 0 or size > MAX_BYTES for size in sizes):
        raise MalformedText(f"a tile's sizes lie between 1 and 2^63 - 1, not ({text})", offset)
    if sizes and sizes[-1] == -1:
        raise MalformedText(f"a tile's last size combines with nothing: ({text})", offset)
    return sizes
