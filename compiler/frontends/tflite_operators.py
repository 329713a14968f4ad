"""What each operator of TensorFlow Lite computes, in HLO: the rules by which a .tflite file becomes a Graph.

A rule builds the body of one operator and returns the values of its outputs. Numbers of options are those of the schema
(`tflite_model.py`); what an operator computes is that of TensorFlow Lite's reference kernels
(https://github.com/tensorflow/tensorflow/tree/master/tensorflow/lite/kernels).
"""

from __future__ import annotations

from collections.abc import Callable

from memplan.compiler.frontends.tflite_body import Body, MisfitError, braces
from memplan.compiler.frontends.tflite_products import (
    batched_product,
    convolution,
    filter_with_state,
    fully_connected,
    pooling,
    transposed_convolution,
)

Rule = Callable[[Body], list[int]]


# -- Reductions ------------------------------------------------------------------------------------------------------


def _axes(body: Body, position: int) -> list[int]:
    """Returns the dimensions of input 0 that a constant names; all of them if it is none."""
    rank = len(body.input(0).dims)
    given = body.integers(position)
    axes = sorted({axis % rank for axis in given if -rank <= axis < rank}) if given and rank else list(range(rank))
    if given and rank and any(not -rank <= axis < rank for axis in given):
        raise MisfitError(f"it has no dimension {max(given, key=abs)}")
    return axes


def _reduction(body: Body, opcode: str, is_mean: bool = False) -> list[int]:
    value = body.value(0)
    if opcode == "add" and body.input(0).dtype in ("s8", "u8", "s16"):
        value = body.convert(value, "s32")
    value = body.reduce(value, opcode, _axes(body, 1))
    if is_mean:
        value = body.map("divide", value, body.elided(body.shape(value).dtype))
    if opcode != "add":
        return [body.reshape(value, body.output().dims)]
    return [body.finish(value)]


def _over_last(body: Body, value: int, opcode: str) -> int:
    """Returns a value reduced over the last dimension, which stays with size 1."""
    dims = body.shape(value).dims
    return body.reshape(body.reduce(value, opcode, [len(dims) - 1]), (*dims[:-1], 1))


def _softmax(body: Body, is_log: bool) -> list[int]:
    if not body.input(0).dims:
        raise MisfitError("its input has no dimension")
    value = body.real(0)
    value = body.map("subtract", value, _over_last(body, value, "maximum"))
    power = body.map("exponential", value)
    total = _over_last(body, power, "add")
    if is_log:
        return [body.finish(body.map("subtract", value, body.map("log", total)))]
    return [body.finish(body.map("divide", power, total))]


def _unit_length(body: Body) -> list[int]:
    if not body.input(0).dims:
        raise MisfitError("its input has no dimension")
    value = body.real(0)
    squares = _over_last(body, body.map("multiply", value, value), "add")
    return [body.finish(body.map("multiply", value, body.map("rsqrt", squares)))]


# -- Element by element ----------------------------------------------------------------------------------------------


def _unary(opcode: str) -> Rule:
    return lambda body: [body.finish(body.map(opcode, body.real(0)))]


def _binary(opcode: str, activation: int = -1) -> Rule:
    """A rule for two operands; `activation` is the number of that option, -1 for none."""

    def rule(body: Body) -> list[int]:
        function = body.operator.option(activation, "b") if activation >= 0 else 0
        return [body.finish(body.map(opcode, body.real(0), body.real(1)), function)]

    return rule


def _comparison(direction: str) -> Rule:
    return lambda body: [
        body.finish(body.map("compare", body.real(0), body.real(1), dtype="pred", direction=direction))
    ]


def _activation(function: int) -> Rule:
    return lambda body: [body.finish(body.real(0), function)]


def _conversion(body: Body) -> list[int]:
    return [body.finish(body.real(0))]


def _square(body: Body) -> list[int]:
    value = body.real(0)
    return [body.finish(body.map("multiply", value, value))]


def _squared_difference(body: Body) -> list[int]:
    value = body.map("subtract", body.real(0), body.real(1))
    return [body.finish(body.map("multiply", value, value))]


def _hard_swish(body: Body) -> list[int]:
    value = body.real(0)
    gate = body.activated(body.map("add", value, body.elided(body.shape(value).dtype)), 3)
    gate = body.map("multiply", gate, body.elided(body.shape(value).dtype))
    return [body.finish(body.map("multiply", value, gate))]


def _below_zero(opcode: str) -> Rule:
    """A rule for what leaves positive numbers as they are, and gives others times the slope, or another function."""

    def rule(body: Body) -> list[int]:
        value = body.real(0)
        dtype = body.shape(value).dtype
        if opcode == "multiply":
            below = body.map("multiply", value, body.real(1) if len(body.inputs) > 1 else body.elided(dtype))
        else:
            below = body.map(opcode, value)
        is_above = body.map("compare", value, body.elided(dtype), dtype="pred", direction="GT")
        return [body.finish(body.map("select", is_above, value, below, dtype=dtype))]

    return rule


def _selection(body: Body) -> list[int]:
    dtype = body.input(1).dtype
    return [body.finish(body.map("select", body.value(0), body.value(1), body.value(2), dtype=dtype))]


# -- Movement --------------------------------------------------------------------------------------------------------


def _reshape(body: Body) -> list[int]:
    value = body.reshape(body.value(0), body.output().dims)
    if value == body.value(0):
        value = body.add("copy", body.output().dtype, body.output().dims, value)
    return [value]


def _moved(body: Body) -> list[int]:
    """Elements of the input at places that are known before the program runs, in each output."""
    if any(output.dtype != body.input(0).dtype for output in body.outputs):
        raise MisfitError("its outputs are of another type than its input")
    return [body.moved(body.value(0), output.dims) for output in body.outputs]


def _moved_from_second(body: Body) -> list[int]:
    """As `_moved`, of input 1: what SPLIT takes apart."""
    if any(output.dtype != body.input(1).dtype for output in body.outputs):
        raise MisfitError("its outputs are of another type than its input")
    return [body.moved(body.value(1), output.dims) for output in body.outputs]


def _gathered(body: Body) -> list[int]:
    """GATHER: slices along one dimension, those that an input names."""
    dims, named, out = body.input(0).dims, body.input(1).dims, body.output()
    axis = body.operator.option(0, "i")
    axis += len(dims) if axis < 0 else 0
    if body.operator.option(1, "i") or not 0 <= axis < len(dims):
        raise MisfitError(f"it gathers along dimension {axis} of {list(dims)}, or in batches, which has no rule")
    if (*dims[:axis], *named, *dims[axis + 1 :]) != out.dims:
        raise MisfitError(f"{list(out.dims)} are no slices of {list(dims)}")
    kept = [d for d in range(len(out.dims)) if not axis <= d < axis + len(named)]
    sizes = (*dims[:axis], 1, *dims[axis + 1 :])
    value = body.add(
        "gather", body.input(0).dtype, out.dims, body.value(0), body.value(1),
        offset_dims=braces(kept), collapsed_slice_dims=braces([axis]), start_index_map=braces([axis]),
        index_vector_dim=str(len(named)), slice_sizes=braces(sizes),
    )  # fmt: skip
    return [value]


def _transpose(body: Body) -> list[int]:
    dims = body.input(0).dims
    order = body.integers(1)
    if order is None:
        return _moved(body)
    order = tuple(axis % len(dims) if dims else 0 for axis in order)
    if sorted(order) != list(range(len(dims))) or tuple(dims[axis] for axis in order) != body.output().dims:
        raise MisfitError(f"the order {list(order)} of the dimensions {list(dims)} does not give its output")
    return [body.add("transpose", body.input(0).dtype, body.output().dims, body.value(0), dimensions=braces(order))]


def _pad(body: Body) -> list[int]:
    dims, out = body.input(0).dims, body.output().dims
    given = body.integers(1) or [number for d in range(len(dims)) for number in (0, out[d] - dims[d])]
    pairs = [(given[2 * d], given[2 * d + 1]) for d in range(len(dims))]
    if [size + low + high for size, (low, high) in zip(dims, pairs, strict=True)] != list(out):
        raise MisfitError(f"padding {list(dims)} by {pairs} does not give {list(out)}")
    padding = "x".join(f"{low}_{high}" for low, high in pairs)
    filler = body.elided(body.input(0).dtype)
    return [body.add("pad", body.input(0).dtype, out, body.value(0), filler, padding=padding)]


def _joined(body: Body, axis: int, is_new: bool) -> list[int]:
    out = body.output()
    if not -len(out.dims) <= axis < len(out.dims):
        raise MisfitError(f"it has no dimension {axis}")
    axis %= len(out.dims)
    values = []
    for position, tensor in enumerate(body.inputs):
        if tensor is not None:
            values.append(body.value(position))
            if is_new:
                values[-1] = body.reshape(values[-1], (*tensor.dims[:axis], 1, *tensor.dims[axis:]))
    sizes = [body.shape(value).dims for value in values]
    if any((*dims[:axis], *dims[axis + 1 :]) != (*out.dims[:axis], *out.dims[axis + 1 :]) for dims in sizes) or (
        sum(dims[axis] for dims in sizes) != out.dims[axis]
    ):
        raise MisfitError(f"{[list(dims) for dims in sizes]} side by side are not {list(out.dims)}")
    return [body.add("concatenate", out.dtype, out.dims, *values, dimensions=braces([axis]))]


def _concatenation(body: Body) -> list[int]:
    (value,) = _joined(body, body.operator.option(0, "i"), False)
    return [body.activated(value, body.operator.option(1, "b"))]


def _repeated(body: Body) -> list[int]:
    return [body.broadcast(body.value(0), body.output().dims)]


def _filled(body: Body) -> list[int]:
    return [body.broadcast(body.value(1), body.output().dims)]


def _constant(body: Body) -> list[int]:
    """Numbers that are known before the program runs: shapes and zeros."""
    return [body.broadcast(body.elided(body.output().dtype), body.output().dims)]


def _resized(body: Body, neighbours: int) -> list[int]:
    out = body.output()
    if neighbours == 1:
        return _moved(body)
    parts = [body.moved(body.value(0), out.dims) for _ in range(neighbours)]
    parts = [body.map("multiply", body.convert(part, "f32"), body.elided("f32")) for part in parts]
    value = parts[0]
    for part in parts[1:]:
        value = body.map("add", value, part)
    return [body.finish(value)]


_DIRECTIONS = {
    "EQUAL": "EQ", "NOT_EQUAL": "NE", "GREATER": "GT", "GREATER_EQUAL": "GE", "LESS": "LT", "LESS_EQUAL": "LE",
}  # fmt: skip
_UNARY = {
    "ABS": "abs", "NEG": "negate", "EXP": "exponential", "LOG": "log", "SQRT": "sqrt", "RSQRT": "rsqrt", "SIN": "sine",
    "COS": "cosine", "FLOOR": "floor", "CEIL": "ceil", "ROUND": "round-nearest-even", "SIGN": "sign", "TANH": "tanh",
    "LOGISTIC": "logistic", "LOGICAL_NOT": "not",
}  # fmt: skip
_BINARY = {
    "MAXIMUM": "maximum", "MINIMUM": "minimum", "POW": "power", "FLOOR_DIV": "divide", "FLOOR_MOD": "remainder",
    "LOGICAL_AND": "and", "LOGICAL_OR": "or", "BITWISE_XOR": "xor", "RIGHT_SHIFT": "shift-right-arithmetic",
}  # fmt: skip
_WITH_ACTIVATION = {"ADD": "add", "SUB": "subtract", "MUL": "multiply", "DIV": "divide"}
_MOVED = (
    "STRIDED_SLICE", "SLICE", "SPLIT_V", "UNPACK", "TILE", "MIRROR_PAD", "REVERSE_V2", "SPACE_TO_DEPTH",
    "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND",
)  # fmt: skip

RULES: dict[str, Rule] = {
    "CONV_2D": lambda body: convolution(body, is_depthwise=False),
    "DEPTHWISE_CONV_2D": lambda body: convolution(body, is_depthwise=True),
    "TRANSPOSE_CONV": transposed_convolution,
    "FULLY_CONNECTED": fully_connected,
    "BATCH_MATMUL": batched_product,
    "AVERAGE_POOL_2D": lambda body: pooling(body, "add"),
    "MAX_POOL_2D": lambda body: pooling(body, "maximum"),
    "SVDF": filter_with_state,
    "MEAN": lambda body: _reduction(body, "add", is_mean=True),
    "SUM": lambda body: _reduction(body, "add"),
    "REDUCE_MAX": lambda body: _reduction(body, "maximum"),
    "REDUCE_MIN": lambda body: _reduction(body, "minimum"),
    "REDUCE_ANY": lambda body: _reduction(body, "or"),
    "REDUCE_ALL": lambda body: _reduction(body, "and"),
    "SOFTMAX": lambda body: _softmax(body, is_log=False),
    "LOG_SOFTMAX": lambda body: _softmax(body, is_log=True),
    "L2_NORMALIZATION": _unit_length,
    "RELU": _activation(1),
    "RELU_N1_TO_1": _activation(2),
    "RELU_0_TO_1": _activation(2),
    "RELU6": _activation(3),
    **dict.fromkeys(("QUANTIZE", "DEQUANTIZE", "CAST"), _conversion),
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": _squared_difference,
    "HARD_SWISH": _hard_swish,
    "PRELU": _below_zero("multiply"),
    "LEAKY_RELU": _below_zero("multiply"),
    "ELU": _below_zero("exponential-minus-one"),
    **dict.fromkeys(("SELECT", "SELECT_V2"), _selection),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _reshape),
    **dict.fromkeys(_MOVED, _moved),
    "SPLIT": _moved_from_second,
    "GATHER": _gathered,
    "TRANSPOSE": _transpose,
    **dict.fromkeys(("PAD", "PADV2"), _pad),
    "CONCATENATION": _concatenation,
    "PACK": lambda body: _joined(body, body.operator.option(1, "i"), True),
    "BROADCAST_TO": _repeated,
    "FILL": _filled,
    **dict.fromkeys(("SHAPE", "RANK", "ZEROS_LIKE"), _constant),
    "RESIZE_NEAREST_NEIGHBOR": lambda body: _resized(body, 1),
    "RESIZE_BILINEAR": lambda body: _resized(body, 4),
    **{kind: _unary(opcode) for kind, opcode in _UNARY.items()},
    **{kind: _binary(opcode) for kind, opcode in _BINARY.items()},
    **{kind: _binary(opcode, 0) for kind, opcode in _WITH_ACTIVATION.items()},
    **{kind: _comparison(direction) for kind, direction in _DIRECTIONS.items()},
}
