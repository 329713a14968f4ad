"""LiteralProto (xla/xla_data.proto) to the text that XLA prints between the parentheses of a constant.

Numbers are printed as by `tsl::strings` and `RoundTripFpToString`: f32 and f64 in 6 or 15 digits if these suffice, else
in 9 or 17; narrower types in as many digits as their precision needs. Constants of more than ten elements print as
`{...}`, as XLA prints them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from itertools import takewhile

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.proto_shape import shape_from_proto
from memplan.compiler.frontends.protobuf import MalformedMessage, Message
from memplan.compiler.ir.shape import Shape, print_shape

_MAX_PRINTED = 10
_MAX_EMPTY_ROWS = 10_000  # braces that are printed of an array without elements
_MAX_NESTING = 64

# Data type to the field that holds its values as one string of bytes, and bytes per value.
_BYTES_FIELDS: dict[str, tuple[int, int]] = {
    "s1": (30, 1), "s2": (26, 1), "s4": (21, 1), "s8": (15, 1), "s16": (17, 2),
    "u1": (31, 1), "u2": (27, 1), "u4": (22, 1), "u8": (3, 1), "u16": (16, 2),
    "f16": (11, 2), "bf16": (13, 2),
    "f4e2m1fn": (32, 1), "f8e3m4": (29, 1), "f8e4m3b11fnuz": (23, 1), "f8e4m3fn": (20, 1), "f8e4m3fnuz": (25, 1),
    "f8e4m3": (28, 1), "f8e5m2fnuz": (24, 1), "f8e5m2": (19, 1), "f8e8m0fnu": (33, 1),
}  # fmt: skip
_VARINT_FIELDS = {"pred": 2, "s32": 4, "s64": 5, "u32": 6, "u64": 7}
_FIXED_FIELDS = {"f32": (8, "f"), "f64": (9, "d"), "c64": (12, "f"), "c128": (18, "d")}
_FIELDS = frozenset((*_BYTES_FIELDS, *_VARINT_FIELDS, *_FIXED_FIELDS))  # f6 has none: XLA cannot write such constants
# Significant digits that a narrow type needs (std::numeric_limits<T>::max_digits10).
_DIGITS = {"f16": 5, "bf16": 4, "f8e3m4": 3, "f8e4m3": 3, "f8e4m3fn": 3, "f8e4m3b11fnuz": 3, "f8e4m3fnuz": 3}


def literal_text(data: bytes) -> str:
    """Returns the text of a constant from a serialized LiteralProto; raises MalformedMessage."""
    return _text(data, 0, False, _MAX_PRINTED)


def literal_with_shape(data: bytes) -> str:
    """Returns the text of a literal that is an attribute, such as `f32[2]{0} {1, 2}`; it is printed however long it is.

    Raises MalformedMessage.
    """
    return _text(data, 0, True, None)


def _text(data: bytes, depth: int, with_shape: bool, limit: int | None) -> str:
    """Returns the text of a serialized LiteralProto; `{...}` for more than `limit` elements."""
    if depth > _MAX_NESTING:
        raise MalformedMessage(f"a constant nests deeper than {_MAX_NESTING} tuples")
    message = protobuf.read_message(data)
    shape = shape_from_proto(protobuf.raw(message, 1))
    if shape.is_tuple:
        parts = [_text(element, depth + 1, with_shape, limit) for element in protobuf.raws(message, 10)]
        return "( " + ", ".join(parts) + " )" if parts or with_shape else "()"
    if not shape.is_array:
        return ""
    values = _array_text(message, shape, limit)
    return f"{print_shape(shape)} {values}" if with_shape else values


def _array_text(message: Message, shape: Shape, limit: int | None) -> str:
    is_long = limit is not None and shape.num_elements > limit
    empty_rows = 0 if shape.num_elements else math.prod(takewhile(bool, shape.dims))
    is_deep = len(shape.dims) > _MAX_NESTING
    if is_long or is_deep or empty_rows > _MAX_EMPTY_ROWS or shape.dtype not in _FIELDS:
        return "{...}"
    values = _values(message, shape)
    if len(values) != shape.num_elements:
        raise MalformedMessage(f"a constant of {shape.num_elements} elements has {len(values)} values")
    rank = len(shape.dims)
    if not rank:
        return ("true" if values[0] == "1" else "false") if shape.dtype == "pred" else values[0]
    strides = [0] * rank
    stride = 1
    order = shape.layout.minor_to_major if shape.layout is not None else tuple(reversed(range(rank)))
    for dim in order:
        strides[dim] = stride
        stride *= shape.dims[dim]

    def nested(dim: int, offset: int, place: int) -> str:
        size = shape.dims[dim]
        if dim == rank - 1:
            row = ", ".join(values[offset + k * strides[dim]] for k in range(size))
            return f"{{ {row} }}" if dim and size > 1 else f"{{{row}}}"
        rows = [nested(dim + 1, offset + k * strides[dim], k) for k in range(size)]
        # XLA numbers the rows of arrays with more than three dimensions.
        mark = f" /*i{dim - 1}={place}*/" if rank > 3 and dim else ""
        return "{" + mark + (" " if size or not mark else "") + ", ".join(rows) + " }"

    return nested(0, 0, 0)


def _values(message: Message, shape: Shape) -> list[str]:
    """Returns the text of every element, in the order of memory."""
    dtype = shape.dtype
    if dtype in _VARINT_FIELDS:
        numbers = protobuf.integers(message, _VARINT_FIELDS[dtype])
        if dtype in ("u32", "u64"):
            return [str(number % 2**64) for number in numbers]
        return [str(number) for number in numbers]
    if dtype in _FIXED_FIELDS:
        field, code = _FIXED_FIELDS[dtype]
        data = b"".join(protobuf.raws(message, field))
        width = struct.calcsize(code)
        if len(data) % width:
            raise MalformedMessage(f"a constant's field {field} ends within a number")
        texts = [_float_text(data[i : i + width]) for i in range(0, len(data), width)]
        if dtype.startswith("c"):
            return [f"({real}, {imaginary})" for real, imaginary in zip(texts[::2], texts[1::2], strict=False)]
        return texts
    field, width = _BYTES_FIELDS[dtype]
    data = protobuf.raw(message, field)
    if len(data) % width:
        raise MalformedMessage(f"a constant's field {field} ends within a number")
    chunks = [data[i : i + width] for i in range(0, len(data), width)]
    if dtype[0] in "su":
        bits = int(dtype[1:])
        return [str(_integer(chunk, bits, dtype[0] == "s")) for chunk in chunks]
    return [_narrow_text(chunk, dtype) for chunk in chunks]


def _integer(chunk: bytes, bits: int, is_signed: bool) -> int:
    value = int.from_bytes(chunk, "little") & ((1 << bits) - 1)
    return value - (1 << bits) if is_signed and value >> (bits - 1) else value


def _float_text(chunk: bytes) -> str:
    """Returns XLA's text of an f32 (four bytes) or f64 (eight)."""
    code, short, long = ("<f", 6, 9) if len(chunk) == 4 else ("<d", 15, 17)
    value: float = struct.unpack(code, chunk)[0]
    if not math.isfinite(value):
        return _not_finite(value, chunk)
    text = f"{value:.{short}g}"
    return text if struct.pack(code, float(text)) == chunk else f"{value:.{long}g}"


def _not_finite(value: float, chunk: bytes) -> str:
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return _nan_text(chunk, 23 if len(chunk) == 4 else 52)


def _nan_text(chunk: bytes, mantissa_bits: int) -> str:
    """Returns XLA's text of what is no number, with its mantissa where that is not the usual one."""
    bits = int.from_bytes(chunk, "little")
    sign = "-" if bits >> (len(chunk) * 8 - 1) else ""
    mantissa = bits & ((1 << mantissa_bits) - 1)
    return f"{sign}nan" if mantissa == 1 << (mantissa_bits - 1) else f"{sign}nan({mantissa:#x})"


# Narrow types that have several NaNs, and the bits of their mantissas.
_MANTISSA_BITS = {"bf16": 7, "f16": 10, "f8e3m4": 4, "f8e4m3": 3, "f8e5m2": 2}


def _narrow_text(chunk: bytes, dtype: str) -> str:
    value = _decoder(dtype)(chunk)
    if math.isnan(value):
        if dtype in _MANTISSA_BITS:
            return _nan_text(chunk, _MANTISSA_BITS[dtype])
        return "-nan" if dtype != "f8e8m0fnu" and chunk[-1] & 0x80 else "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return f"{value:.{_DIGITS.get(dtype, 2)}g}"


def _decoder(dtype: str) -> Callable[[bytes], float]:
    """Returns a function from the bytes of one value to the value."""
    if dtype == "f16":
        return lambda chunk: float(struct.unpack("<e", chunk)[0])
    if dtype == "bf16":
        return lambda chunk: float(struct.unpack("<f", b"\0\0" + chunk)[0])
    import ml_dtypes
    import numpy as np

    name = {"f4e2m1fn": "float4_e2m1fn", "f8e8m0fnu": "float8_e8m0fnu"}.get(dtype, dtype.replace("f8", "float8_", 1))
    element = np.dtype(getattr(ml_dtypes, name))
    return lambda chunk: float(np.frombuffer(chunk, element)[0])
