"""Rules of operators of TensorFlow Lite that sum products, and of pooling: see `tflite_operators.py`.

Layouts are TensorFlow Lite's: images are batch, height, width, channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from memplan.compiler.frontends.tflite_body import Body, MisfitError, braces, broadcast_dims

# Padding of the schema: as much as keeps the size, but for strides.
_SAME = 0


def _windows(
    body: Body, sizes: Sequence[int], results: Sequence[int], kernel: Sequence[int], option: int, dilations: int = -1
) -> tuple[list[int], list[str]]:
    """Returns strides and paddings, `low_high`, by height and width.

    Args:
      body: of the operator, whose padding is option 0, and whose strides stand from `option` on, the width first.
      sizes, results, kernel: height and width of the input, the output and the window.
      option: number of the stride's width.
      dilations: number of the dilation's width; -1 for none.
    """
    operator = body.operator
    strides = [operator.option(option + 1, "i"), operator.option(option, "i")]
    dilated = [1, 1] if dilations < 0 else [operator.option(dilations + 1, "i", 1), operator.option(dilations, "i", 1)]
    if min(*strides, *dilated, *kernel) < 1:
        raise MisfitError(f"its window {list(kernel)} has strides {strides} and dilations {dilated}")
    pads = []
    for size, result, span, stride, dilation in zip(sizes, results, kernel, strides, dilated, strict=True):
        covered = (span - 1) * dilation + 1
        expected = -(-size // stride) if operator.option(0, "b") == _SAME else (size - covered + stride) // stride
        if result != expected:
            raise MisfitError(
                f"a window of {covered} that moves by {stride} over {size} gives {expected}, not {result}"
            )
        total = max((result - 1) * stride + covered - size, 0)
        pads.append(f"{total // 2}_{total - total // 2}")
    return strides, pads


def _by(numbers: Sequence[int | str]) -> str:
    return "x".join(map(str, numbers))


def _rank4(dims: Sequence[int]) -> tuple[int, int, int, int]:
    if len(dims) != 4:
        raise MisfitError(f"a shape of 4 dimensions is needed, not {list(dims)}")
    return dims[0], dims[1], dims[2], dims[3]


def _sum_type(body: Body, left: int, right: int) -> str:
    """Returns the type of sums of products: integers are summed in 32 bits, 16-bit ones in 64."""
    left_type, right_type = body.input(left).dtype, body.input(right).dtype
    if left_type[0] in "su" and right_type[0] in "su":
        return "s64" if left_type == "s16" else "s32"
    return "f32"


def _with_bias(body: Body, value: int, position: int, activation: int) -> list[int]:
    """Adds the bias, if there is one, and ends."""
    if body.has(position):
        value = body.map("add", value, body.convert(body.value(position), body.shape(value).dtype))
    return [body.finish(value, activation)]


def convolution(body: Body, is_depthwise: bool) -> list[int]:
    """CONV_2D, whose weights are output, height, width, input; or DEPTHWISE_CONV_2D, 1, height, width, output."""
    operator = body.operator
    batch, height, width, channels = _rank4(body.input(0).dims)
    first, tall, wide, last = _rank4(body.input(1).dims)
    out = _rank4(body.output().dims)
    features = last if is_depthwise else first
    groups = channels if is_depthwise else channels // max(last, 1)
    if out[0] != batch or out[3] != features or features % max(groups, 1):
        raise MisfitError(f"an output of {list(out)} does not follow from its input and weights")
    if (first != 1) if is_depthwise else (last * groups != channels):
        raise MisfitError(f"weights of {list(body.input(1).dims)} do not fit {channels} channels")
    dilations = 5 if is_depthwise else 4
    strides, pads = _windows(body, (height, width), out[1:3], (tall, wide), 1, dilations)
    dilated = [operator.option(dilations + 1, "i", 1), operator.option(dilations, "i", 1)]
    text = f"{{size={tall}x{wide} stride={_by(strides)} pad={_by(pads)} rhs_dilate={_by(dilated)}}}"
    value = body.add(
        "convolution", _sum_type(body, 0, 1), out, body.value(0), body.value(1),
        window=text, dim_labels="b01f_i01o->b01f" if is_depthwise else "b01f_o01i->b01f",
        feature_group_count=str(groups),
    )  # fmt: skip
    return _with_bias(body, value, 2, operator.option(4 if is_depthwise else 3, "b"))


def transposed_convolution(body: Body) -> list[int]:
    """TRANSPOSE_CONV: the gradient of a convolution by its input, so strides dilate the input."""
    operator = body.operator
    batch, height, width, channels = _rank4(body.input(2).dims)
    features, tall, wide, last = _rank4(body.input(1).dims)
    out = _rank4(body.output().dims)
    strides = [operator.option(2, "i"), operator.option(1, "i")]
    if (out[0], out[3], last) != (batch, features, channels) or min(*strides, tall, wide) < 1:
        raise MisfitError(f"an output of {list(out)} does not follow from its input and weights")
    pads = []
    for size, result, span, stride in zip((height, width), out[1:3], (tall, wide), strides, strict=True):
        spread = (size - 1) * stride + 1
        low = span - 1 - max(spread - 1 + span - result, 0) // 2
        pads.append(f"{low}_{result + span - 1 - spread - low}")
    text = f"{{size={tall}x{wide} pad={_by(pads)} lhs_dilate={_by(strides)} rhs_reversal=1x1}}"
    value = body.add(
        "convolution", _sum_type(body, 2, 1), out, body.value(2), body.value(1),
        window=text, dim_labels="b01f_o01i->b01f",
    )  # fmt: skip
    return _with_bias(body, value, 3, operator.option(3, "b"))


def fully_connected(body: Body) -> list[int]:
    """FULLY_CONNECTED: all dimensions of the input but the last are rows, or fewer if the weights are deeper."""
    if len(body.input(1).dims) != 2 or body.operator.option(1, "b"):
        raise MisfitError("weights that are no matrix in rows have no rule")
    columns, depth = body.input(1).dims
    elements = math.prod(body.input(0).dims)
    if depth < 1 or elements % depth:
        raise MisfitError(f"{list(body.input(0).dims)} cannot be multiplied by weights of {[columns, depth]}")
    rows = body.reshape(body.value(0), (elements // depth, depth))
    value = body.add(
        "dot", _sum_type(body, 0, 1), (elements // depth, columns), rows, body.value(1),
        lhs_contracting_dims="{1}", rhs_contracting_dims="{1}",
    )  # fmt: skip
    return _with_bias(body, value, 2, body.operator.option(0, "b"))


def batched_product(body: Body) -> list[int]:
    """BATCH_MATMUL: products of the last two dimensions, the others broadcast."""
    left, right = body.input(0).dims, body.input(1).dims
    if min(len(left), len(right)) < 2:
        raise MisfitError(f"{list(left)} and {list(right)} are no matrices")
    batch = broadcast_dims([left[:-2], right[:-2]])
    rank = len(batch) + 2
    x, y = body.broadcast(body.value(0), (*batch, *left[-2:])), body.broadcast(body.value(1), (*batch, *right[-2:]))
    # The contracted dimension is the last of the left and the last but one of the right, unless they are transposed.
    inner_left = rank - 2 if body.operator.option(0, "?") else rank - 1
    inner_right = rank - 1 if body.operator.option(1, "?") else rank - 2
    if body.shape(x).dims[inner_left] != body.shape(y).dims[inner_right]:
        raise MisfitError(f"{list(left)} and {list(right)} do not fit each other")
    batches = braces(range(rank - 2))
    dims = (*batch, body.shape(x).dims[2 * rank - 3 - inner_left], body.shape(y).dims[2 * rank - 3 - inner_right])
    value = body.add(
        "dot", _sum_type(body, 0, 1), dims, x, y,
        lhs_batch_dims=batches, lhs_contracting_dims=braces([inner_left]),
        rhs_batch_dims=batches, rhs_contracting_dims=braces([inner_right]),
    )  # fmt: skip
    return [body.finish(value)]


def pooling(body: Body, opcode: str) -> list[int]:
    """MAX_POOL_2D, or AVERAGE_POOL_2D with the opcode `add`."""
    operator = body.operator
    batch, height, width, channels = _rank4(body.input(0).dims)
    out = _rank4(body.output().dims)
    if (out[0], out[3]) != (batch, channels):
        raise MisfitError(f"an output of {list(out)} does not follow from its input")
    kernel = [operator.option(4, "i"), operator.option(3, "i")]
    strides, pads = _windows(body, (height, width), out[1:3], kernel, 1)
    window = f"{{size=1x{_by(kernel)}x1 stride=1x{_by(strides)}x1 pad=0_0x{_by(pads)}x0_0}}"
    value = body.value(0)
    if opcode == "add" and body.input(0).dtype in ("s8", "u8", "s16"):
        value = body.convert(value, "s32")
    value = body.reduce_window(value, opcode, out, window)
    if opcode == "add":
        value = body.map("divide", value, body.elided(body.shape(value).dtype))
    # Input and output have one scale, so nothing is quantized again.
    value = body.activated(value, operator.option(5, "b"))
    return [body.convert(value, body.output().dtype)]


def filter_with_state(body: Body) -> list[int]:
    """SVDF: features of each input are kept in a state, over whose last entries a filter in time runs."""
    batch, depth = body.input(0).dims
    filters, memory = body.input(2).dims
    rank = body.operator.option(0, "i")
    if rank < 1 or filters % rank or body.input(1).dims != (filters, depth):
        raise MisfitError("its weights do not fit each other")
    features = body.add(
        "dot", _sum_type(body, 0, 1), (batch, filters), body.value(0), body.value(1),
        lhs_contracting_dims="{1}", rhs_contracting_dims="{1}",
    )  # fmt: skip
    kind = body.input(4).dtype
    state = body.reshape(body.value(4), (batch, filters, memory))
    bounds = f"{{[0:{batch}], [0:{filters}], [1:{memory}]}}"
    older = body.add("slice", kind, (batch, filters, memory - 1), state, slice=bounds)
    newest = body.reshape(body.convert(features, kind), (batch, filters, 1))
    state = body.add("concatenate", kind, (batch, filters, memory), older, newest, dimensions="{2}")
    total = "f32" if kind[0] == "f" else "s32"
    product = body.map("multiply", body.convert(state, total), body.convert(body.value(2), total))
    value = body.reshape(body.reduce(product, "add", [2]), (batch, filters // rank, rank))
    value = body.reduce(value, "add", [2])
    if body.has(3):
        value = body.map("add", value, body.convert(body.value(3), total))
    return [body.finish(value, body.operator.option(1, "b")), body.reshape(state, body.input(4).dims)]
