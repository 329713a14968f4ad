"""How a primitive of JAX that has an opcode of HLO becomes an instruction, as JAX itself lowers it.

Attributes are HLO's own text, so that costs and printers need not know where a Graph comes from. Two liberties are
taken, because the Graph is planned and not compiled: scalars are operands of elementwise operations without a
broadcast, and the mask of a gather or scatter that drops indices is not spelled out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from memplan.compiler.frontends.jaxpr_arrays import shape_of
from memplan.compiler.frontends.jaxpr_equation import EquationContext, braced, plain_attributes, quoted
from memplan.compiler.ir import Shape

Rule = Callable[[EquationContext], list[int]]

# Primitives whose operands and results are those of an opcode without attributes.
_SAME_OPERANDS = {
    "abs": "abs", "acos": "acos", "acosh": "acosh", "add": "add", "add_any": "add", "after_all": "after-all",
    "and": "and", "asin": "asin", "asinh": "asinh", "atan2": "atan2", "atanh": "atanh",
    "bitcast_convert_type": "bitcast-convert", "cbrt": "cbrt", "ceil": "ceil", "clamp": "clamp",
    "clz": "count-leading-zeros", "complex": "complex", "copy": "copy", "copy_p": "copy", "cos": "cosine",
    "cosh": "cosh", "div": "divide", "erf": "erf", "exp": "exponential", "expm1": "exponential-minus-one",
    "floor": "floor", "imag": "imag", "is_finite": "is-finite", "log": "log", "log1p": "log-plus-one",
    "logistic": "logistic", "max": "maximum", "min": "minimum", "mul": "multiply", "mulhi": "mulhi",
    "neg": "negate", "not": "not", "or": "or", "population_count": "popcnt", "pow": "power", "real": "real",
    "rem": "remainder", "rsqrt": "rsqrt", "shift_left": "shift-left",
    "shift_right_arithmetic": "shift-right-arithmetic", "shift_right_logical": "shift-right-logical", "sign": "sign",
    "sin": "sine", "sinh": "sinh", "sqrt": "sqrt", "sub": "subtract", "tan": "tan", "tanh": "tanh", "xor": "xor",
}  # fmt: skip

_COMPARISONS = {"eq": "EQ", "ne": "NE", "lt": "LT", "le": "LE", "gt": "GT", "ge": "GE"}


def _elementwise(context: EquationContext) -> list[int]:
    return context.emit(_SAME_OPERANDS[context.name])


def _compare(context: EquationContext) -> list[int]:
    name = context.name.removesuffix("_to")
    attributes = [("direction", _COMPARISONS[name])]
    if name != context.name:
        attributes.append(("type", "TOTALORDER"))
    return context.emit("compare", attributes)


def _alias(context: EquationContext) -> list[int]:
    """An operation that the compiled program does not have: its result is its operand, under a name worth keeping."""
    attributes = plain_attributes(context.params)
    if "sharding" in context.params:
        attributes.append(("sharding", quoted(str(context.params["sharding"]))))
    return context.view(attributes)


def _convert(context: EquationContext) -> list[int]:
    if context.in_shapes[0] == context.out_shapes[0]:
        return list(context.operands)
    return context.emit("convert")


def _round(context: EquationContext) -> list[int]:
    to_even = context.params["rounding_method"].name == "TO_NEAREST_EVEN"
    return context.emit("round-nearest-even" if to_even else "round-nearest-afz")


def _square(context: EquationContext) -> list[int]:
    (x,) = context.operands
    evaluate = context.evaluate
    return context.emit("multiply", operands=(x, x), evaluate=lambda x, _: evaluate(x))


def _integer_pow(context: EquationContext) -> list[int]:
    exponent = context.params["y"]
    if exponent == 2:
        return _square(context)
    (x,) = context.operands
    evaluate = context.evaluate
    power = context.builder.constant(exponent, Shape(context.in_shapes[0].dtype))
    return context.emit("power", operands=(x, power), evaluate=lambda x, _: evaluate(x))


def _select_n(context: EquationContext) -> list[int]:
    """HLO's select names the case for true first, JAX's the one for 0. JAX's choice among more has no opcode."""
    if len(context.operands) != 3 or context.in_shapes[0].dtype != "pred":
        return context.emit(context.name)
    which, on_false, on_true = context.operands
    evaluate = context.evaluate
    return context.emit(
        "select", operands=(which, on_true, on_false), evaluate=lambda which, t, f: evaluate(which, f, t)
    )


def _broadcast_in_dim(context: EquationContext) -> list[int]:
    """A broadcast; one of HLO does not stretch dimensions of size 1, they are taken out of the operand before it."""
    if len(context.operands) != 1:
        return context.emit(context.name)
    (operand,) = context.operands
    source, result = context.in_shapes[0], context.out_shapes[0]
    if source.num_elements == result.num_elements:
        return context.emit("reshape")
    # A key is an array of integers with a dimension more, which stays where it is: in the last place.
    inner = tuple(range(len(context.params["shape"]), len(result.dims)))
    dimensions = (*context.params["broadcast_dimensions"], *inner)
    kept = [(size, d) for size, d in zip(source.dims, dimensions, strict=True) if size == result.dims[d]]
    evaluate = context.evaluate
    if len(kept) < len(dimensions):
        operand = context.builder.view(operand, Shape(source.dtype, tuple(size for size, _ in kept)), context.source)
    return context.emit(
        "broadcast",
        [("dimensions", braced([d for _, d in kept]))],
        operands=[operand],
        evaluate=lambda array: evaluate(array.reshape(source.dims)),
    )


def _reshape(context: EquationContext) -> list[int]:
    if len(context.operands) != 1 or (context.params.get("dimensions") is not None and context.name == "reshape"):
        return context.emit(context.name)
    return context.emit("reshape")


def _transpose(context: EquationContext) -> list[int]:
    permutation = tuple(context.params["permutation"])
    inner = range(len(permutation), len(context.in_shapes[0].dims))
    return context.emit("transpose", [("dimensions", braced((*permutation, *inner)))])


def _slice(context: EquationContext) -> list[int]:
    params = context.params
    shape = context.in_shapes[0]
    starts, limits = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    inner = shape.dims[len(starts) :]
    ranges = [*zip(starts, limits, strides, strict=True), *((0, size, 1) for size in inner)]
    if all(stride == 1 for stride in strides):
        texts = [f"[{start}:{limit}]" for start, limit, _ in ranges]
    else:
        texts = [f"[{start}:{limit}:{stride}]" for start, limit, stride in ranges]
    return context.emit("slice", [("slice", "{" + ", ".join(texts) + "}")])


def _dynamic_slice(context: EquationContext) -> list[int]:
    return context.emit("dynamic-slice", [("dynamic_slice_sizes", braced(context.out_shapes[0].dims))])


def _concatenate(context: EquationContext) -> list[int]:
    return context.emit("concatenate", [("dimensions", braced([context.params["dimension"]]))])


def _pad(context: EquationContext) -> list[int]:
    config = list(context.params["padding_config"])
    config += [(0, 0, 0)] * (len(context.in_shapes[0].dims) - len(config))
    is_plain = all(interior == 0 for _, _, interior in config)
    texts = [f"{low}_{high}" if is_plain else f"{low}_{high}_{interior}" for low, high, interior in config]
    return context.emit("pad", [("padding", "x".join(texts))])


def _reverse(context: EquationContext) -> list[int]:
    return context.emit("reverse", [("dimensions", braced(context.params["dimensions"]))])


def _iota(context: EquationContext) -> list[int]:
    return context.emit("iota", [("iota_dimension", str(context.params["dimension"]))])


def _reduce_precision(context: EquationContext) -> list[int]:
    params = context.params
    return context.emit(
        "reduce-precision",
        [("exponent_bits", str(params["exponent_bits"])), ("mantissa_bits", str(params["mantissa_bits"]))],
    )


def _precision(params: dict[str, Any]) -> list[tuple[str, str]]:
    precision = params.get("precision")
    if precision is None:
        return []
    names = [getattr(p, "name", str(p)).lower() for p in (precision if isinstance(precision, tuple) else (precision,))]
    if all(name == "default" for name in names):
        return []
    return [("operand_precision", "{" + ",".join(names * (2 // len(names))) + "}")]


def _dot_general(context: EquationContext) -> list[int]:
    (lhs_contracting, rhs_contracting), (lhs_batch, rhs_batch) = context.params["dimension_numbers"]
    attributes = []
    for key, dimensions in (
        ("lhs_batch_dims", lhs_batch),
        ("lhs_contracting_dims", lhs_contracting),
        ("rhs_batch_dims", rhs_batch),
        ("rhs_contracting_dims", rhs_contracting),
    ):
        if len(dimensions) or key.endswith("contracting_dims"):
            attributes.append((key, braced(dimensions)))
    return context.emit("dot", attributes + _precision(context.params))


def _convolution(context: EquationContext) -> list[int]:
    params = context.params
    numbers = params["dimension_numbers"]
    rhs = context.in_shapes[1].dims
    window = window_text(
        size=[rhs[d] for d in numbers.rhs_spec[2:]],
        stride=params["window_strides"],
        padding=params["padding"],
        lhs_dilation=params["lhs_dilation"],
        rhs_dilation=params["rhs_dilation"],
    )
    labels = "_".join((_dim_labels(numbers.lhs_spec, "bf"), _dim_labels(numbers.rhs_spec, "oi")))
    attributes = [("window", window), ("dim_labels", f"{labels}->{_dim_labels(numbers.out_spec, 'bf')}")]
    attributes += [(k, str(params[k])) for k in ("feature_group_count", "batch_group_count") if params[k] != 1]
    return context.emit("convolution", attributes + _precision(params))


def _dim_labels(spec: Sequence[int], first: str) -> str:
    """Returns one letter or digit per dimension: where the two named ones and the spatial ones stand."""
    labels = [""] * len(spec)
    for position, label in zip(spec, [*first, *map(str, range(len(spec) - 2))], strict=True):
        labels[position] = label
    return "".join(labels)


def window_text(
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] = (),
    rhs_dilation: Sequence[int] = (),
) -> str:
    """Returns a window as HLO prints it: what is as by default is left out, but for the size.

    >>> window_text((3, 3), (2, 2), ((1, 1), (1, 1)))
    '{size=3x3 stride=2x2 pad=1_1x1_1}'
    """
    parts = []
    if len(size):
        parts.append("size=" + "x".join(map(str, size)))
    for key, values in (("stride", stride), ("lhs_dilate", lhs_dilation), ("rhs_dilate", rhs_dilation)):
        if key == "lhs_dilate" and any(low or high for low, high in padding):
            parts.append("pad=" + "x".join(f"{low}_{high}" for low, high in padding))
        if any(value != 1 for value in values):
            parts.append(f"{key}=" + "x".join(map(str, values)))
    return "{" + " ".join(parts) + "}"


def _gather(context: EquationContext) -> list[int]:
    numbers = context.params["dimension_numbers"]
    attributes = [
        ("offset_dims", braced(numbers.offset_dims)),
        ("collapsed_slice_dims", braced(numbers.collapsed_slice_dims)),
        ("start_index_map", braced(numbers.start_index_map)),
    ]
    if numbers.operand_batching_dims:
        attributes += [
            ("operand_batching_dims", braced(numbers.operand_batching_dims)),
            ("start_indices_batching_dims", braced(numbers.start_indices_batching_dims)),
        ]
    attributes += [
        ("index_vector_dim", str(len(context.in_shapes[1].dims) - 1)),
        ("slice_sizes", braced(context.params["slice_sizes"])),
    ]
    if context.params["indices_are_sorted"]:
        attributes.append(("indices_are_sorted", "true"))
    return context.emit("gather", attributes)


def _fft(context: EquationContext) -> list[int]:
    params = context.params
    return context.emit("fft", [("fft_type", params["fft_type"].name), ("fft_length", braced(params["fft_lengths"]))])


def _top_k(context: EquationContext) -> list[int]:
    axis = context.params.get("axis", -1)
    if axis not in (-1, len(context.in_shapes[0].dims) - 1):
        return context.emit(context.name, plain_attributes(context.params))
    return context.emit("topk", [("k", str(context.params["k"])), ("largest", "true")])


def _approx_top_k(context: EquationContext) -> list[int]:
    attributes = [("custom_call_target", quoted("ApproxTopK")), *plain_attributes(context.params)]
    return context.emit("custom-call", attributes)


def _rng_bit_generator(context: EquationContext) -> list[int]:
    name = {"RNG_THREE_FRY": "rng_three_fry", "RNG_PHILOX": "rng_philox"}.get(
        context.params["algorithm"].name, "rng_default"
    )
    return context.emit("rng-bit-generator", [("algorithm", name)])


def _rng_uniform(context: EquationContext) -> list[int]:
    return context.emit("rng", [("distribution", "rng_uniform")])


def _cholesky(context: EquationContext) -> list[int]:
    return context.emit("cholesky", [("lower", "true")])


def _triangular_solve(context: EquationContext) -> list[int]:
    params = context.params
    transposition = "NO_TRANSPOSE" if not params["transpose_a"] else "ADJOINT" if params["conjugate_a"] else "TRANSPOSE"
    flags = [(k, "true") for k in ("left_side", "lower", "unit_diagonal") if params[k]]
    return context.emit("triangular-solve", [*flags, ("transpose_a", transposition)])


def _device_put(context: EquationContext) -> list[int]:
    """Each array is copied; the memory space of the result says where to."""
    return [
        context.builder.emit(
            "copy",
            shape_of(result.aval),
            (operand,),
            name=context.name,
            attributes=(("primitive", context.name),),
            source=context.source,
            evaluate=lambda array: array,
        )
        for operand, result in zip(context.operands, context.equation.outvars, strict=True)
    ]


def _optimization_barrier(context: EquationContext) -> list[int]:
    bundle = context.builder.tuple(context.operands, context.source)
    value = context.builder.emit(
        "opt-barrier",
        context.builder.shape(bundle),
        (bundle,),
        name=context.name,
        attributes=(("primitive", context.name),),
        source=context.source,
        evaluate=lambda values: values,
    )
    return context.builder.elements(value)


def _ragged_dot_general(context: EquationContext) -> list[int]:
    if len(context.operands) != 3:
        return context.emit(context.name)
    numbers = context.params["ragged_dot_dimension_numbers"]
    (left, right), (left_batch, right_batch) = numbers.dot_dimension_numbers
    dimensions = {
        "lhs_contracting_dims": left, "rhs_contracting_dims": right,
        "lhs_batch_dims": left_batch, "rhs_batch_dims": right_batch,
        "lhs_ragged_dims": numbers.lhs_ragged_dimensions, "rhs_group_dims": numbers.rhs_group_dimensions,
    }  # fmt: skip
    return context.emit("ragged-dot", [(key, braced(dims)) for key, dims in dimensions.items() if len(dims)])


def _scaled_matmul(context: EquationContext) -> list[int]:
    """Products of `[batch, rows, k]` and `[batch, columns, k]`, whose blocks have scales."""
    sides = [("lhs_batch_dims", "{0}"), ("rhs_batch_dims", "{0}")]
    return context.emit("scaled-dot", [("lhs_contracting_dims", "{2}"), ("rhs_contracting_dims", "{2}"), *sides])


def _pallas_call(context: EquationContext) -> list[int]:
    """A custom call, whose `backend_config` holds the kernel's estimate as in a compiled module."""
    name, estimate = str(context.params.get("name") or ""), context.params.get("cost_estimate")
    attributes = [("kernel_name", quoted(name))]
    left_out = "its arithmetic counts as nothing without a cost_estimate, and what it does inside is not planned"
    if estimate is not None:
        left_out = "what it does inside is not planned"
        counts = f'"flops":{int(estimate.flops)},"transcendentals":{int(estimate.transcendentals)}'
        attributes.append(("backend_config", f'{{"cost_estimate":{{{counts}}}}}'))
    kernel = f"the Pallas kernel {name!r}" if name else "a Pallas kernel without a name"
    context.builder.module.warnings[f"{kernel} is kept as one custom call: {left_out}"] = None
    return _custom_call(context, "pallas_call", attributes)


def _ffi_call(context: EquationContext) -> list[int]:
    attributes = [("custom_call_has_side_effect", "true")] if context.params.get("has_side_effect") else []
    return _custom_call(context, str(context.params["target_name"]), attributes)


def _custom_call(context: EquationContext, target: str, attributes: Sequence[tuple[str, str]]) -> list[int]:
    aliases = context.params.get("input_output_aliases") or ()
    pairs = dict(aliases).items()
    is_single = len(context.out_shapes) == 1
    text = ", ".join(f"{{{'' if is_single else output}}}: ({operand}, {{}})" for operand, output in pairs)
    aliasing = [("output_to_operand_aliasing", f"{{{text}}}")] if text else []
    return context.emit("custom-call", [("custom_call_target", quoted(target)), *attributes, *aliasing])


SIMPLE_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME_OPERANDS, _elementwise),
    **dict.fromkeys(_COMPARISONS, _compare),
    **dict.fromkeys(("eq_to", "le_to", "lt_to"), _compare),
    **dict.fromkeys(("name", "stop_gradient", "sharding_constraint", "random_wrap", "random_unwrap"), _alias),
    "approx_top_k": _approx_top_k,
    "broadcast_in_dim": _broadcast_in_dim,
    "cholesky": _cholesky,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _convert,
    "device_put": _device_put,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": lambda context: context.emit("dynamic-update-slice"),
    "expand_dims": _reshape,
    "ffi_call": _ffi_call,
    "fft": _fft,
    "gather": _gather,
    "integer_pow": _integer_pow,
    "iota": _iota,
    "optimization_barrier": _optimization_barrier,
    "pad": _pad,
    "pallas_call": _pallas_call,
    "ragged_dot_general": _ragged_dot_general,
    "scaled_matmul_wrapper": _scaled_matmul,
    "reduce_precision": _reduce_precision,
    "reshape": _reshape,
    "rev": _reverse,
    "rng_bit_generator": _rng_bit_generator,
    "rng_uniform": _rng_uniform,
    "round": _round,
    "select_n": _select_n,
    "slice": _slice,
    "square": _square,
    "squeeze": _reshape,
    "top_k": _top_k,
    "transpose": _transpose,
    "triangular_solve": _triangular_solve,
}
