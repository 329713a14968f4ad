"""The body of a fusion that says in HLO what one operator of TensorFlow Lite computes.

Shapes and operations are exact, numbers are left out: constants are elided, `constant({...})`.
Integers that stand for real numbers are read as `convert, multiply`, and written as `multiply, clamp, round, convert`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from memplan.compiler.frontends.tflite_model import Tensor, TfliteModel, TfliteOperator
from memplan.compiler.ir.graph import Computation, Instruction
from memplan.compiler.ir.shape import BITS_PER_ELEMENT, Layout, Shape

ELIDED = "{...}"

# ActivationFunctionType of the schema.
_NONE, _RELU, _RELU_N1_TO_1, _RELU6, _TANH = range(5)


class MisfitError(ValueError):
    """The tensors of an operator do not fit each other, or what it asks for is not supported."""


def array(dtype: str, dims: Sequence[int]) -> Shape:
    """Returns the shape of a row-major array; types of less than 8 bits are packed, as TensorFlow Lite stores them."""
    bits = BITS_PER_ELEMENT[dtype]
    if bits >= 8:
        return Shape(dtype, tuple(dims))
    return Shape(dtype, tuple(dims), Layout(tuple(reversed(range(len(dims)))), element_bits=bits))


def shape_of(tensor: Tensor) -> Shape:
    """Returns the shape of a tensor whose type HLO has."""
    return array(tensor.dtype, tensor.dims)


class Regions:
    """Computations of two numbers that reductions apply, each once: `add.f32` and so on."""

    def __init__(self) -> None:
        self.computations: dict[str, Computation] = {}

    def named(self, opcode: str, dtype: str) -> str:
        """Returns the name of the computation that applies an opcode to two numbers of a type."""
        name = f"{opcode}.{dtype}"
        if name not in self.computations:
            scalar = Shape(dtype)
            parameters = [Instruction(n, "parameter", scalar, payload=str(i)) for i, n in enumerate(("a", "b"))]
            result = Instruction("result", opcode, scalar, (0, 1))
            self.computations[name] = Computation(name, (*parameters, result), 2)
        return name


class Body:
    """Builds the body of an operator. Values are numbers of instructions in it.

    Args:
      model: the file.
      operator: which operator.
      inputs: its inputs; None for those that are left out.
      outputs: its outputs.
      regions: what reductions apply.
    """

    def __init__(
        self,
        model: TfliteModel,
        operator: TfliteOperator,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        regions: Regions,
    ):
        self.operator, self.inputs, self.outputs = operator, tuple(inputs), tuple(outputs)
        self._model, self._regions = model, regions
        self.instructions: list[Instruction] = []
        self._parameters: dict[int, int] = {}
        for position, tensor in enumerate(inputs):
            if tensor is not None:
                number = str(len(self._parameters))
                self._parameters[position] = self._append(f"p{number}", "parameter", shape_of(tensor), (), (), number)

    def _append(
        self,
        name: str,
        opcode: str,
        shape: Shape,
        operands: tuple[int, ...],
        attributes: tuple[tuple[str, str], ...],
        payload: str = "",
        called: tuple[str, ...] = (),
    ) -> int:
        self.instructions.append(Instruction(name, opcode, shape, operands, called, attributes, payload))
        return len(self.instructions) - 1

    def has(self, position: int) -> bool:
        """Whether an input is there."""
        return position in self._parameters

    def input(self, position: int) -> Tensor:
        """Returns an input; raises MisfitError if it is left out."""
        tensor = self.inputs[position] if position < len(self.inputs) else None
        if tensor is None:
            raise MisfitError(f"its input {position} is missing")
        return tensor

    def output(self, position: int = 0) -> Tensor:
        """Returns an output; raises MisfitError if there is none of that number."""
        if position >= len(self.outputs):
            raise MisfitError(f"its output {position} is missing")
        return self.outputs[position]

    def value(self, position: int) -> int:
        """Returns an input as it is stored."""
        self.input(position)
        return self._parameters[position]

    def integers(self, position: int) -> tuple[int, ...] | None:
        """Returns the numbers of an input that is a constant of 32-bit integers; None if it is another."""
        tensor = self.input(position)
        start, size = tensor.data
        if tensor.dtype != "s32" or not tensor.is_constant or size > 1 << 16:
            return None
        return struct.unpack_from(f"<{size // 4}i", self._model.content, start)

    def shape(self, value: int) -> Shape:
        """Returns the shape of a value."""
        return self.instructions[value].shape

    def add(self, opcode: str, dtype: str, dims: Sequence[int], *operands: int, **attributes: str) -> int:
        """Adds an instruction and returns its value."""
        name = f"v{len(self.instructions)}"
        return self._append(name, opcode, array(dtype, dims), operands, tuple(attributes.items()))

    def elided(self, dtype: str, dims: Sequence[int] = ()) -> int:
        """Returns a constant whose numbers are not kept."""
        name = f"v{len(self.instructions)}"
        return self._append(name, "constant", array(dtype, dims), (), (), ELIDED)

    def reshape(self, value: int, dims: Sequence[int]) -> int:
        """Returns a value with other dimensions and as many elements."""
        shape = self.shape(value)
        if shape.dims == tuple(dims):
            return value
        if shape.num_elements != array(shape.dtype, dims).num_elements:
            raise MisfitError(f"{list(shape.dims)} has not as many elements as {list(dims)}")
        return self.add("reshape", shape.dtype, dims, value)

    def broadcast(self, value: int, dims: Sequence[int]) -> int:
        """Returns a value that is repeated along the dimensions in which it has size 1, or which it lacks in front."""
        shape = self.shape(value)
        if shape.dims == tuple(dims):
            return value
        first = len(dims) - len(shape.dims)
        if first < 0 or any(own not in (1, dims[first + d]) for d, own in enumerate(shape.dims)):
            raise MisfitError(f"{list(shape.dims)} cannot be broadcast to {list(dims)}")
        kept = [d for d, own in enumerate(shape.dims) if own != 1]
        squeezed = self.reshape(value, [shape.dims[d] for d in kept])
        return self.add("broadcast", shape.dtype, dims, squeezed, dimensions=braces([first + d for d in kept]))

    def convert(self, value: int, dtype: str) -> int:
        """Returns a value in another type."""
        shape = self.shape(value)
        return value if shape.dtype == dtype else self.add("convert", dtype, shape.dims, value)

    def map(self, opcode: str, *values: int, dtype: str = "", **attributes: str) -> int:
        """Returns the elements of values combined one by one, broadcast to each other.

        Args:
          opcode: takes as many operands.
          values: what it takes.
          dtype: of the result; that of the first value by default.
          attributes: of the instruction.
        """
        dims = broadcast_dims([self.shape(value).dims for value in values])
        spread = [self.broadcast(value, dims) for value in values]
        return self.add(opcode, dtype or self.shape(values[0]).dtype, dims, *spread, **attributes)

    def real(self, position: int) -> int:
        """Returns an input as what its elements stand for."""
        value = self.value(position)
        if not self.input(position).is_quantized:
            return value
        return self.map("multiply", self.convert(value, "f32"), self.elided("f32"))

    def reduce(self, value: int, opcode: str, dimensions: Sequence[int]) -> int:
        """Returns a value reduced over some dimensions."""
        shape = self.shape(value)
        region = self._regions.named(opcode, shape.dtype)
        dims = tuple(size for d, size in enumerate(shape.dims) if d not in dimensions)
        attributes = (("dimensions", braces(sorted(dimensions))), ("to_apply", f"%{region}"))
        initial = self.elided(shape.dtype)
        name = f"v{len(self.instructions)}"
        return self._append(name, "reduce", array(shape.dtype, dims), (value, initial), attributes, "", (region,))

    def reduce_window(self, value: int, opcode: str, dims: Sequence[int], window: str) -> int:
        """Returns a value reduced over windows, in XLA's text, to the given dimensions."""
        dtype = self.shape(value).dtype
        region = self._regions.named(opcode, dtype)
        attributes = (("window", window), ("to_apply", f"%{region}"))
        initial = self.elided(dtype)
        name = f"v{len(self.instructions)}"
        return self._append(name, "reduce-window", array(dtype, dims), (value, initial), attributes, "", (region,))

    def moved(self, value: int, dims: Sequence[int]) -> int:
        """Returns elements of a value at places that are known, in other dimensions: a gather by constant indices."""
        shape = self.shape(value)
        flat = self.reshape(value, (shape.num_elements,))
        indices = self.elided("s32", dims)
        return self.add(
            "gather", shape.dtype, dims, flat, indices,
            offset_dims="{}", collapsed_slice_dims="{0}", start_index_map="{0}", index_vector_dim=str(len(dims)),
            slice_sizes="{1}",
        )  # fmt: skip

    def finish(self, value: int, activation: int = _NONE, position: int = 0) -> int:
        """Returns a value as an output stores it, after an activation function."""
        output = self.output(position)
        value = self.reshape(value, output.dims)
        if output.is_quantized:
            value = self.map("multiply", self.convert(value, "f32"), self.elided("f32"))
        value = self.activated(value, activation, is_clamped=output.is_quantized)
        if output.is_quantized:
            value = self.map("round-nearest-even", value)
        return self.convert(value, output.dtype)

    def activated(self, value: int, activation: int, is_clamped: bool = False) -> int:
        """Returns a value after an activation function; what is clamped anyway is clamped once."""
        dtype = self.shape(value).dtype
        if activation == _TANH:
            value = self.map("tanh", value)
        elif activation == _RELU and not is_clamped:
            return self.map("maximum", value, self.elided(dtype))
        elif activation not in (_NONE, _RELU, _RELU_N1_TO_1, _RELU6):
            raise MisfitError(f"its activation function {activation} has no rule")
        if is_clamped or activation in (_RELU_N1_TO_1, _RELU6):
            low, high = self.elided(dtype), self.elided(dtype)
            value = self.add("clamp", dtype, self.shape(value).dims, low, value, high)
        return value

    def computation(self, name: str, roots: Sequence[int]) -> Computation:
        """Returns the body, whose results are some values."""
        if len(roots) == 1:
            return Computation(name, tuple(self.instructions), roots[0])
        shape = Shape("tuple", elements=tuple(self.shape(root) for root in roots))
        root = self._append("results", "tuple", shape, tuple(roots), ())
        return Computation(name, tuple(self.instructions), root)


def broadcast_dims(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Returns the dimensions to which shapes are broadcast together; raises MisfitError if they do not fit."""
    rank = max(len(dims) for dims in shapes)
    padded = [(1,) * (rank - len(dims)) + tuple(dims) for dims in shapes]
    result = []
    for sizes in zip(*padded, strict=True):
        wide = {size for size in sizes if size != 1}
        if len(wide) > 1:
            raise MisfitError(f"{' and '.join(str(list(dims)) for dims in shapes)} do not fit each other")
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def braces(numbers: Sequence[int]) -> str:
    """Returns numbers as an attribute of HLO has them: `{0,1}`."""
    return "{" + ",".join(map(str, numbers)) + "}"
