"""Modules of any size that look as if the TPU compiler had written them, for benchmarks and tests.

The program is a training step of a transformer: a loop over a stacked prefix, layers forward, the loss, layers backward
with the update of each weight in place. Like a real scheduled module it has about three instructions within fusions
for one in the entry computation, tiled layouts, prefetches of weights (some sliced), evictions, `estimated_cycles`,
scoped memory and metadata. It is text of the grammar only: no compiler produced it, and its cycles are a roofline's.
"""

from __future__ import annotations

from collections.abc import Sequence

from memplan.compiler.frontends.synthetic_writer import (
    BYTES_PER_CYCLE,
    FLOPS_PER_CYCLE,
    ModuleWriter,
    bytes_of,
    fast,
    in_f32,
    matrix,
    plain,
)

TOKENS, WIDTH, HIDDEN, HEADS, SEQUENCE = 4096, 768, 3072, 12, 512

_ACTIVATION = f"bf16[{TOKENS},{WIDTH}]{{1,0:T(8,128)(2,1)}}"
_WIDE = f"bf16[{TOKENS},{HIDDEN}]{{1,0:T(8,128)(2,1)}}"
_ROWS = f"f32[{TOKENS}]{{0:T(1024)}}"
_HEADS = f"bf16[{TOKENS // SEQUENCE * HEADS},{SEQUENCE},{WIDTH // HEADS}]{{2,1,0:T(8,128)(2,1)}}"
_SCORES = f"bf16[{TOKENS // SEQUENCE * HEADS},{SEQUENCE},{SEQUENCE}]{{2,1,0:T(8,128)(2,1)}}"
_ROW_SUMS = f"f32[{TOKENS // SEQUENCE * HEADS},{SEQUENCE}]{{1,0:T(8,128)}}"
_LOSS = "f32[]{:T(128)}"
_FILLER = "f32[256,1024]{1,0:T(8,128)}"
_STEPS = 16
_STACK = f"bf16[{_STEPS},{WIDTH},{WIDTH}]{{2,1,0:T(8,128)(2,1)}}"

_WEIGHTS: tuple[tuple[str, tuple[int, int]], ...] = (
    ("wq", (WIDTH, WIDTH)), ("wk", (WIDTH, WIDTH)), ("wv", (WIDTH, WIDTH)), ("wo", (WIDTH, WIDTH)),
    ("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH)),
)  # fmt: skip


def synthetic_hlo(num_instructions: int, seed: int = 0) -> str:
    """Returns the text of a scheduled module with exactly `num_instructions` instructions, bodies included.

    Equal arguments give equal text. Raises ValueError if `num_instructions` is less than 1.

    >>> from memplan.compiler.frontends import parse_hlo
    >>> sum(1 for _ in parse_hlo(synthetic_hlo(1000)).instructions())
    1000
    """
    if num_instructions < 1:
        raise ValueError(f"a module has at least 1 instruction, not {num_instructions}")
    empty, one = _training_step(0, 0, seed).count, _training_step(1, 0, seed).count
    if num_instructions < empty:
        return _chain(num_instructions, seed).text()
    layers, rest = divmod(num_instructions - empty, one - empty)
    return _training_step(layers, rest, seed).text()


def _chain(num_instructions: int, seed: int) -> ModuleWriter:
    """A parameter, and elementwise instructions after it."""
    writer = ModuleWriter(seed)
    value = writer.parameter("x", _FILLER)
    for _ in range(num_instructions - 1):
        value = _filler(writer, value)
    return writer


def _filler(writer: ModuleWriter, value: str) -> str:
    cycles = 2 * bytes_of(_FILLER) // BYTES_PER_CYCLE
    return writer.add("add", _FILLER, "add", [value, value], writer.config(cycles))


def _training_step(layers: int, fillers: int, seed: int) -> ModuleWriter:
    """The step with so many layers, and so many instructions more."""
    writer = ModuleWriter(seed)
    x = writer.parameter("x", _ACTIVATION)
    stack = writer.parameter("stack", _STACK)
    weights = []
    for layer in range(layers):
        weights.append([writer.parameter(f"{name}_{layer}", matrix(*size)) for name, size in _WEIGHTS])
    x = _loop(writer, x, stack)
    saved = []
    for layer in range(layers):
        x, kept = _forward(writer, x, weights[layer])
        saved.append(kept)
    loss = writer.fusion(_LOSS, [(x, _ACTIVATION)], _REDUCTION_TO_SCALAR, "loss", 0)
    gradient = writer.fusion(
        _ACTIVATION,
        [(x, _ACTIVATION), (loss, _LOSS)],
        [
            (in_f32(_ACTIVATION), "convert(p0)"),
            (in_f32(_ACTIVATION), "broadcast(p1), dimensions={}"),
            (in_f32(_ACTIVATION), "multiply(v0, v1)"),
            (_ACTIVATION, "convert(v2)"),
        ],
        "loss_gradient",
        0,
    )
    for layer in reversed(range(layers)):
        gradient, updated = _backward(writer, gradient, weights[layer], saved[layer])
        for k, name in enumerate(updated):
            number = 2 + layer * len(_WEIGHTS) + k
            writer.aliases[len(writer.results)] = number
            writer.results.append((name, matrix(*_WEIGHTS[k][1])))
    value = writer.add("iota", _FILLER, "iota", [], ", iota_dimension=1")
    for _ in range(fillers):
        value = _filler(writer, value)
    writer.results += [(loss, _LOSS), (value, _FILLER)]
    writer.count += 1  # the result's tuple
    return writer


_SUM = "%add_f32"
_REDUCTION_TO_SCALAR = [
    (in_f32(_ACTIVATION), "convert(p0)"),
    (in_f32(_ACTIVATION), "multiply(v0, v0)"),
    (_LOSS, "constant(0)"),
    (_LOSS, f"reduce(v1, v2), dimensions={{0,1}}, to_apply={_SUM}"),
]


def _loop(writer: ModuleWriter, x: str, stack: str) -> str:
    """A loop over the stacked weights: slices one, multiplies by it."""
    writer.bodies.append(
        f"{_SUM} (a: f32[], b: f32[]) -> f32[] {{\n"
        f"  %a = {_LOSS} parameter(0)\n  %b = {_LOSS} parameter(1)\n  ROOT %sum = {_LOSS} add(%a, %b)\n}}"
    )
    index = "s32[]{:T(128)}"
    weight = fast(matrix(WIDTH, WIDTH))
    slicing = writer.body(
        [_STACK, index],
        [
            (index, "constant(0)"),
            (f"bf16[1,{WIDTH},{WIDTH}]{{2,1,0:T(8,128)(2,1)}}",
             f"dynamic-slice(p0, p1, v0, v0), dynamic_slice_sizes={{1,{WIDTH},{WIDTH}}}"),
            (weight, "bitcast(v1)"),
        ],
    )  # fmt: skip
    product = writer.body([_ACTIVATION, weight], _product(_ACTIVATION, _ACTIVATION))
    carried = f"({index}, {_ACTIVATION}, {_STACK})"
    slice_cycles = writer.config(bytes_of(weight) // BYTES_PER_CYCLE)
    product_cycles = writer.config(2 * TOKENS * WIDTH * WIDTH // FLOPS_PER_CYCLE)
    writer.bodies.append(
        "\n".join(
            [
                f"%loop_body (carried: {plain(carried)}) -> {plain(carried)} {{",
                f"  %carried = {carried} parameter(0)",
                f"  %step = {index} get-tuple-element(%carried), index=0",
                f"  %value = {_ACTIVATION} get-tuple-element(%carried), index=1",
                f"  %weights = {_STACK} get-tuple-element(%carried), index=2",
                f"  %slice = {weight} fusion(%weights, %step), kind=kLoop, calls={slicing}{slice_cycles}",
                f"  %next = {_ACTIVATION} fusion(%value, %slice), kind=kOutput, calls={product}{product_cycles}",
                f"  %one = {index} constant(1)",
                f"  %next_step = {index} add(%step, %one)",
                f"  ROOT %all = {carried} tuple(%next_step, %next, %weights)",
                "}",
            ]
        )
    )
    writer.bodies.append(
        "\n".join(
            [
                f"%loop_condition (carried.1: {plain(carried)}) -> pred[] {{",
                f"  %carried.1 = {carried} parameter(0)",
                f"  %step.1 = {index} get-tuple-element(%carried.1), index=0",
                f"  %limit = {index} constant({_STEPS})",
                "  ROOT %less = pred[]{:T(512)} compare(%step.1, %limit), direction=LT",
                "}",
            ]
        )
    )
    writer.count += 3 + 9 + 4
    zero = writer.add("constant", index, "constant", ["0"])
    start = writer.add("tuple", carried, "tuple", [zero, x, stack])
    metadata = ', metadata={op_name="jit(step)/while" stack_frame_id=1}'
    loop = writer.add("while", carried, "while", [start], ", condition=%loop_condition, body=%loop_body" + metadata)
    return writer.add("get-tuple-element", _ACTIVATION, "get-tuple-element", [loop], ", index=1")


def _product(left: str, result: str, extra: Sequence[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """A matrix product of p0 and p1; `extra` goes on from v1, the product in f32."""
    return [
        (in_f32(result), "convolution(p0, p1), dim_labels=bf_io->bf"),
        (in_f32(result), "add(v0, v0)"),
        *extra,
        (result, f"convert(v{1 + len(extra)})"),
    ]


_BATCHED_DOT = "dot(p0, p1), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, "


def _forward(writer: ModuleWriter, x: str, weights: Sequence[str]) -> tuple[str, list[str]]:
    """One layer; returns its result, and the activations that its backward pass reads."""
    fetched = []
    for k, (name, (_, size)) in enumerate(zip(weights, _WEIGHTS, strict=True)):
        fetched.append(writer.prefetch(name, matrix(*size)) if k % 3 else writer.sliced_prefetch(name, *size))
    normal = _normalized(writer, x)
    flops = 2 * TOKENS * WIDTH * WIDTH
    heads = []
    for k in range(3):
        shape = _ACTIVATION if k == 0 else fast(_ACTIVATION)
        operands = [(normal, fast(_ACTIVATION)), fetched[k]]
        projected = writer.fusion(shape, operands, _product(_ACTIVATION, shape), "project", flops)
        heads.append(writer.add("bitcast", _HEADS if k == 0 else fast(_HEADS), "bitcast", [projected]))
    joined = _attention(writer, heads)
    residual = [(in_f32(_ACTIVATION), "convert(p2)"), (in_f32(_ACTIVATION), "add(v1, v2)")]
    attended = writer.fusion(
        _ACTIVATION,
        [(joined, fast(_ACTIVATION)), fetched[3], (x, _ACTIVATION)],
        _product(_ACTIVATION, _ACTIVATION, residual),
        "output",
        flops,
    )
    up = writer.fusion(
        _WIDE,
        [(attended, _ACTIVATION), fetched[4]],
        _product(
            _ACTIVATION,
            _WIDE,
            [
                (in_f32(_WIDE), "multiply(v1, v1)"),
                (in_f32(_WIDE), "tanh(v2)"),
                (in_f32(_WIDE), "multiply(v3, v1)"),
            ],
        ),
        "up",
        2 * TOKENS * WIDTH * HIDDEN,
    )
    down = writer.fusion(
        _ACTIVATION,
        [(up, _WIDE), fetched[5], (attended, _ACTIVATION)],
        _product(_WIDE, _ACTIVATION, residual),
        "down",
        2 * TOKENS * WIDTH * HIDDEN,
    )
    return down, [x, attended, up]


def _normalized(writer: ModuleWriter, x: str) -> str:
    """The activations divided by the norms of their rows, in fast memory."""
    wide = in_f32(_ACTIVATION)
    scale = writer.fusion(
        fast(_ROWS),
        [(x, _ACTIVATION)],
        [
            (wide, "convert(p0)"),
            (wide, "multiply(v0, v0)"),
            (_LOSS, "constant(0)"),
            (_ROWS, f"reduce(v1, v2), dimensions={{1}}, to_apply={_SUM}"),
            (fast(_ROWS), "rsqrt(v3)"),
        ],
        "norm",
        0,
    )
    return writer.fusion(
        fast(_ACTIVATION),
        [(x, _ACTIVATION), (scale, fast(_ROWS))],
        [
            (wide, "convert(p0)"),
            (wide, "broadcast(p1), dimensions={0}"),
            (wide, "multiply(v0, v1)"),
            (fast(_ACTIVATION), "convert(v2)"),
        ],
        "norm",
        0,
    )


def _attention(writer: ModuleWriter, heads: Sequence[str]) -> str:
    """Attention of queries, keys and values, in fast memory."""
    pair = f"({_ROW_SUMS}, {_SCORES})"
    attention_flops = 2 * TOKENS * SEQUENCE * WIDTH
    big = in_f32(_SCORES)
    scores = writer.fusion(
        pair,
        [(heads[0], _HEADS), (heads[1], fast(_HEADS))],
        [
            (big, _BATCHED_DOT + "rhs_contracting_dims={2}"),
            (big, "exponential(v0)"),
            (_LOSS, "constant(0)"),
            (_ROW_SUMS, f"reduce(v1, v2), dimensions={{2}}, to_apply={_SUM}"),
            (_SCORES, "convert(v1)"),
            (pair, "tuple(v3, v4)"),
        ],
        "attend",
        attention_flops,
    )
    sums = writer.add("get-tuple-element", _ROW_SUMS, "get-tuple-element", [scores], ", index=0")
    table = writer.add("get-tuple-element", _SCORES, "get-tuple-element", [scores], ", index=1")
    mixed = writer.fusion(
        fast(_HEADS),
        [(table, _SCORES), (heads[2], fast(_HEADS)), (sums, _ROW_SUMS)],
        [
            (in_f32(_HEADS), _BATCHED_DOT + "rhs_contracting_dims={1}"),
            (in_f32(_HEADS), "broadcast(p2), dimensions={0,1}"),
            (in_f32(_HEADS), "divide(v0, v1)"),
            (fast(_HEADS), "convert(v2)"),
        ],
        "attend",
        attention_flops,
    )
    return writer.add("bitcast", fast(_ACTIVATION), "bitcast", [mixed])


def _backward(
    writer: ModuleWriter, gradient: str, weights: Sequence[str], saved: Sequence[str]
) -> tuple[str, list[str]]:
    """Returns the gradient of a layer's input, and its updated weights."""
    x, attended, up = saved
    down_weight = writer.prefetch(weights[5], matrix(HIDDEN, WIDTH))
    flops = 2 * TOKENS * WIDTH * HIDDEN
    of_up = writer.fusion(
        _WIDE,
        [(gradient, _ACTIVATION), down_weight, (up, _WIDE)],
        [
            (in_f32(_WIDE), "convolution(p0, p1), dim_labels=bf_oi->bf"),
            (in_f32(_WIDE), "convert(p2)"),
            (in_f32(_WIDE), "tanh(v1)"),
            (in_f32(_WIDE), "multiply(v2, v0)"),
            (_WIDE, "convert(v3)"),
        ],
        "transpose(jvp())/down",
        flops,
    )
    up_weight = writer.prefetch(weights[4], matrix(WIDTH, HIDDEN))
    of_attended = writer.fusion(
        fast(_ACTIVATION),
        [(of_up, _WIDE), up_weight, (gradient, _ACTIVATION)],
        [
            (in_f32(_ACTIVATION), "convolution(p0, p1), dim_labels=bf_oi->bf"),
            (in_f32(_ACTIVATION), "convert(p2)"),
            (in_f32(_ACTIVATION), "add(v0, v1)"),
            (fast(_ACTIVATION), "convert(v2)"),
        ],
        "transpose(jvp())/up",
        flops,
    )
    output_weight = writer.prefetch(weights[3], matrix(WIDTH, WIDTH))
    of_x = writer.fusion(
        _ACTIVATION,
        [(of_attended, fast(_ACTIVATION)), output_weight, (x, _ACTIVATION)],
        [
            (in_f32(_ACTIVATION), "convolution(p0, p1), dim_labels=bf_oi->bf"),
            (in_f32(_ACTIVATION), "convert(p2)"),
            (in_f32(_ACTIVATION), "multiply(v0, v1)"),
            (_ACTIVATION, "convert(v2)"),
        ],
        "transpose(jvp())/attend",
        2 * TOKENS * WIDTH * WIDTH,
    )
    updated = []
    pairs = [(x, _ACTIVATION, of_attended, fast(_ACTIVATION))] * 4
    pairs += [(attended, _ACTIVATION, of_up, _WIDE), (up, _WIDE, gradient, _ACTIVATION)]
    for weight, (_, size), (left, left_shape, right, right_shape) in zip(weights, _WEIGHTS, pairs, strict=True):
        shape = matrix(*size)
        lines = [
            (in_f32(shape), "convolution(p0, p1), dim_labels=fb_io->bf"),
            (_LOSS, "constant(0.001)"),
            (in_f32(shape), "broadcast(v1), dimensions={}"),
            (in_f32(shape), "multiply(v0, v2)"),
            (in_f32(shape), "convert(p2)"),
            (in_f32(shape), "subtract(v4, v3)"),
            (shape, "convert(v5)"),
        ]
        operands = [(left, left_shape), (right, right_shape), (weight, shape)]
        updated.append(writer.fusion(shape, operands, lines, "update", 2 * TOKENS * size[0] * size[1]))
    return of_x, updated
