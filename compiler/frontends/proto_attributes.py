"""The attributes of a HloInstructionProto (xla/service/hlo.proto), as the text that XLA prints after the operands.

Reading a proto thus gives the same Graph as reading the text of the same module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memplan.compiler.frontends import proto_convolution as convolution
from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.proto_collective import COLLECTIVES, channel, collective
from memplan.compiler.frontends.proto_common import Attributes, number_list, true_attribute
from memplan.compiler.frontends.proto_literal import literal_with_shape
from memplan.compiler.frontends.proto_metadata import escaped
from memplan.compiler.frontends.proto_shape import shape_from_proto
from memplan.compiler.frontends.proto_sharding import sharding_text
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
    if opcode in COLLECTIVES:
        found += collective(message, opcode, operand_shapes)
    elif opcode in _WITH_DIMENSIONS:
        found.append(("dimensions", number_list(integers(message, 14))))
    if opcode in _SPECIFIC:
        found += _SPECIFIC[opcode](message, operand_shapes)
    return found + _calls(message, opcode, operand_shapes, called)


def _name(names: Sequence[str], message: Message, number: int) -> str:
    index = integer(message, number)
    if not 0 <= index < len(names):
        raise MalformedMessage(f"field {number} has the value {index}, which is not known")
    return names[index]


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
        composite = true_attribute(message, 89, "is_composite") if opcode == "call" else []
        return [("to_apply", names[0] if len(names) == 1 else several), *composite]
    if opcode == "custom-call":
        return [("called_computations", several)]
    return [("calls", names[0] if len(names) == 1 else several)]


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
    found = convolution.window(message) + convolution.dim_labels(message) + convolution.groups(message)
    return found + convolution.kind(message) + _precision(message) + convolution.sparsity(message)


def _dimension_lists(message: Message, fields: Sequence[tuple[str, int, bool]]) -> Attributes:
    """Returns `(key, list)` for `(key, field, whether it is printed when it is empty)`."""
    found: Attributes = []
    for key, number, always in fields:
        if (numbers := integers(message, number)) or always:
            found.append((key, number_list(numbers)))
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
    found.append(("slice_sizes", number_list(integers(message, 34))))
    return found + true_attribute(message, 67, "indices_are_sorted")


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
    return found + true_attribute(message, 67, "indices_are_sorted") + true_attribute(message, 69, "unique_indices")


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
    return [("kind", string(message, 11)), *output_aliasing(message)]


def output_aliasing(message: Message) -> Attributes:
    """Returns which parts of the result share the memory of operands."""
    pairs = []
    for pair in protobuf.submessages(message, 74):
        output, operand = _index(integers(pair, 1)), _index(integers(pair, 3))
        pairs.append(f"{output}: ({integer(pair, 2)}, {operand})")
    return [("output_to_operand_aliasing", "{" + ", ".join(pairs) + "}")] if pairs else []


def _index(numbers: Sequence[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


def _custom_call(message: Message, _: Sequence[Shape]) -> Attributes:
    found = convolution.window_even_if_empty(message) + convolution.dim_labels(message) + convolution.groups(message)
    found += _precision(message)
    if integer(message, 75):
        found.append(("padding_type", _name(_PADDINGS, message, 75)))
    found.append(("custom_call_target", escaped(protobuf.raw(message, 28))))
    if integer(message, 56):
        shapes = [print_shape(shape_from_proto(shape)) for shape in protobuf.raws(message, 57)]
        found.append(("operand_layout_constraints", "{" + ", ".join(shapes) + "}"))
    found += true_attribute(message, 65, "custom_call_has_side_effect")
    if 8 in message:
        found.append(("literal", literal_with_shape(protobuf.raw(message, 8))))
    found += output_aliasing(message)
    if integer(message, 76):
        found.append(("schedule", _name(_SCHEDULES, message, 76)))
    if integer(message, 77) > 1:
        found.append(("api_version", _name(_API_VERSIONS, message, 77)))
    return found


def _channel(message: Message, _: Sequence[Shape]) -> Attributes:
    return channel(message) + true_attribute(message, 47, "is_host_transfer")


def _scan(message: Message, _: Sequence[Shape]) -> Attributes:
    found = [("dimensions", number_list(integers(message, 14))), ("num_carries", str(integer(message, 95)))]
    found += true_attribute(message, 94, "is_reverse")
    if integer(message, 96):
        found.append(("is_associative", "true" if integer(message, 96) == 1 else "false"))
    return found


def _batch_norm(message: Message, _: Sequence[Shape]) -> Attributes:
    return [("epsilon", f"{protobuf.fixed(message, 24, 'f'):.6g}"), ("feature_index", str(integer(message, 25)))]


def _triangular_solve(message: Message, _: Sequence[Shape]) -> Attributes:
    options = protobuf.submessage(message, 59)
    found = (
        true_attribute(options, 1, "left_side")
        + true_attribute(options, 2, "lower")
        + true_attribute(options, 3, "unit_diagonal")
    )
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
    return [("k", str(integer(message, 81))), ("largest", largest), *true_attribute(message, 60, "is_stable")]


def _inferred(message: Message, _: Sequence[Shape]) -> Attributes:
    dims = integers(message, 14)
    return [("inferred_dimension", str(dims[0]))] if dims else []


_SPECIFIC: dict[str, Callable[[Message, Sequence[Shape]], Attributes]] = {
    "batch-norm-grad": _batch_norm,
    "batch-norm-inference": _batch_norm,
    "batch-norm-training": _batch_norm,
    "cholesky": lambda m, _: true_attribute(protobuf.submessage(m, 62), 1, "lower"),
    "compare": _compare,
    "convolution": _convolution,
    "copy-start": _copy_start,
    "custom-call": _custom_call,
    "domain": _domain,
    "dot": _dot,
    "dynamic-slice": lambda m, _: [("dynamic_slice_sizes", number_list(integers(m, 20)))],
    "fft": lambda m, _: [("fft_type", _name(_FFT_TYPES, m, 31)), ("fft_length", number_list(integers(m, 32)))],
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
    "reduce-window": lambda m, _: convolution.window(m),
    "reshape": _inferred,
    "rng": lambda m, _: [("distribution", _name(_DISTRIBUTIONS, m, 23))],
    "rng-bit-generator": lambda m, _: [("algorithm", _name(_ALGORITHMS, m, 70))],
    "rng-get-and-update-state": lambda m, _: [("delta", str(integer(m, 66)))],
    "scatter": _scatter,
    "scaled-dot": _dot,
    "scan": _scan,
    "select-and-scatter": lambda m, _: convolution.window(m),
    "send": _channel,
    "send-done": _channel,
    "slice": _slice,
    "sort": lambda m, _: true_attribute(m, 60, "is_stable"),
    "topk": _top_k,
    "triangular-solve": _triangular_solve,
}  # fmt: skip
