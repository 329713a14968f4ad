"""What a .tflite file says: its tensors and operators, in the terms of TensorFlow Lite.

    Model ── subgraphs ──► Subgraph ── tensors ───► Tensor ── buffer ──► bytes in the file, for constants
          └─ metadata                └─ operators ─► Operator ── inputs, outputs ──► numbers of tensors

Numbers of fields are those of TensorFlow Lite's schema, version 3
(https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from memplan.compiler.errors import ParseError
from memplan.compiler.frontends.flatbuffer import FlatBuffer, FlatTable
from memplan.compiler.frontends.tflite_names import OPERATORS, TENSOR_TYPES
from memplan.compiler.ir.shape import BITS_PER_ELEMENT

IDENTIFIER = b"TFL3"

_CUSTOM = "CUSTOM"

# No device has as many bytes as a tensor of this size.
_LARGEST_TENSOR = 1 << 48


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
      number: in the subgraph.
      name: as it is in the file, maybe "" and maybe that of another one.
      dtype: HLO's name of its type; "" for types that memplan does not know, such as strings.
      dims: of its shape; 1 where the file leaves a dimension open, as TensorFlow Lite begins with it.
      bytes: without padding; those of 4-bit types in half as many bytes as elements.
      data: `(start, size)` of its content in the file; size 0 if it is no constant.
      is_variable: whether it keeps its content from run to run.
      is_quantized: whether its integers stand for real numbers.
      is_resource: whether it is the handle of a variable.
    """

    number: int
    name: str
    dtype: str
    dims: tuple[int, ...]
    bytes: int
    data: tuple[int, int]
    is_variable: bool
    is_quantized: bool
    is_resource: bool

    @property
    def is_constant(self) -> bool:
        return self.data[1] > 0

    def __str__(self) -> str:
        return f"tensor {self.number}" + (f" ({self.name!r:.80})" if self.name else "")


@dataclass(frozen=True, slots=True)
class TfliteOperator:
    """An operator of a subgraph.

    Attributes:
      number: in the subgraph, in order of execution.
      kind: such as `CONV_2D`; for a custom operator, its own name behind `CUSTOM `.
      inputs: numbers of tensors; -1 where an optional one is left out.
      outputs: numbers of tensors.
      options: of its kind; None if it has none.
    """

    number: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: FlatTable | None

    def option(self, field: int, kind: str, default: int = 0) -> int:
        """Returns an option that is a number; `kind` is that of `FlatTable.number`."""
        return default if self.options is None else int(self.options.number(field, kind, default))

    def __str__(self) -> str:
        return f"operator {self.number} ({self.kind})"


@dataclass(frozen=True, slots=True)
class Subgraph:
    """A subgraph: the first one is the model, others are called by its operators.

    Attributes:
      name: maybe "".
      tensors: by number.
      inputs, outputs: numbers of tensors.
      operators: in order of execution.
    """

    name: str
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[TfliteOperator, ...]


@dataclass(frozen=True, slots=True)
class TfliteModel:
    """A file.

    Attributes:
      content: its bytes.
      file: its name, for messages.
      root: the table at its root.
      subgraphs: the first one is where execution begins.
      metadata: `(name, number of a buffer)`, in the order of the file.
    """

    content: bytes
    file: str
    root: FlatTable
    subgraphs: tuple[Subgraph, ...]
    metadata: tuple[tuple[str, int], ...]

    def buffer(self, number: int) -> tuple[int, int]:
        """Returns `(start, size)` of a buffer's content in the file; raises ParseError if there is no such buffer."""
        buffers = self.root.tables(_BUFFERS)
        if not 0 <= number < len(buffers):
            raise ParseError(f"buffer {number} does not exist; there are {len(buffers)}", self.file)
        return buffers[number].extent(0)


# Fields of the root.
_VERSION, _OPERATOR_CODES, _SUBGRAPHS, _BUFFERS, _METADATA = 0, 1, 2, 4, 6


def is_tflite(content: bytes) -> bool:
    """Tells whether bytes are a .tflite file, by the identifier of its schema."""
    return content[4:8] == IDENTIFIER


def read_model(content: bytes, file: str = "<bytes>") -> TfliteModel:
    """Returns what a .tflite file says; raises ParseError, naming the place, if it cannot be read or makes no sense."""
    if not is_tflite(content):
        raise ParseError("is no .tflite file: it lacks the identifier TFL3", file)
    root = FlatBuffer(content, file).root()
    if (version := root.number(_VERSION, "I")) != 3:
        raise ParseError(f"has version {version} of the schema, which is not known: 3 is", file)
    kinds = [_operator_kind(code) for code in root.tables(_OPERATOR_CODES)]
    extents = [_extent(buffer, number) for number, buffer in enumerate(root.tables(_BUFFERS))]
    tables = root.tables(_SUBGRAPHS)
    if not tables:
        raise ParseError("has no subgraph", file)
    subgraphs = [_subgraph(table, f"subgraph {number}", kinds, extents) for number, table in enumerate(tables)]
    metadata = [(entry.text(0), entry.number(1, "I")) for entry in root.tables(_METADATA)]
    return TfliteModel(content, file, root, tuple(subgraphs), tuple(metadata))


def _extent(buffer: FlatTable, number: int) -> tuple[int, int]:
    if buffer.number(1, "Q") > 1:
        raise ParseError(f"buffer {number} lies behind the tables of the file, which is not supported", _file(buffer))
    return buffer.extent(0)


def _operator_kind(code: FlatTable) -> str:
    # Until there were more than 127 operators, their number stood in the first field, which has one byte.
    number = max(code.number(3, "i"), code.number(0, "b"))
    name = OPERATORS.get(number, f"operator code {number}")
    return f"{_CUSTOM} {code.text(1)}" if name == _CUSTOM else name


def _subgraph(table: FlatTable, where: str, kinds: list[str], extents: list[tuple[int, int]]) -> Subgraph:
    file = _file(table)
    tensors = tuple(_tensor(entry, number, where, extents) for number, entry in enumerate(table.tables(0)))
    inputs, outputs = table.numbers(1, "i"), table.numbers(2, "i")
    for what, numbers in (("inputs", inputs), ("outputs", outputs)):
        _check_tensors(numbers, len(tensors), 0, f"{what} of {where}", file)
    operators = []
    for number, entry in enumerate(table.tables(3)):
        code = entry.number(0, "I")
        if code >= len(kinds):
            raise ParseError(f"{where}: operator {number} has code {code}; there are {len(kinds)}", file)
        options = entry.table(4) if entry.number(3, "B") else None
        operator = TfliteOperator(number, kinds[code], entry.numbers(1, "i"), entry.numbers(2, "i"), options)
        _check_tensors(operator.inputs, len(tensors), -1, f"inputs of {where}: {operator}", file)
        _check_tensors(operator.outputs, len(tensors), 0, f"outputs of {where}: {operator}", file)
        operators.append(operator)
    return Subgraph(table.text(4), tensors, inputs, outputs, tuple(operators))


def _tensor(table: FlatTable, number: int, where: str, extents: list[tuple[int, int]]) -> Tensor:
    file = _file(table)
    dims, name, code, buffer = table.numbers(0, "i"), table.text(3), table.number(1, "b"), table.number(2, "I")
    place = f"{where}: tensor {number}" + (f" ({name!r:.80})" if name else "")
    if table.number(10, "I"):
        raise ParseError(f"{place} is in another file, which is not supported", file)
    if buffer >= len(extents):
        raise ParseError(f"{place} has buffer {buffer}; there are {len(extents)}", file)
    if any(dim < 0 for dim in dims):
        raise ParseError(f"{place} has the shape {list(dims)}, which has a negative dimension", file)
    kind, dtype = TENSOR_TYPES.get(code, (f"type {code}", ""))
    bits = 32 if kind == "RESOURCE" else BITS_PER_ELEMENT.get(dtype, 0)
    elements = 1
    for dim in dims:
        elements *= dim
        if elements * max(bits, 1) > 8 * _LARGEST_TENSOR:
            raise ParseError(f"{place} has the shape {list(dims)[:8]}: more bytes than any memory", file)
    quantization = table.table(4)
    size = math.ceil(elements * bits / 8)
    if table.place(6):
        raise ParseError(f"{place} is sparse, which is not supported", file)
    if extents[buffer][1] not in (0, size) and dtype:
        raise ParseError(f"{place} has {size:,} bytes, but its content has {extents[buffer][1]:,}", file)
    return Tensor(
        number=number,
        name=name,
        dtype=dtype,
        dims=dims,
        bytes=size,
        data=extents[buffer],
        is_variable=bool(table.number(5, "?")),
        is_quantized=quantization is not None and quantization.extent(2, "f")[1] > 0,
        is_resource=kind == "RESOURCE",
    )


def _check_tensors(numbers: tuple[int, ...], count: int, least: int, what: str, file: str) -> None:
    for number in numbers:
        if not least <= number < count:
            raise ParseError(f"{what}: tensor {number} does not exist; there are {count}", file)


def _file(table: FlatTable) -> str:
    return table.buffer.file
