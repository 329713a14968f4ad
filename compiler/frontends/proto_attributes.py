"""The attributes of a HloInstructionProto (xla/service/hlo.proto), as the text that XLA prints after the operands.

Reading a proto thus gives the same Graph as reading the text of the same module, except that the attributes `origin`
and `statistics`, which only describe where values came from, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.proto_common import Attributes, escaped
from memplan.compiler.frontends.proto_shape import shape_from_proto
from memplan.compiler.frontends.proto_sharding import device_list_text, sharding_text
from memplan.compiler.frontends.protobuf import MalformedMessage, Message, integer, integers, string
from memplan.compiler.ir.shape import Shape, print_shape

_FFT_TYPES = ("FFT", "IFFT", "RFFT", "IRFFT")
_DISTRIBUTIONS = ("rng_invalid", "rng_uniform", "rng_normal")
_ALGORITHMS = ("rng_default", "rng_three_fry", "rng_philox")
_PRECISIONS = ("default", "high", "highest", "packed_nibble")
_DOT_ALGORITHMS = (
    "unset", "dot_any_f8_any_f8_f32", "dot_any_f8_any_f8_f32_fast_accum", "dot_f16_f16_f16", "dot_f16_f16_f32",
    "dot_bf16_bf16_bf16", "dot_bf16_bf16_f32", "dot_bf16_bf16_f32_x3", "dot_bf16_bf16_f32_x6", "dot_tf32_tf32_f32",
    "dot_tf32_tf32_f32_x3", "dot_f32_f32_f32", "dot_f64_f64_f64", "dot_bf16_bf16_f32_x9",
)  # fmt: skip
_TRANSPOSES = ("TRANSPOSE_INVALID", "NO_TRANSPOSE", "TRANSPOSE", "ADJOINT")
_SCHEDULES = ("SCHEDULE_NONE", "SCHEDULE_LATEST", "SCHEDULE_EARLIEST")
_PADDINGS = ("PADDING_INVALID", "PADDING_VALID", "PADDING_SAME")
_API_VERSIONS = (
    "API_VERSION_UNSPECIFIED", "API_VERSION_ORIGINAL", "API_VERSION_STATUS_RETURNING",
    "API_VERSION_STATUS_RETURNING_UNIFIED", "API_VERSION_TYPED_FFI",
)  # fmt: skip

_WITH_DIMENSIONS = frozenset(
    {
        "broadcast", "concatenate", "reduce", "reverse", "transpose", "sort", "map", "get-dimension-size",
        "set-dimension-size", "shuffle",
    }
)  # fmt: skip
_COLLECTIVES = frozenset(
    {
        "all-gather", "all-gather-start", "all-reduce", "all-reduce-start", "all-to-all", "collective-broadcast",
        "collective-reduce",
        "collective-permute", "collective-permute-start", "ragged-all-to-all", "reduce-scatter",
    }
)  # fmt: skip
_TO_APPLY = frozenset(
    {
        "call", "map", "reduce", "reduce-window", "scatter", "sort", "all-reduce", "all-reduce-start",
        "reduce-scatter", "collective-reduce", "topk", "scan",
    }
)  # fmt: skip


def attributes_of(message: Message, opcode: str, operand_shapes: Sequence[Shape], called: Sequence[str]) -> Attributes:
    """Returns the attributes that say what the instruction does, in XLA's order; raises MalformedMessage.

    Args:
      message: the HloInstructionProto.
      called: names of the computations that it calls, in the proto's order.
    """
    found: Attributes = []
    if opcode in _COLLECTIVES:
        found += _collective(message, opcode)
    elif opcode in _WITH_DIMENSIONS:
        found.append(("dimensions", _list(integers(message, 14))))
    if opcode in _SPECIFIC:
        found += _SPECIFIC[opcode](message, operand_shapes)
    return found + _calls(message, opcode, operand_shapes, called)


def _list(numbers: Sequence[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


def _name(names: Sequence[str], message: Message, number: int) -> str:
    index = integer(message, number)
    if not 0 <= index < len(names):
        raise MalformedMessage(f"field {number} has the value {index}, which is not known")
    return names[index]


def _true(message: Message, number: int, key: str) -> Attributes:
    return [(key, "true")] if integer(message, number) else []


def _collective(message: Message, opcode: str) -> Attributes:
    found: Attributes = []
    if integer(message, 26) > 0:
        found.append(("channel_id", str(integer(message, 26))))
    if opcode.startswith("collective-permute"):
        pairs = [f"{{{integer(p, 1)},{integer(p, 2)}}}" for p in protobuf.submessages(message, 52)]
        return [*found, ("source_target_pairs", "{" + ",".join(pairs) + "}")]
    found.append(("replica_groups", device_list_text(message)))
    found += _true(message, 56, "constrain_layout")
    if opcode.startswith(("all-gather", "all-to-all")) and 14 in message:
        found.append(("dimensions", _list(integers(message, 14))))
    found += _true(message, 71, "use_global_device_ids")
    if opcode == "reduce-scatter":
        found.append(("dimensions", _list(integers(message, 14))))
    return found


def _calls(message: Message, opcode: str, operand_shapes: Sequence[Shape], called: Sequence[str]) -> Attributes:
    names = [f"%{name}" for name in called]
    several = "{" + ", ".join(names) + "}"
    if not names:
        return []
    if opcode == "while" and len(names) == 2:
        return [("condition", names[1]), ("body", names[0])]
    if opcode == "select-and-scatter" and len(names) == 2:
        return [("select", names[0]), ("scatter", names[1])]
    if opcode == "conditional":
        if len(names) == 2 and operand_shapes and operand_shapes[0].dtype == "pred":
            return [("true_computation", names[0]), ("false_computation", names[1])]
        return [("branch_computations", several)]
    if opcode in _TO_APPLY:
        composite = _true(message, 89, "is_composite") if opcode == "call" else []
        return [("to_apply", names[0] if len(names) == 1 else several), *composite]
    if opcode == "custom-call":
        return [("called_computations", several)]
    return [("calls", names[0] if len(names) == 1 else several)]


def _window(message: Message) -> Attributes:
    dims = protobuf.submessages(protobuf.submessage(message, 15), 1)
    if not dims:
        return []

    def joined(numbers: Sequence[object]) -> str:
        return "x".join(map(str, numbers))

    sizes, strides = [integer(d, 1) for d in dims], [integer(d, 2) for d in dims]
    lows, highs = [integer(d, 3) for d in dims], [integer(d, 4) for d in dims]
    base, kernel = [integer(d, 6, 1) for d in dims], [integer(d, 5, 1) for d in dims]
    parts = [f"size={joined(sizes)}"]
    if any(stride != 1 for stride in strides):
        parts.append(f"stride={joined(strides)}")
    if any(lows) or any(highs):
        parts.append("pad=" + joined([f"{low}_{high}" for low, high in zip(lows, highs, strict=True)]))
    if any(dilation != 1 for dilation in base):
        parts.append(f"lhs_dilate={joined(base)}")
    if any(dilation != 1 for dilation in kernel):
        parts.append(f"rhs_dilate={joined(kernel)}")
    if any(integer(d, 7) for d in dims):
        parts.append("rhs_reversal=" + joined([int(bool(integer(d, 7))) for d in dims]))
    return [("window", "{" + " ".join(parts) + "}")]


def _dim_labels(message: Message) -> Attributes:
    if 16 not in message:
        return []
    numbers = protobuf.submessage(message, 16)

    def labels(letters: str, first: int, second: int, spatial: Sequence[int]) -> str:
        text = {first: letters[0], second: letters[1]}
        text.update({dim: str(i) for i, dim in enumerate(spatial)})
        if sorted(text) != list(range(len(spatial) + 2)):
            raise MalformedMessage("the dimension numbers of a convolution do not number its dimensions")
        return "".join(text[dim] for dim in range(len(text)))

    left = labels("bf", integer(numbers, 7), integer(numbers, 8), integers(numbers, 11))
    kernel = labels("io", integer(numbers, 3), integer(numbers, 4), integers(numbers, 6))
    output = labels("bf", integer(numbers, 9), integer(numbers, 10), integers(numbers, 12))
    return [("dim_labels", f"{left}_{kernel}->{output}")]


def _groups(message: Message) -> Attributes:
    found: Attributes = []
    for key, number in (("feature_group_count", 50), ("batch_group_count", 58)):
        if integer(message, number, 1) not in (0, 1):
            found.append((key, str(integer(message, number))))
    return found


def _precision(message: Message) -> Attributes:
    config = protobuf.submessage(message, 51)
    found: Attributes = []
    levels = integers(config, 1)
    if any(levels):
        names = [_PRECISIONS[level] if 0 <= level < len(_PRECISIONS) else str(level) for level in levels]
        found.append(("operand_precision", "{" + ",".join(names) + "}"))
    algorithm = integer(config, 2)
    if algorithm:
        known = 0 < algorithm < len(_DOT_ALGORITHMS)
        found.append(("algorithm", _DOT_ALGORITHMS[algorithm] if known else f"algorithm_{algorithm}"))
    return found


def _convolution(message: Message, _: Sequence[Shape]) -> Attributes:
    return _window(message) + _dim_labels(message) + _groups(message) + _precision(message)


def _dimension_lists(message: Message, fields: Sequence[tuple[str, int, bool]]) -> Attributes:
    """Returns `(key, list)` for `(key, field, whether it is printed when it is empty)`."""
    found: Attributes = []
    for key, number, always in fields:
        if (numbers := integers(message, number)) or always:
            found.append((key, _list(numbers)))
    return found


_DOT = (
    ("lhs_batch_dims", 3, False), ("lhs_contracting_dims", 1, True),
    ("rhs_batch_dims", 4, False), ("rhs_contracting_dims", 2, True),
)  # fmt: skip


def _dot(message: Message, _: Sequence[Shape]) -> Attributes:
    return _dimension_lists(protobuf.submessage(message, 30), _DOT) + _precision(message)


def _ragged_dot(message: Message, _: Sequence[Shape]) -> Attributes:
    numbers = protobuf.submessage(message, 90)
    found = _dimension_lists(protobuf.submessage(numbers, 1), _DOT)
    found += _dimension_lists(numbers, (("lhs_ragged_dims", 2, True), ("rhs_group_dims", 3, False)))
    return found + _precision(message)


def _gather(message: Message, _: Sequence[Shape]) -> Attributes:
    numbers = protobuf.submessage(message, 33)
    found = _dimension_lists(
        numbers,
        (
            ("offset_dims", 1, True), ("collapsed_slice_dims", 2, True), ("start_index_map", 3, True),
            ("operand_batching_dims", 5, False), ("start_indices_batching_dims", 6, False),
        ),
    )  # fmt: skip
    found.append(("index_vector_dim", str(integer(numbers, 4))))
    found.append(("slice_sizes", _list(integers(message, 34))))
    return found + _true(message, 67, "indices_are_sorted")


def _scatter(message: Message, _: Sequence[Shape]) -> Attributes:
    numbers = protobuf.submessage(message, 48)
    found = _dimension_lists(
        numbers,
        (
            ("update_window_dims", 1, True), ("inserted_window_dims", 2, True),
            ("scatter_dims_to_operand_dims", 3, True),
            ("input_batching_dims", 5, False), ("scatter_indices_batching_dims", 6, False),
        ),
    )  # fmt: skip
    found.append(("index_vector_dim", str(integer(numbers, 4))))
    return found + _true(message, 67, "indices_are_sorted") + _true(message, 69, "unique_indices")


def _slice(message: Message, _: Sequence[Shape]) -> Attributes:
    ranges = [(integer(s, 1), integer(s, 2), integer(s, 3)) for s in protobuf.submessages(message, 17)]
    # Strides are printed for all dimensions or for none.
    with_stride = any(stride != 1 for _, _, stride in ranges)
    parts = [f"[{start}:{limit}" + (f":{stride}]" if with_stride else "]") for start, limit, stride in ranges]
    return [("slice", "{" + ", ".join(parts) + "}")]


def _pad(message: Message, _: Sequence[Shape]) -> Attributes:
    dims = protobuf.submessages(protobuf.submessage(message, 21), 1)
    with_interior = any(integer(d, 3) for d in dims)
    parts = []
    for d in dims:
        parts.append(f"{integer(d, 1)}_{integer(d, 2)}" + (f"_{integer(d, 3)}" if with_interior else ""))
    return [("padding", "x".join(parts))]


def _compare(message: Message, operand_shapes: Sequence[Shape]) -> Attributes:
    found = [("direction", string(message, 63))]
    kind = string(message, 72)
    dtype = operand_shapes[0].dtype if operand_shapes else "f32"
    default = {"s": "SIGNED", "u": "UNSIGNED", "p": "UNSIGNED"}.get(dtype[0], "FLOAT")
    if kind not in ("", default):
        found.append(("type", kind))
    order = string(message, 102)  # newer versions say so what was a type before
    usual = "PARTIAL" if default == "FLOAT" else "TOTAL"
    return found if order in ("", usual) else [*found, ("order", order)]


def _fusion(message: Message, _: Sequence[Shape]) -> Attributes:
    return [("kind", string(message, 11)), *_output_aliasing(message)]


def _output_aliasing(message: Message) -> Attributes:
    pairs = []
    for pair in protobuf.submessages(message, 74):
        output, operand = _index(integers(pair, 1)), _index(integers(pair, 3))
        pairs.append(f"{output}: ({integer(pair, 2)}, {operand})")
    return [("output_to_operand_aliasing", "{" + ", ".join(pairs) + "}")] if pairs else []


def _index(numbers: Sequence[int]) -> str:
    return "{" + ", ".join(map(str, numbers)) + "}"


def _custom_call(message: Message, _: Sequence[Shape]) -> Attributes:
    found = _window(message) + _dim_labels(message) + _groups(message)
    found.append(("custom_call_target", escaped(protobuf.raw(message, 28))))
    if integer(message, 56):
        shapes = [print_shape(shape_from_proto(shape)) for shape in protobuf.raws(message, 57)]
        found.append(("operand_layout_constraints", "{" + ", ".join(shapes) + "}"))
    found += _true(message, 65, "custom_call_has_side_effect")
    found += _precision(message)
    if integer(message, 75):
        found.append(("padding_type", _name(_PADDINGS, message, 75)))
    found += _output_aliasing(message)
    if integer(message, 76):
        found.append(("schedule", _name(_SCHEDULES, message, 76)))
    if integer(message, 77) > 1:
        found.append(("api_version", _name(_API_VERSIONS, message, 77)))
    return found


def _channel(message: Message, _: Sequence[Shape]) -> Attributes:
    channel = [("channel_id", str(integer(message, 26)))] if integer(message, 26) > 0 else []
    return channel + _true(message, 47, "is_host_transfer")


def _batch_norm(message: Message, _: Sequence[Shape]) -> Attributes:
    return [("epsilon", f"{protobuf.fixed(message, 24, 'f'):.6g}"), ("feature_index", str(integer(message, 25)))]


def _triangular_solve(message: Message, _: Sequence[Shape]) -> Attributes:
    options = protobuf.submessage(message, 59)
    found = _true(options, 1, "left_side") + _true(options, 2, "lower") + _true(options, 3, "unit_diagonal")
    return [*found, ("transpose_a", _name(_TRANSPOSES, options, 4))] if integer(options, 4) else found


def _copy_start(message: Message, _: Sequence[Shape]) -> Attributes:
    return [("cross_program_prefetch_index", str(integer(message, 80)))] if 80 in message else []


def _outfeed(message: Message, _: Sequence[Shape]) -> Attributes:
    found: Attributes = []
    if 29 in message:
        found.append(("outfeed_shape", print_shape(shape_from_proto(protobuf.raw(message, 29)))))
    return [*found, ("outfeed_config", escaped(protobuf.raw(message, 22)))] if 22 in message else found


def _domain(message: Message, _: Sequence[Shape]) -> Attributes:
    # What XLA prints as the entry is the sharding on the user's side, which the proto calls the exit.
    entry, exit_ = (sharding_text(protobuf.submessage(message, number)) or "{}" for number in (55, 54))
    return [("domain", f'{{kind="sharding", entry={entry}, exit={exit_}}}')]


def _parameter(message: Message, _: Sequence[Shape]) -> Attributes:
    replicated = integers(protobuf.submessage(message, 61), 1)
    flags = ",".join("true" if flag else "false" for flag in replicated)
    return [("parameter_replication", f"{{{flags}}}")] if replicated else []


def _top_k(message: Message, _: Sequence[Shape]) -> Attributes:
    largest = "true" if integer(message, 85) else "false"
    return [("k", str(integer(message, 81))), ("largest", largest), *_true(message, 60, "is_stable")]


def _unary(message: Message, _: Sequence[Shape]) -> Attributes:
    accuracy = protobuf.submessage(message, 91)
    if 2 in accuracy:
        tolerance = protobuf.submessage(accuracy, 2)
        numbers = f"atol={protobuf.fixed(tolerance, 1, 'd'):g},rtol={protobuf.fixed(tolerance, 2, 'd'):g}"
        return [("result_accuracy", f"{{tolerance={{{numbers},ulps={integer(tolerance, 3)}}}}}")]
    return [("result_accuracy", "{mode=highest}")] if integer(accuracy, 1) == 1 else []


def _inferred(message: Message, _: Sequence[Shape]) -> Attributes:
    dims = integers(message, 14)
    return [("inferred_dimension", str(dims[0]))] if dims else []


_SPECIFIC: dict[str, Callable[[Message, Sequence[Shape]], Attributes]] = {
    "batch-norm-grad": _batch_norm,
    "batch-norm-inference": _batch_norm,
    "batch-norm-training": _batch_norm,
    "cholesky": lambda m, _: _true(protobuf.submessage(m, 62), 1, "lower"),
    "compare": _compare,
    "convolution": _convolution,
    "copy-start": _copy_start,
    "custom-call": _custom_call,
    "domain": _domain,
    "dot": _dot,
    "dynamic-slice": lambda m, _: [("dynamic_slice_sizes", _list(integers(m, 20)))],
    "fft": lambda m, _: [("fft_type", _name(_FFT_TYPES, m, 31)), ("fft_length", _list(integers(m, 32)))],
    "fusion": _fusion,
    "gather": _gather,
    "get-tuple-element": lambda m, _: [("index", str(integer(m, 13)))],
    "infeed": lambda m, _: [("infeed_config", escaped(protobuf.raw(m, 27)))] if 27 in m else [],
    "iota": lambda m, _: [("iota_dimension", str((integers(m, 14) or [0])[0]))],
    "outfeed": _outfeed,
    "pad": _pad,
    "parameter": _parameter,
    "ragged-dot": _ragged_dot,
    "recv": _channel,
    "recv-done": _channel,
    "reduce-precision": lambda m, _: [
        ("exponent_bits", str(integer(m, 18))),
        ("mantissa_bits", str(integer(m, 19))),
    ],
    "reduce-window": lambda m, _: _window(m),
    "reshape": _inferred,
    "rng": lambda m, _: [("distribution", _name(_DISTRIBUTIONS, m, 23))],
    "rng-bit-generator": lambda m, _: [("algorithm", _name(_ALGORITHMS, m, 70))],
    "rng-get-and-update-state": lambda m, _: [("delta", str(integer(m, 66)))],
    "scatter": _scatter,
    "select-and-scatter": lambda m, _: _window(m),
    "send": _channel,
    "send-done": _channel,
    "slice": _slice,
    "sort": lambda m, _: _true(m, 60, "is_stable"),
    "topk": _top_k,
    "triangular-solve": _triangular_solve,
    **dict.fromkeys(
        (
            "cbrt", "cosine", "erf", "exp2", "exponential", "exponential-minus-one", "log", "log2", "log-plus-one",
            "logistic", "rsqrt", "sine", "sqrt", "tan", "tanh",
        ),
        _unary,
    ),
}  # fmt: skip
