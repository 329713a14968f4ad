"""The shape of an instruction's result, where it follows from the operands, the attributes and the called computations.

HLO text may leave out shapes that follow. The rules are those of XLA's ShapeInference (xla/service/shape_inference.cc),
layouts included: an elementwise operation keeps the layout of its first operand, a transposition carries it along, and
what gets new dimensions has the default one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from memplan.compiler.ir.graph import Computation
from memplan.compiler.ir.inference import arrays, products
from memplan.compiler.ir.inference.operation import (
    InferenceInput,
    ShapeUnknown,
    array_of,
    dimensions_of,
    marked_dynamic,
    tuple_of,
)
from memplan.compiler.ir.opcodes import operand_limits
from memplan.compiler.ir.shape import Shape


def infer_shape(
    opcode: str, operands: Sequence[Shape], attributes: Mapping[str, str], callees: Sequence[Computation]
) -> Shape:
    """Returns the shape of the result; raises ShapeUnknown if it does not follow.

    >>> infer_shape("compare", [Shape("f32", (8,))] * 2, {"direction": "LT"}, [])
    Shape(dtype='pred', dims=(8,), layout=None, dynamic=(), elements=(), is_buffer=False)

    Args:
      operands: shapes of the operands.
      attributes: raw values by key.
      callees: the called computations, in the order of `Instruction.called`.
    """
    rule = _RULES.get(opcode)
    if rule is None:
        raise ShapeUnknown(f"that of {opcode!r} does not follow from its operands")
    least, most = operand_limits(opcode)
    if len(operands) < least or (most is not None and len(operands) > most):
        raise ShapeUnknown(f"{opcode!r} does not take {len(operands)} operands")
    try:
        return rule(InferenceInput(opcode, operands, attributes, callees))
    except (IndexError, KeyError, ValueError, ZeroDivisionError):
        raise ShapeUnknown(f"the attributes of {opcode!r} do not agree with its operands") from None


def _sent(_: Shape, operands: Sequence[Shape]) -> Shape:
    return tuple_of([operands[0], Shape("u32"), Shape("token")])


def _received(stated: Shape, _: Sequence[Shape]) -> Shape:
    return tuple_of([stated.elements[0], Shape("u32"), Shape("token")])


# What XLA makes of these whatever shape a text states.
SHAPES_IMPLIED: dict[str, Callable[[Shape, Sequence[Shape]], Shape]] = {
    "add-dependency": lambda _, operands: operands[0],
    "after-all": lambda *_: Shape("token"),
    "infeed": lambda stated, _: tuple_of([stated.elements[0], Shape("token")]),
    "outfeed": lambda *_: Shape("token"),
    "recv": _received,
    "recv-done": lambda _, operands: tuple_of([operands[0].elements[0], Shape("token")]),
    "send": _sent,
    "send-done": lambda *_: Shape("token"),
}


def implied_shape(opcode: str, stated: Shape, operands: Sequence[Shape]) -> Shape:
    """Returns the shape of a result that XLA derives from the operands whatever a text states.

    The stated one remains where it differs in layouts alone, or where nothing follows.
    """
    try:
        implied = SHAPES_IMPLIED[opcode](stated, operands)
    except IndexError:
        return stated
    return stated if stated.without_layout() == implied.without_layout() else implied


def _batch_norm(o: InferenceInput) -> Shape:
    shape = o.array(0)
    feature = dimensions_of(shape)[int(o.attributes["feature_index"])]
    statistics = array_of(shape.dtype, [feature])
    return tuple_of([shape, statistics, statistics])


def _tuple(o: InferenceInput) -> Shape:
    return tuple_of(o.operands)


def _get_tuple_element(o: InferenceInput) -> Shape:
    index = int(o.attributes["index"])
    if not 0 <= index < len(o.first.elements):
        raise ShapeUnknown(f"its operand is {o.first!s:.60}, which has no element {index}")
    return o.first.elements[index]


def _sort(o: InferenceInput) -> Shape:
    return o.first if len(o.operands) == 1 else tuple_of(o.operands)


def _map(o: InferenceInput) -> Shape:
    arrays = [o.array(i) for i in range(len(o.operands))]
    largest = next((shape for shape in arrays if shape.dims), arrays[0])
    return array_of(o.callees[0].root_instruction.shape.dtype, dimensions_of(largest))


def _scan(o: InferenceInput) -> Shape:
    """The last results are carried; the others have the dimension back that is scanned."""
    dimension = int(o.numbers("dimensions")[0])
    size = o.array(0).dims[dimension]
    carries = int(o.attributes["num_carries"])
    result = o.callees[0].root_instruction.shape
    if not result.is_tuple:
        return result if carries else _inserted(result, dimension, size)
    scanned = len(result.elements) - carries
    return tuple_of([_inserted(e, dimension, size) if i < scanned else e for i, e in enumerate(result.elements)])


def _inserted(shape: Shape, dimension: int, size: int) -> Shape:
    dims = dimensions_of(shape)
    return array_of(shape.dtype, [*dims[:dimension], (size, False), *dims[dimension:]])


def _scatter(o: InferenceInput) -> Shape:
    count = len(o.operands) // 2
    return o.first if count == 1 else tuple_of(o.operands[:count])


def _call(o: InferenceInput) -> Shape:
    return o.callees[0].root_instruction.shape


def _conditional(o: InferenceInput) -> Shape:
    first, *others = [callee.root_instruction.shape for callee in o.callees]
    for other in others:
        first = _joined(first, other)
    return first


def _joined(a: Shape, b: Shape) -> Shape:
    """Returns a shape whose dimensions are dynamic where those of either are."""
    if a.is_tuple:
        return replace(a, elements=tuple(_joined(x, y) for x, y in zip(a.elements, b.elements, strict=True)))
    return marked_dynamic(a, [is_dynamic for _, is_dynamic in dimensions_of(b)]) if b.dynamic else a


_RULES: dict[str, Callable[[InferenceInput], Shape]] = {
    **dict.fromkeys(
        (
            "acos", "acosh", "asin", "asinh", "atanh", "cbrt", "ceil", "cholesky", "cosh", "cosine",
            "count-leading-zeros", "erf", "exponential", "exponential-minus-one", "floor", "log", "log-plus-one",
            "logistic", "negate", "not", "popcnt", "reverse", "round-nearest-afz", "round-nearest-even", "rsqrt",
            "sign", "sine", "sinh", "sqrt", "tan", "tanh",
        ),
        arrays.same_array,
    ),
    **dict.fromkeys(
        (
            "add", "and", "atan2", "divide", "maximum", "minimum", "mulhi", "multiply", "or", "power", "remainder",
            "shift-left", "shift-right-arithmetic", "shift-right-logical", "subtract", "xor",
        ),
        arrays.binary,
    ),
    **dict.fromkeys(("abs", "imag", "real"), arrays.real_part),
    # The loop's carried value, what a barrier passes on, and the value that a dependency is added to.
    **dict.fromkeys(("add-dependency", "copy", "domain", "opt-barrier", "while"), arrays.same),
    **dict.fromkeys(("batch-norm-grad", "batch-norm-training"), _batch_norm),
    **dict.fromkeys(("batch-norm-inference", "select-and-scatter"), arrays.same_array),
    **dict.fromkeys(("partition-id", "replica-id"), lambda _: Shape("u32")),
    "after-all": lambda _: Shape("token"),
    "broadcast": arrays.broadcast,
    "call": _call,
    "clamp": arrays.clamp,
    "compare": arrays.compare,
    "complex": arrays.complex_of_parts,
    "concatenate": arrays.concatenate,
    "conditional": _conditional,
    "convolution": products.convolution,
    "dot": products.dot,
    "fft": arrays.fft,
    "gather": arrays.gather,
    "get-dimension-size": arrays.get_dimension_size,
    "get-tuple-element": _get_tuple_element,
    "is-finite": arrays.predicate,
    "map": _map,
    "pad": arrays.pad,
    "ragged-dot": products.ragged_dot,
    "reduce": products.reduce,
    "reduce-window": products.reduce_window,
    "scaled-dot": products.scaled_dot,
    "scan": _scan,
    "scatter": _scatter,
    "select": arrays.select,
    "set-dimension-size": arrays.set_dimension_size,
    "sort": _sort,
    "topk": arrays.top_k,
    "transpose": arrays.transpose,
    "triangular-solve": lambda o: o.array(1),
    "tuple": _tuple,
}  # fmt: skip
