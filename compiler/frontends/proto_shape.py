"""ShapeProto and LayoutProto (xla/xla_data.proto) to Shape."""

from __future__ import annotations

from functools import lru_cache

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.protobuf import MalformedMessage, integer, integers
from memplan.compiler.ir.shape import BITS_PER_ELEMENT, LAYOUT_ATTRIBUTES, Layout, Shape, print_shape

MAX_BYTES = 2**63 - 1
_MAX_NESTING = 64

# PrimitiveType, by number.
PRIMITIVE_TYPES: dict[int, str] = {
    1: "pred",
    30: "s1", 26: "s2", 21: "s4", 2: "s8", 3: "s16", 4: "s32", 5: "s64",
    31: "u1", 27: "u2", 22: "u4", 6: "u8", 7: "u16", 8: "u32", 9: "u64",
    10: "f16", 11: "f32", 12: "f64", 16: "bf16",
    19: "f8e5m2", 28: "f8e4m3", 20: "f8e4m3fn", 23: "f8e4m3b11fnuz", 29: "f8e3m4", 24: "f8e5m2fnuz", 25: "f8e4m3fnuz",
    32: "f4e2m1fn", 33: "f8e8m0fnu", 35: "f6e3m2fn", 36: "f6e2m3fn",
    15: "c64", 18: "c128",
    13: "tuple", 14: "opaque", 17: "token", 34: "buffer",
}  # fmt: skip

_DIM_LEVEL_TYPES = {0: "D", 1: "C", 2: "S", 3: "H"}


@lru_cache(maxsize=65536)
def shape_from_proto(data: bytes, depth: int = 0) -> Shape:
    """Returns the shape that a serialized ShapeProto denotes; equal bytes give the same object.

    Raises MalformedMessage if it denotes none.
    """
    if depth > _MAX_NESTING:
        raise MalformedMessage(f"a shape nests deeper than {_MAX_NESTING} tuples")
    message = protobuf.read_message(data)
    number = integer(message, 2)
    dtype = PRIMITIVE_TYPES.get(number)
    if dtype is None:
        raise MalformedMessage(f"a shape has the data type number {number}, which is not known")
    elements = tuple([shape_from_proto(element, depth + 1) for element in protobuf.raws(message, 4)])
    if dtype == "tuple":
        shape = Shape("tuple", elements=elements)
        if shape.bytes > MAX_BYTES:
            raise MalformedMessage("a tuple takes more than 2^63 - 1 bytes")
        return shape
    if dtype == "buffer":
        if len(elements) != 1 or not elements[0].is_array:
            raise MalformedMessage("a buffer's shape holds exactly one array")
        inner = elements[0]
        return Shape(inner.dtype, inner.dims, inner.layout, inner.dynamic, is_buffer=True)
    if dtype in ("token", "opaque"):
        return Shape(dtype)
    dims = tuple([-1 if dim < 0 else dim for dim in integers(message, 3)])
    dynamic = tuple([bool(flag) for flag in integers(message, 6)])
    if dynamic and len(dynamic) != len(dims):
        raise MalformedMessage(f"a shape of {len(dims)} dimensions says of {len(dynamic)} whether they are dynamic")
    dynamic = tuple([flag or dim < 0 for flag, dim in zip(dynamic or (False,) * len(dims), dims, strict=True)])
    layout = _layout(protobuf.submessage(message, 5), len(dims)) if 5 in message else None
    shape = Shape(dtype, dims, layout, dynamic if any(dynamic) else ())
    if shape.num_elements > MAX_BYTES or shape.bytes > MAX_BYTES:
        raise MalformedMessage(f"an array takes more than 2^63 - 1 bytes: {print_shape(shape)}")
    return shape


def _layout(message: protobuf.Message, rank: int) -> Layout | None:
    minor_to_major = tuple(integers(message, 1))
    if sorted(minor_to_major) != list(range(rank)):
        raise MalformedMessage(f"a layout {list(minor_to_major)} does not order the {rank} dimensions of its array")
    tiles = []
    for tile in protobuf.submessages(message, 6):
        sizes = tuple([-1 if size < 0 else size for size in integers(tile, 1)])
        if 0 in sizes or sizes[-1:] == (-1,):
            raise MalformedMessage(f"a layout has a tile of {list(sizes)}")
        tiles.append(sizes)
    extra = _extra(message)
    extra_text = "".join(extra[key] for key in LAYOUT_ATTRIBUTES if key in extra)
    space, bits, tail = integer(message, 8), integer(message, 7), integer(message, 16)
    if min(space, bits, tail) < 0:
        raise MalformedMessage("a layout has a negative memory space, element size or padding")
    layout = Layout(minor_to_major, tuple(tiles), space, bits, extra_text, max(tail, 1))
    return None if layout == Layout() else layout


def _extra(message: protobuf.Message) -> dict[str, str]:
    """Returns the text of the rare attributes by their key."""
    extra: dict[str, str] = {}
    if levels := integers(message, 9):
        unique, ordered = integers(message, 13), integers(message, 14)
        texts = []
        for i, level in enumerate(levels):
            mark = "+" if i < len(unique) and not unique[i] else ""
            mark += "~" if i < len(ordered) and not ordered[i] else ""
            texts.append(_DIM_LEVEL_TYPES.get(level, "D") + mark)
        if texts != ["D"] * len(texts):  # dense ones are not printed
            extra["D"] = f"D({','.join(texts)})"
    for number, key in ((11, "#"), (12, "*")):
        if integer(message, number):
            dtype = PRIMITIVE_TYPES.get(integer(message, number), "")
            if dtype not in BITS_PER_ELEMENT:
                raise MalformedMessage("a layout has an index of an unknown type")
            extra[key] = f"{key}({dtype})"
    if splits := protobuf.submessages(message, 17):
        texts = [f"({integer(split, 1)}:{','.join(map(str, integers(split, 2)))})" for split in splits]
        extra["SC"] = "SC" + "".join(texts)
    if 10 in message:
        extra["P"] = f"P({print_shape(shape_from_proto(protobuf.raw(message, 10), 1))})"
    if integer(message, 15):
        extra["M"] = f"M({integer(message, 15)})"
    return extra
