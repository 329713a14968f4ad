"""Writes small .tflite files with the package `flatbuffers`, for tests: tensors and operators as they are given.

Numbers of fields are those of TensorFlow Lite's schema.fbs, written down here once more: a reader and a writer that
shared them would agree on any number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers

TYPES = {"f32": (0, 4), "f16": (1, 2), "s32": (2, 4), "u8": (3, 1), "s64": (4, 8), "str": (5, 0), "pred": (6, 1),
         "s16": (7, 2), "s8": (9, 1), "resource": (13, 4), "s4": (17, 0.5)}  # fmt: skip
CODES = {
    "ADD": 0, "AVERAGE_POOL_2D": 1, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "DEQUANTIZE": 6,
    "FULLY_CONNECTED": 9, "LOGISTIC": 14, "LSTM": 16, "MAX_POOL_2D": 17, "MUL": 18, "RELU": 19, "RELU6": 21,
    "RESHAPE": 22, "RESIZE_BILINEAR": 23, "SOFTMAX": 25, "SVDF": 27, "TANH": 28, "CUSTOM": 32, "PAD": 34, "GATHER": 36,
    "TRANSPOSE": 39, "MEAN": 40, "STRIDED_SLICE": 45, "SPLIT": 49, "PRELU": 54, "LESS": 58, "TRANSPOSE_CONV": 67,
    "PACK": 83, "QUANTIZE": 114, "HARD_SWISH": 117, "BATCH_MATMUL": 126, "CALL_ONCE": 129, "VAR_HANDLE": 142,
    "READ_VARIABLE": 143, "ASSIGN_VARIABLE": 144,
}  # fmt: skip

# Numbers of the tables of options in their union.
OPTIONS = {
    "CONV_2D": 1, "DEPTHWISE_CONV_2D": 2, "AVERAGE_POOL_2D": 5, "MAX_POOL_2D": 5, "SVDF": 6, "FULLY_CONNECTED": 8,
    "SOFTMAX": 9, "CONCATENATION": 10, "ADD": 11, "SPLIT": 35, "TRANSPOSE_CONV": 49, "PACK": 59, "BATCH_MATMUL": 101,
    "VAR_HANDLE": 111,
}  # fmt: skip

# An option: number of the field, kind in the letters of `struct` or "s" for a string, value.
Option = tuple[int, str, Any]
_PREPEND = {"b": "Int8", "B": "Uint8", "?": "Bool", "i": "Int32", "I": "Uint32", "f": "Float32", "Q": "Uint64"}


@dataclass
class FileTensor:
    """A tensor; one with `data` is a constant."""

    dtype: str
    dims: Sequence[int]
    name: str = ""
    data: bytes = b""
    is_variable: bool = False
    scales: Sequence[float] = ()
    zero: int = 0


@dataclass
class FileOperator:
    """An operator: kind, numbers of tensors, options."""

    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: Sequence[Option] | None = None
    custom_code: str = ""


@dataclass
class TfliteFile:
    """A model of one subgraph; `tensor` and `operator` add to it."""

    tensors: list[FileTensor] = field(default_factory=list)
    operators: list[FileOperator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    metadata: list[tuple[str, bytes]] = field(default_factory=list)
    version: int = 3
    name: str = "net"

    def tensor(self, dtype: str, *dims: int, name: str = "", scales: Sequence[float] = (), zero: int = 0) -> int:
        self.tensors.append(FileTensor(dtype, dims, name or f"t{len(self.tensors)}", scales=scales, zero=zero))
        return len(self.tensors) - 1

    def constant(self, dtype: str, *dims: int, data: bytes = b"", scales: Sequence[float] = ()) -> int:
        size = math.ceil(math.prod(dims) * TYPES[dtype][1])
        content = data or bytes(i * 37 % 11 for i in range(size))
        self.tensors.append(FileTensor(dtype, dims, f"w{len(self.tensors)}", content, scales=scales))
        return len(self.tensors) - 1

    def integers(self, *numbers: int) -> int:
        return self.constant("s32", len(numbers), data=b"".join(n.to_bytes(4, "little", signed=True) for n in numbers))

    def operator(
        self, kind: str, inputs: Sequence[int], output: int | Sequence[int], options: Sequence[Option] | None = None
    ) -> None:
        outputs = [output] if isinstance(output, int) else list(output)
        self.operators.append(FileOperator(kind, inputs, outputs, options))

    def content(self) -> bytes:
        """Returns the bytes of the file."""
        b = flatbuffers.Builder(1024)
        datas = [b"", *(tensor.data for tensor in self.tensors if tensor.data), *(data for _, data in self.metadata)]
        buffers = [_table(b, [(0, "o", _bytes(b, data))] if data else []) for data in datas]
        tensors, number = [], 1
        for tensor in self.tensors:
            fields = [(0, "o", _vector(b, tensor.dims, b.PrependInt32, 4)), (1, "b", TYPES[tensor.dtype][0]),
                      (2, "I", number if tensor.data else 0), (3, "s", tensor.name)]  # fmt: skip
            number += bool(tensor.data)
            if tensor.scales:
                scales = _vector(b, tensor.scales, b.PrependFloat32, 4)
                zeros = _vector(b, [tensor.zero] * len(tensor.scales), b.PrependInt64, 8)
                fields.append((4, "o", _table(b, [(2, "o", scales), (3, "o", zeros)])))
            if tensor.is_variable:
                fields.append((5, "?", True))
            tensors.append(_table(b, fields))
        codes = list(dict.fromkeys((operator.kind, operator.custom_code) for operator in self.operators))
        operators = []
        for operator in self.operators:
            fields = [(0, "I", codes.index((operator.kind, operator.custom_code))),
                      (1, "o", _vector(b, operator.inputs, b.PrependInt32, 4)),
                      (2, "o", _vector(b, operator.outputs, b.PrependInt32, 4))]  # fmt: skip
            if operator.options is not None:
                fields += [(3, "B", OPTIONS[operator.kind]), (4, "o", _table(b, operator.options))]
            operators.append(_table(b, fields))
        subgraph = [
            (0, "o", _offsets(b, tensors)),
            (1, "o", _vector(b, self.inputs, b.PrependInt32, 4)),
            (2, "o", _vector(b, self.outputs, b.PrependInt32, 4)),
            (3, "o", _offsets(b, operators)),
            (4, "s", self.name),
        ]
        first = len(datas) - len(self.metadata)
        entries = [_table(b, [(0, "s", name), (1, "I", first + i)]) for i, (name, _) in enumerate(self.metadata)]
        model = [(0, "I", self.version), (1, "o", _offsets(b, [_code(b, *code) for code in codes])),
                 (2, "o", _offsets(b, [_table(b, subgraph)])), (3, "s", "made in a test"),
                 (4, "o", _offsets(b, buffers))]  # fmt: skip
        if entries:
            model.append((6, "o", _offsets(b, entries)))
        b.Finish(_table(b, model), file_identifier=b"TFL3")
        return bytes(b.Output())


def _code(b: Any, kind: str, custom_code: str) -> int:
    number = CODES[kind]
    fields: list[Option] = [(0, "b", min(number, 127)), (3, "i", number)]
    return _table(b, [*fields, (1, "s", custom_code)] if custom_code else fields)


def _table(b: Any, fields: Sequence[Option]) -> int:
    made = [(slot, "o" if kind == "s" else kind, b.CreateString(value) if kind == "s" else value)
            for slot, kind, value in fields]  # fmt: skip
    b.StartObject(max((slot for slot, _, _ in made), default=-1) + 1)
    for slot, kind, value in made:
        if kind == "o":
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            # Defaults are written too: what stands in a file is read, whatever the default.
            getattr(b, f"Prepend{_PREPEND[kind]}")(value)
            b.Slot(slot)
    return int(b.EndObject())


def _vector(b: Any, values: Sequence[Any], prepend: Callable[[Any], None], size: int) -> int:
    b.StartVector(size, len(values), size)
    for value in reversed(values):
        prepend(value)
    return int(b.EndVector())


def _offsets(b: Any, values: Sequence[int]) -> int:
    return _vector(b, values, b.PrependUOffsetTRelative, 4)


def _bytes(b: Any, data: bytes) -> int:
    """A vector of bytes that begins at a multiple of 16, as the schema asks for buffers."""
    b.StartVector(1, len(data), 16)
    b.head -= len(data)
    b.Bytes[b.head : b.head + len(data)] = data
    return int(b.EndVector())


def small_network(scales: Sequence[float] = (0.5,)) -> TfliteFile:
    """A network of int8: two convolutions of an image of 8 x 8, one depthwise, a residual, and a classifier."""
    file = TfliteFile()
    x = file.tensor("s8", 1, 8, 8, 4, name="image", scales=scales)
    file.inputs = [x]
    weights = file.constant("s8", 8, 3, 3, 4, scales=scales)
    bias = file.constant("s32", 8)
    a = file.tensor("s8", 1, 8, 8, 8, name="conv/Relu6", scales=scales)
    file.operator("CONV_2D", [x, weights, bias], a, [(0, "b", 0), (1, "i", 1), (2, "i", 1), (3, "b", 3)])
    weights = file.constant("s8", 1, 3, 3, 8, scales=scales)
    c = file.tensor("s8", 1, 8, 8, 8, name="depthwise", scales=scales)
    file.operator("DEPTHWISE_CONV_2D", [a, weights, bias], c, [(0, "b", 0), (1, "i", 1), (2, "i", 1), (3, "i", 1)])
    d = file.tensor("s8", 1, 8, 8, 8, name="residual", scales=scales)
    file.operator("ADD", [a, c], d, [(0, "b", 1)])
    e = file.tensor("s8", 1, 4, 4, 8, name="pool", scales=scales)
    options: list[Option] = [(0, "b", 1), (1, "i", 2), (2, "i", 2), (3, "i", 2), (4, "i", 2)]
    file.operator("AVERAGE_POOL_2D", [d], e, options)
    f = file.tensor("s8", 1, 128, name="flat", scales=scales)
    file.operator("RESHAPE", [e, file.integers(1, 128)], f)
    weights = file.constant("s8", 10, 128, scales=scales)
    g = file.tensor("s8", 1, 10, name="logits", scales=scales)
    file.operator("FULLY_CONNECTED", [f, weights, -1], g, [(0, "b", 0)])
    h = file.tensor("s8", 1, 10, name="classes", scales=(1 / 256,), zero=-128)
    file.operator("SOFTMAX", [g], h, [(0, "f", 1.0)])
    file.outputs = [h]
    return file


def mobilenet() -> TfliteFile:
    """MobileNetV1 of width 0.5 for images of 192 x 192 (Howard et al., 2017), int8, ten classes, weights all zero."""
    file = TfliteFile(name="mobilenet")
    scales = (0.02,)
    value = file.tensor("s8", 1, 192, 192, 3, name="image", scales=scales)
    file.inputs = [value]

    def convolution(value: int, kind: str, channels: int, span: int, stride: int, name: str) -> int:
        _, size, _, depth = file.tensors[value].dims
        is_depthwise = kind == "DEPTHWISE_CONV_2D"
        shape = (1, span, span, channels) if is_depthwise else (channels, span, span, depth)
        weights = file.constant("s8", *shape, data=bytes(math.prod(shape)), scales=scales)
        bias = file.constant("s32", channels, data=bytes(4 * channels))
        out = file.tensor("s8", 1, size // stride, size // stride, channels, name=name, scales=scales)
        options: list[Option] = [(0, "b", 0), (1, "i", stride), (2, "i", stride), (4 if is_depthwise else 3, "b", 3)]
        file.operator(kind, [value, weights, bias], out, options)
        return out

    value = convolution(value, "CONV_2D", 16, 3, 2, "conv_0")
    channels = [32, 64, 64, 128, 128, *[256] * 6, 512, 512]
    for number, (wide, stride) in enumerate(zip(channels, [1, 2, 1, 2, 1, 2, *[1] * 5, 2, 1], strict=True), 1):
        depth = file.tensors[value].dims[3]
        value = convolution(value, "DEPTHWISE_CONV_2D", depth, 3, stride, f"block_{number}/depthwise")
        value = convolution(value, "CONV_2D", wide, 1, 1, f"block_{number}/pointwise")
    pooled = file.tensor("s8", 1, 1, 1, 512, name="pool", scales=scales)
    options: list[Option] = [(0, "b", 1), (1, "i", 6), (2, "i", 6), (3, "i", 6), (4, "i", 6)]
    file.operator("AVERAGE_POOL_2D", [value], pooled, options)
    logits = convolution(pooled, "CONV_2D", 10, 1, 1, "logits")
    flat = file.tensor("s8", 1, 10, name="flat", scales=scales)
    file.operator("RESHAPE", [logits, file.integers(1, 10)], flat)
    classes = file.tensor("s8", 1, 10, name="classes", scales=(1 / 256,), zero=-128)
    file.operator("SOFTMAX", [flat], classes, [(0, "f", 1.0)])
    file.outputs = [classes]
    return file
