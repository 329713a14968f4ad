"""What one element of each equation's result is: one rule for each primitive of JAX.

A rule returns the expression of one element, given its indices. It asks a scope for elements of the operands, which are
loads of buffers, or expressions where the operand is never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from memplan.compiler.embedded.affine import AffineIndex, LoopIndex, reshaped
from memplan.compiler.embedded.expressions import OPERATIONS, Builder, Divisible, Expression, Within

Indices = tuple[AffineIndex, ...]


class ExpressionScope(Protocol):
    """The step that an expression becomes part of."""

    builder: Builder

    def element(self, atom: Any, indices: Indices) -> Expression:
        """Returns an element of a variable or literal of the jaxpr."""

    def new_loop(self, extent: int) -> LoopIndex:
        """Returns a loop of a reduction."""


Rule = Callable[[Any, ExpressionScope, Indices, int], Expression]

# Primitives that are an operation of the same name.
_SAME = set(OPERATIONS) - {"convert", "round", "round_away", "select"}

# Primitives that only give elements other places, or ask for a place. Those in BIJECTIVE lose and repeat none.
BIJECTIVE = frozenset({"expand_dims", "reshape", "rev", "squeeze", "transpose"})
VIEWS = BIJECTIVE | {"broadcast_in_dim", "iota", "slice", "split", "tile"}

REDUCTIONS = {
    "reduce_sum": "sum",
    "reduce_prod": "prod",
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_and": "and",
    "reduce_or": "or",
    "reduce_xor": "xor",
}

# Reductions that read each element many times.
CONTRACTIONS = frozenset({"conv_general_dilated", "dot_general"})

# Operations that take many instructions.
_CURVES = ("cbrt", "cos", "erf", "exp", "exp2", "expm1", "log", "log1p", "logistic", "sin", "tan", "tanh")
HEAVY = frozenset({*_CURVES, "atan2", "div", "floor", "pow", "rem", "round", "rsqrt", "sqrt"})


def dtype_of(atom: Any) -> str:
    """Returns the numpy name of the dtype of a variable or literal."""
    return str(np.dtype(atom.aval.dtype).name)


def _pointwise(scope: ExpressionScope, atoms: Sequence[Any], indices: Indices) -> tuple[Expression, ...]:
    """Returns an element of each operand; dimensions of size 1 and scalars are repeated."""
    return tuple(
        scope.element(
            atom,
            tuple(i if size > 1 else AffineIndex() for i, size in zip(indices, atom.aval.shape, strict=False)),
        )
        for atom in atoms
    )


def _elementwise(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    name = equation.primitive.name
    operands = _pointwise(scope, equation.invars, indices)
    return scope.builder.operation(name, operands, dtype_of(equation.outvars[result]))


def _identity(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    return scope.element(equation.invars[result], indices)


def _convert(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    del result
    value = scope.element(equation.invars[0], indices)
    return scope.builder.operation("convert", (value,), dtype_of(equation.outvars[0]))


def _round(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    del result
    value = scope.element(equation.invars[0], indices)
    to_even = equation.params["rounding_method"].name == "TO_NEAREST_EVEN"
    return scope.builder.operation("round" if to_even else "round_away", (value,), value.dtype)


def _square(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    del result
    value = scope.element(equation.invars[0], indices)
    return scope.builder.operation("mul", (value, value), value.dtype)


def _one_minus_square(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    """As JAX lowers it, (1 + x)(1 - x). The derivative of tanh has it in JAX 0.12."""
    del result
    builder, value = scope.builder, scope.element(equation.invars[0], indices)
    one = builder.constant(1, value.dtype)
    terms = tuple(builder.operation(name, (one, value), value.dtype) for name in ("add", "sub"))
    return builder.operation("mul", terms, value.dtype)


def _integer_pow(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    """By squaring, in the order in which JAX multiplies."""
    del result
    builder, power = scope.builder, scope.element(equation.invars[0], indices)
    exponent, dtype = equation.params["y"], dtype_of(equation.outvars[0])
    product: Expression | None = None
    left = abs(exponent)
    while left:
        if left & 1:
            product = power if product is None else builder.operation("mul", (product, power), dtype)
        left >>= 1
        if left:
            power = builder.operation("mul", (power, power), dtype)
    one = builder.constant(1.0 if dtype.startswith("float") else 1, dtype)
    if product is None:
        return one
    return builder.operation("div", (one, product), dtype) if exponent < 0 else product


def _add(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    operands = _pointwise(scope, equation.invars, indices)
    return scope.builder.operation("add", operands, dtype_of(equation.outvars[result]))


def _select(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    which, if_false, if_true = _pointwise(scope, equation.invars, indices)
    return scope.builder.operation("select", (which, if_true, if_false), dtype_of(equation.outvars[result]))


def _clamp(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    low, value, high = _pointwise(scope, equation.invars, indices)
    dtype = dtype_of(equation.outvars[result])
    return scope.builder.operation("min", (scope.builder.operation("max", (value, low), dtype), high), dtype)


# ---- views


def _broadcast(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    del result
    operand = equation.invars[0]
    places = equation.params["broadcast_dimensions"]
    taken = [indices[d] if size > 1 else AffineIndex() for d, size in zip(places, operand.aval.shape, strict=True)]
    return scope.element(operand, tuple(taken))


def _reshape(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    operand = equation.invars[0]
    shape = operand.aval.shape
    order = equation.params.get("dimensions") if equation.primitive.name == "reshape" else None
    order = range(len(shape)) if order is None else order
    places = [AffineIndex()] * len(shape)
    moved = reshaped(indices, equation.outvars[result].aval.shape, [shape[d] for d in order])
    for d, place in zip(order, moved, strict=True):
        places[d] = place
    return scope.element(operand, tuple(places))


def _transpose(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    del result
    found = [AffineIndex()] * len(indices)
    for own, other in enumerate(equation.params["permutation"]):
        found[other] = indices[own]
    return scope.element(equation.invars[0], tuple(found))


def _reverse(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    del result
    operand = equation.invars[0]
    reverse = set(equation.params["dimensions"])
    return scope.element(
        operand,
        tuple(
            AffineIndex(size - 1) - index if d in reverse else index
            for d, (index, size) in enumerate(zip(indices, operand.aval.shape, strict=True))
        ),
    )


def _slice(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    del result
    starts = equation.params["start_indices"]
    strides = equation.params["strides"] or (1,) * len(starts)
    places = [index * stride + start for index, start, stride in zip(indices, starts, strides, strict=True)]
    return scope.element(equation.invars[0], tuple(places))


def _split(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    axis = equation.params["axis"]
    start = sum(equation.params["sizes"][:result])
    return scope.element(equation.invars[0], tuple(i + start if d == axis else i for d, i in enumerate(indices)))


def _tile(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    del result
    operand = equation.invars[0]
    places = [index.divided(size)[1] for index, size in zip(indices, operand.aval.shape, strict=True)]
    return scope.element(operand, tuple(places))


def _iota(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    return scope.builder.position(indices[equation.params["dimension"]], dtype_of(equation.outvars[result]))


def _pad(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    del result
    operand, value = equation.invars
    builder = scope.builder
    conditions: list[Any] = []
    places = []
    for index, size, (low, _, interior) in zip(
        indices, operand.aval.shape, equation.params["padding_config"], strict=True
    ):
        place = index - low
        conditions.append(Within(place, 0, (size - 1) * (interior + 1) + 1))
        if interior:
            conditions.append(Divisible(place, interior + 1))
        places.append(place.divided(interior + 1)[0])
    return builder.guarded(tuple(conditions), scope.element(operand, tuple(places)), scope.element(value, ()))


def _concatenate(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    del result
    axis = equation.params["dimension"]
    sizes = [operand.aval.shape[axis] for operand in equation.invars]
    start = sum(sizes)
    found: Expression | None = None
    for operand, size in zip(reversed(equation.invars), reversed(sizes), strict=True):
        start -= size
        place = tuple(index - start if d == axis else index for d, index in enumerate(indices))
        part = scope.element(operand, place)
        found = part if found is None else scope.builder.guarded((Within(indices[axis], 0, start + size),), part, found)
    assert found is not None
    return found


# ---- reductions


def _loop_index(loop: LoopIndex | None) -> AffineIndex:
    return AffineIndex() if loop is None else AffineIndex(0, ((loop, 1),))


def _new_loops(scope: ExpressionScope, extents: Sequence[int]) -> tuple[list[AffineIndex], tuple[LoopIndex, ...]]:
    """Returns the indices of new loops, and those that run more than once."""
    loops = [scope.new_loop(extent) if extent > 1 else None for extent in extents]
    return [_loop_index(loop) for loop in loops], tuple(loop for loop in loops if loop is not None)


def _reduce(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    operand = equation.invars[0]
    shape, axes = operand.aval.shape, equation.params["axes"]
    own, loops = _new_loops(scope, [shape[axis] for axis in axes])
    places = dict(zip(axes, own, strict=True))
    rest = iter(indices)
    body = scope.element(operand, tuple(places[d] if d in places else next(rest) for d in range(len(shape))))
    combine = REDUCTIONS[equation.primitive.name]
    return scope.builder.reduction(combine, loops, body, dtype_of(equation.outvars[result]))


def _arg_reduce(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    operand = equation.invars[0]
    (axis,) = equation.params["axes"]
    own, loops = _new_loops(scope, [operand.aval.shape[axis]])
    dtype = dtype_of(equation.outvars[result])
    if not loops:
        return scope.builder.constant(0, dtype)
    body = scope.element(operand, (*indices[:axis], own[0], *indices[axis:]))
    return scope.builder.reduction(equation.primitive.name, loops, body, dtype)


def _product(scope: ExpressionScope, dtype: str, *operands: Expression) -> Expression:
    builder = scope.builder
    left, right = (builder.operation("convert", (operand,), dtype) for operand in operands)
    return builder.operation("and" if dtype == "bool" else "mul", (left, right), dtype)


def _dot(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    left, right = equation.invars
    (left_axes, right_axes), (left_batch, right_batch) = equation.params["dimension_numbers"]
    own, loops = _new_loops(scope, [left.aval.shape[axis] for axis in left_axes])
    places = iter(indices[len(left_batch) :])

    def full(operand: Any, axes: Sequence[int], batch: Sequence[int]) -> Indices:
        known = {**dict(zip(axes, own, strict=True)), **dict(zip(batch, indices, strict=False))}
        return tuple(known[d] if d in known else next(places) for d in range(len(operand.aval.shape)))

    dtype = dtype_of(equation.outvars[result])
    a = scope.element(left, full(left, left_axes, left_batch))
    b = scope.element(right, full(right, right_axes, right_batch))
    return scope.builder.reduction("or" if dtype == "bool" else "sum", loops, _product(scope, dtype, a, b), dtype)


def _convolution(equation: Any, scope: ExpressionScope, indices: Indices, result: int) -> Expression:
    left, right = equation.invars
    params = equation.params
    numbers = params["dimension_numbers"]
    left_shape, right_shape = left.aval.shape, right.aval.shape
    batch, feature = indices[numbers.out_spec[0]], indices[numbers.out_spec[1]]
    num_features = right_shape[numbers.rhs_spec[0]]
    own, loops = _new_loops(scope, [right_shape[d] for d in (*numbers.rhs_spec[2:], numbers.rhs_spec[1])])
    *kernel, channel = own
    group, _ = feature.divided(num_features // params["feature_group_count"])
    batch_group, _ = feature.divided(num_features // params["batch_group_count"])
    left_index = [AffineIndex()] * len(left_shape)
    right_index = [AffineIndex()] * len(right_shape)
    num_batches = left_shape[numbers.lhs_spec[0]] // params["batch_group_count"]
    left_index[numbers.lhs_spec[0]] = batch_group * num_batches + batch if params["batch_group_count"] > 1 else batch
    left_index[numbers.lhs_spec[1]] = channel
    if params["feature_group_count"] > 1:
        left_index[numbers.lhs_spec[1]] += group * right_shape[numbers.rhs_spec[1]]
    right_index[numbers.rhs_spec[0]], right_index[numbers.rhs_spec[1]] = feature, channel
    conditions: list[Any] = []
    for k, place in enumerate(kernel):
        dilation, size = params["lhs_dilation"][k], left_shape[numbers.lhs_spec[2 + k]]
        index = indices[numbers.out_spec[2 + k]] * params["window_strides"][k]
        index += place * params["rhs_dilation"][k] - params["padding"][k][0]
        conditions.append(Within(index, 0, (size - 1) * dilation + 1))
        if dilation > 1:
            conditions.append(Divisible(index, dilation))
        left_index[numbers.lhs_spec[2 + k]] = index.divided(dilation)[0]
        right_index[numbers.rhs_spec[2 + k]] = place
    dtype = dtype_of(equation.outvars[result])
    product = _product(scope, dtype, scope.element(left, tuple(left_index)), scope.element(right, tuple(right_index)))
    zero = scope.builder.constant(0.0 if dtype.startswith("float") else 0, dtype)
    return scope.builder.reduction("sum", loops, scope.builder.guarded(tuple(conditions), product, zero), dtype)


RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduce),
    "add_any": _add,
    "argmax": _arg_reduce,
    "argmin": _arg_reduce,
    "broadcast_in_dim": _broadcast,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _convert,
    "copy": _identity,
    "copy_p": _identity,
    "stop_gradient": _identity,
    "tile": _tile,
    "dot_general": _dot,
    "expand_dims": _reshape,
    "integer_pow": _integer_pow,
    "iota": _iota,
    "one_minus_square": _one_minus_square,
    "optimization_barrier": _identity,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "round": _round,
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "square": _square,
    "squeeze": _reshape,
    "transpose": _transpose,
}


def is_reduction(name: str) -> bool:
    """Whether a primitive combines elements in loops of its own."""
    return name in REDUCTIONS or name in CONTRACTIONS or name in ("argmax", "argmin")
