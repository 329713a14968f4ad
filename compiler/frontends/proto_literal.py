"""LiteralProto (xla/xla_data.proto) to the text that XLA prints between the parentheses of a constant.

Numbers are printed as by `tsl::strings` and `RoundTripFpToString`: f32 and f64 in 6 or 15 digits if these suffice, else
in 9 or 17; narrower types in as many digits as their precision needs. Constants of more than ten elements print as
`{...}`, as XLA prints them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.proto_shape import shape_from_proto
from memplan.compiler.frontends.protobuf import MalformedMessage, Message
from memplan.compiler.ir.shape import Shape

_MAX_PRINTED = 10
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


def literal_text(data: bytes, depth: int = 0) -> str:
    """Returns the text of a serialized LiteralProto; raises MalformedMessage."""
    if depth > _MAX_NESTING:
        raise MalformedMessage(f"a constant nests deeper than {_MAX_NESTING} tuples")
    message = protobuf.read_message(data)
    shape = shape_from_proto(protobuf.raw(message, 1))
    if shape.is_tuple:
        parts = [literal_text(element, depth + 1) for element in protobuf.raws(message, 10)]
        return "( " + ", ".join(parts) + " )" if parts else "()"
    if not shape.is_array:
        return ""
    rows = math.prod(dim for dim in shape.dims if dim)  # what is printed of an array without elements
    if rows > _MAX_PRINTED or len(shape.dims) > _MAX_NESTING or shape.dtype not in _FIELDS:
        return "{...}"
    values = _values(message, shape)
    if len(values) != shape.num_elements:
        raise MalformedMessage(f"a constant of {shape.num_elements} elements has {len(values)} values")
    if not shape.dims:
        return ("true" if values[0] == "1" else "false") if shape.dtype == "pred" else values[0]
    strides = [0] * len(shape.dims)
    stride = 1
    order = shape.layout.minor_to_major if shape.layout is not None else tuple(reversed(range(len(shape.dims))))
    for dim in order:
        strides[dim] = stride
        stride *= shape.dims[dim]

    def nested(dim: int, offset: int) -> str:
        if dim == len(shape.dims) - 1:
            row = ", ".join(values[offset + k * strides[dim]] for k in range(shape.dims[dim]))
            return f"{{ {row} }}" if dim and row else f"{{{row}}}"
        rows = [nested(dim + 1, offset + k * strides[dim]) for k in range(shape.dims[dim])]
        return "{ " + ", ".join(rows) + " }"

    return nested(0, 0)


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
    bits = int.from_bytes(chunk, "little")
    sign = "-" if bits >> (len(chunk) * 8 - 1) else ""
    if math.isinf(value):
        return sign + "inf"
    mantissa_bits = 23 if len(chunk) == 4 else 52
    payload = bits & ((1 << mantissa_bits) - 1)
    return f"{sign}nan" if payload == 1 << (mantissa_bits - 1) else f"{sign}nan({payload:#x})"


def _narrow_text(chunk: bytes, dtype: str) -> str:
    value = _decoder(dtype)(chunk)
    if math.isnan(value):
        return ("-" if dtype != "f8e8m0fnu" and not dtype.endswith("fnuz") and chunk[-1] & 0x80 else "") + "nan"
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
