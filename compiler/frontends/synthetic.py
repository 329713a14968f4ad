"""Modules of any size that look as if the TPU compiler had written them, for benchmarks and tests.

The program is a training step of a transformer: a loop over a stacked prefix, layers forward, the loss, layers backward
with the update of each weight in place. Like a real scheduled module it has about three instructions within fusions
for one in the entry computation, tiled layouts, prefetches of weights (some sliced), evictions, `estimated_cycles`,
scoped memory and metadata. It is text of the grammar only: no compiler produced it, and its cycles are a roofline's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

TOKENS, WIDTH, HIDDEN, HEADS, SEQUENCE = 4096, 768, 3072, 12, 512

# A TPU v5e, roughly: bytes per cycle to HBM, and flops per cycle of bf16 (see the target's file for the sources).
_BYTES_PER_CYCLE, _FLOPS_PER_CYCLE = 400, 131_072

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


@dataclass
class _Writer:
    """A module that is being written.

    Attributes:
      bodies: texts of the computations before the entry.
      entry: lines of the entry computation.
      parameters: `(name, shape)` of the entry's parameters, by number.
      aliases: parameter number per number of the result whose memory it shares.
      count: instructions so far, in all computations.
    """

    seed: int
    bodies: list[str] = field(default_factory=list)
    entry: list[str] = field(default_factory=list)
    parameters: list[tuple[str, str]] = field(default_factory=list)
    aliases: dict[int, int] = field(default_factory=dict)
    results: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    names: dict[str, int] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def name(self, base: str) -> str:
        number = self.names.get(base, 0)
        self.names[base] = number + 1
        return f"%{base}.{number}"

    def add(self, base: str, shape: str, opcode: str, operands: Sequence[str], attributes: str = "") -> str:
        """Adds an instruction to the entry computation; returns its name."""
        name = self.name(base)
        self.entry.append(f"{name} = {shape} {opcode}({_marked(operands)}){attributes}")
        self.count += 1
        return name

    def parameter(self, base: str, shape: str) -> str:
        name = self.name(base)
        self.entry.append(f'{name} = {shape} parameter({len(self.parameters)}), metadata={{op_name="{name[1:]}"}}')
        self.parameters.append((name, shape))
        self.count += 1
        return name

    def body(self, parameters: Sequence[str], lines: Sequence[tuple[str, str]]) -> str:
        """Adds a computation of parameters with given shapes and `(shape, operation)` lines; returns its name.

        In an operation, `p0`, `p1`, … stand for the parameters and `v0`, `v1`, … for the lines.
        """
        name = self.name("fused_computation")
        identity = name.rpartition(".")[2]
        written = [f"%p{i}.{identity} = {shape} parameter({i})" for i, shape in enumerate(parameters)]
        for i, (shape, operation) in enumerate(lines):
            opcode, _, rest = operation.partition("(")
            inside, _, attributes = rest.partition(")")
            operands = ", ".join(f"%{operand.strip()}.{identity}" for operand in inside.split(",") if operand)
            if opcode == "constant":
                operands = inside
            written.append(f"%v{i}.{identity} = {shape} {opcode}({operands}){attributes}")
        written[-1] = "ROOT " + written[-1]
        signature = ", ".join(f"p{i}.{identity}: {_plain(shape)}" for i, shape in enumerate(parameters))
        header = f"{name} ({signature}) -> {_plain(lines[-1][0])} {{"
        self.bodies.append("\n".join([header, *("  " + line for line in written), "}"]))
        self.count += len(written)
        return name

    def fusion(
        self, shape: str, operands: Sequence[tuple[str, str]], lines: Sequence[tuple[str, str]], what: str, flops: int
    ) -> str:
        """Adds a fusion over `(name, shape)` operands; returns its name."""
        body = self.body([operand_shape for _, operand_shape in operands], lines)
        touched = sum(_bytes(operand_shape) for _, operand_shape in operands) + _bytes(shape)
        cycles = max(touched / _BYTES_PER_CYCLE, flops / _FLOPS_PER_CYCLE) * self.random.uniform(1.0, 1.4) + 500
        kind = "kOutput" if flops else "kLoop"
        attributes = f', kind={kind}, calls={body}, metadata={{op_name="jit(step)/{what}" stack_frame_id=1}}'
        return self.add("fusion", shape, "fusion", [n for n, _ in operands], attributes + self.config(int(cycles)))

    def config(self, cycles: int) -> str:
        scoped = self.random.choice((0, 262_144, 1_048_576, 4_194_304))
        return (
            ', backend_config={"flag_configs":[],"window_config":{"kernel_window_bounds":["1","96","6"],'
            '"output_window_bounds":["8","96","1"],"input_window_bounds":["8","16","6"],'
            f'"estimated_cycles":"{cycles}","iteration_bounds":["1","4","1"],'
            '"cost_model_type":"COST_MODEL_TYPE_CLASSIC","ml_estimated_microseconds":0,"is_mask":false,'
            '"estimated_vmem_bytes":"0","buffering_level":"2","output_reverse_dimensions":[]},'
            '"scoped_memory_configs":[],"used_scoped_memory_configs":'
            f'[{{"memory_space":"1","offset":"0","size":"{scoped}"}}],'
            '"retry_config":{"retry_count":"0"},"aliasing_operands":{"lists":[]}}'
        )

    def prefetch(self, name: str, shape: str) -> tuple[str, str]:
        """Copies an array to fast memory in one asynchronous copy; returns the copy's name and shape."""
        fast = _fast(shape)
        started = self.add("copy-start", f"({fast}, {shape}, u32[]{{:S(2)}})", "copy-start", [name], _DMA)
        return self.add("copy-done", fast, "copy-done", [started], _DMA), fast

    def sliced_prefetch(self, name: str, rows: int, columns: int) -> tuple[str, str]:
        """Copies a matrix to fast memory in two slices along its rows."""
        whole, half = _matrix(rows, columns), _matrix(rows // 2, columns)
        started = []
        for begin in (0, rows // 2):
            bounds = f", slice={{[{begin}:{begin + rows // 2}], [0:{columns}]}}"
            shape = f"(({whole}), {_fast(half)}, s32[]{{:S(2)}})"
            started.append(self.add("slice-start", shape, "slice-start", [name], bounds + _DMA))
        slices = [self.add("slice-done", _fast(half), "slice-done", [start], _DMA) for start in started]
        target = ', custom_call_target="ConcatBitcast", backend_config={"flag_configs":[]}'
        return self.add("custom-call", _fast(whole), "custom-call", slices, target), _fast(whole)

    def text(self) -> str:
        """Returns the module; its result is the tuple of `results`, or the last instruction if there are none."""
        if self.results:
            shape = f"({_marked([shape for _, shape in self.results])})"
            self.add("result", shape, "tuple", [name for name, _ in self.results])
        else:
            shape = self.entry[-1].split(" = ")[1].split(" ")[0]
        arguments = _marked([shape for _, shape in self.parameters])
        header = ["HloModule jit_step", "is_scheduled=true"]
        if self.aliases:
            pairs = [f"{{{output}}}: ({number}, {{}}, may-alias)" for output, number in sorted(self.aliases.items())]
            header.append(f"input_output_alias={{ {', '.join(pairs)} }}")
        header.append(f"entry_computation_layout={{({arguments})->{shape}}}")
        signature = ", ".join(f"{name[1:]}: {_plain(shape)}" for name, shape in self.parameters)
        lines = [f"ENTRY %main ({signature}) -> {_plain(shape)} {{", *("  " + line for line in self.entry), "}"]
        lines[-2] = lines[-2].replace("  ", "  ROOT ", 1)
        return "\n\n".join([", ".join(header), _TABLES, *self.bodies, "\n".join(lines)]) + "\n\n"


_DMA = ', backend_config={"flag_configs":[],"scoped_memory_configs":[],"used_scoped_memory_configs":[],"dma_priority":1}'
_TABLES = """FileNames
1 "model.py"

FunctionNames
1 "step"

FileLocations
1 {file_name_id=1 function_name_id=1 line=42 end_line=42 column=10 end_column=73}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
"""


def _marked(parts: Sequence[str]) -> str:
    """Joins parts; every fifth is marked with its number, as XLA does."""
    return ", ".join(f"/*index={i}*/{part}" if i and i % 5 == 0 else part for i, part in enumerate(parts))


def _matrix(rows: int, columns: int) -> str:
    return f"bf16[{rows},{columns}]{{1,0:T(8,128)(2,1)}}"


def _fast(shape: str) -> str:
    """Returns an array's shape in memory space 1."""
    return shape[:-1] + "S(1)}"


def _plain(shape: str) -> str:
    """Returns a shape without its layouts."""
    parts = [part.partition("}")[2] if i else part for i, part in enumerate(shape.split("{"))]
    return "".join(parts)


def _bytes(shape: str) -> int:
    """Returns the bytes of an array, or of a flat tuple, without padding: enough for an estimate."""
    total = 0
    for array in shape.strip("()").split(", "):
        dtype, _, rest = array.partition("[")
        size = 4 if "32" in dtype else 2
        for dim in rest.partition("]")[0].split(","):
            size *= int(dim or 1)
        total += size
    return total


def _in_f32(shape: str) -> str:
    return shape.replace("bf16", "f32").replace("(8,128)(2,1)", "(8,128)").replace("S(1)", "")


def _chain(num_instructions: int, seed: int) -> _Writer:
    """A parameter, and elementwise instructions after it."""
    writer = _Writer(seed)
    value = writer.parameter("x", _FILLER)
    for _ in range(num_instructions - 1):
        value = _filler(writer, value)
    return writer


def _filler(writer: _Writer, value: str) -> str:
    cycles = 2 * _bytes(_FILLER) // _BYTES_PER_CYCLE
    return writer.add("add", _FILLER, "add", [value, value], writer.config(cycles))


def _training_step(layers: int, fillers: int, seed: int) -> _Writer:
    """The step with so many layers, and so many instructions more."""
    writer = _Writer(seed)
    x = writer.parameter("x", _ACTIVATION)
    stack = writer.parameter("stack", _STACK)
    weights = []
    for layer in range(layers):
        weights.append([writer.parameter(f"{name}_{layer}", _matrix(*size)) for name, size in _WEIGHTS])
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
            (_in_f32(_ACTIVATION), "convert(p0)"),
            (_in_f32(_ACTIVATION), "broadcast(p1), dimensions={}"),
            (_in_f32(_ACTIVATION), "multiply(v0, v1)"),
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
            writer.results.append((name, _matrix(*_WEIGHTS[k][1])))
    value = writer.add("iota", _FILLER, "iota", [], ", iota_dimension=1")
    for _ in range(fillers):
        value = _filler(writer, value)
    writer.results += [(loss, _LOSS), (value, _FILLER)]
    writer.count += 1  # the result's tuple
    return writer


_SUM = "%add_f32"
_REDUCTION_TO_SCALAR = [
    (_in_f32(_ACTIVATION), "convert(p0)"),
    (_in_f32(_ACTIVATION), "multiply(v0, v0)"),
    (_LOSS, "constant(0)"),
    (_LOSS, f"reduce(v1, v2), dimensions={{0,1}}, to_apply={_SUM}"),
]


def _loop(writer: _Writer, x: str, stack: str) -> str:
    """A loop over the stacked weights: slices one, multiplies by it."""
    writer.bodies.append(
        f"{_SUM} (a: f32[], b: f32[]) -> f32[] {{\n"
        f"  %a = {_LOSS} parameter(0)\n  %b = {_LOSS} parameter(1)\n  ROOT %sum = {_LOSS} add(%a, %b)\n}}"
    )
    index = "s32[]{:T(128)}"
    weight = _fast(_matrix(WIDTH, WIDTH))
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
    slice_cycles = writer.config(_bytes(weight) // _BYTES_PER_CYCLE)
    product_cycles = writer.config(2 * TOKENS * WIDTH * WIDTH // _FLOPS_PER_CYCLE)
    writer.bodies.append(
        "\n".join(
            [
                f"%loop_body (carried: {_plain(carried)}) -> {_plain(carried)} {{",
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
                f"%loop_condition (carried.1: {_plain(carried)}) -> pred[] {{",
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
        (_in_f32(result), "convolution(p0, p1), dim_labels=bf_io->bf"),
        (_in_f32(result), "add(v0, v0)"),
        *extra,
        (result, f"convert(v{1 + len(extra)})"),
    ]


def _forward(writer: _Writer, x: str, weights: Sequence[str]) -> tuple[str, list[str]]:
    """One layer; returns its result, and the activations that its backward pass reads."""
    wide = _in_f32(_ACTIVATION)
    fetched = []
    for k, (name, (_, size)) in enumerate(zip(weights, _WEIGHTS, strict=True)):
        fetched.append(writer.prefetch(name, _matrix(*size)) if k % 3 else writer.sliced_prefetch(name, *size))
    scale = writer.fusion(
        _fast(_ROWS),
        [(x, _ACTIVATION)],
        [
            (wide, "convert(p0)"),
            (wide, "multiply(v0, v0)"),
            (_LOSS, "constant(0)"),
            (_ROWS, f"reduce(v1, v2), dimensions={{1}}, to_apply={_SUM}"),
            (_fast(_ROWS), "rsqrt(v3)"),
        ],
        "norm",
        0,
    )
    normal = writer.fusion(
        _fast(_ACTIVATION),
        [(x, _ACTIVATION), (scale, _fast(_ROWS))],
        [
            (wide, "convert(p0)"),
            (wide, "broadcast(p1), dimensions={0}"),
            (wide, "multiply(v0, v1)"),
            (_fast(_ACTIVATION), "convert(v2)"),
        ],
        "norm",
        0,
    )
    flops = 2 * TOKENS * WIDTH * WIDTH
    heads = []
    for k in range(3):
        shape = _ACTIVATION if k == 0 else _fast(_ACTIVATION)
        operands = [(normal, _fast(_ACTIVATION)), fetched[k]]
        projected = writer.fusion(shape, operands, _product(_ACTIVATION, shape), "project", flops)
        heads.append(writer.add("bitcast", _HEADS if k == 0 else _fast(_HEADS), "bitcast", [projected]))
    pair = f"({_ROW_SUMS}, {_SCORES})"
    attention_flops = 2 * TOKENS * SEQUENCE * WIDTH
    big, full = _in_f32(_SCORES), _in_f32(_SCORES)
    scores = writer.fusion(
        pair,
        [(heads[0], _HEADS), (heads[1], _fast(_HEADS))],
        [
            (big, "dot(p0, p1), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, "
             "rhs_contracting_dims={2}"),
            (full, "exponential(v0)"),
            (_LOSS, "constant(0)"),
            (_ROW_SUMS, f"reduce(v1, v2), dimensions={{2}}, to_apply={_SUM}"),
            (_SCORES, "convert(v1)"),
            (pair, "tuple(v3, v4)"),
        ],
        "attend",
        attention_flops,
    )  # fmt: skip
    sums = writer.add("get-tuple-element", _ROW_SUMS, "get-tuple-element", [scores], ", index=0")
    table = writer.add("get-tuple-element", _SCORES, "get-tuple-element", [scores], ", index=1")
    mixed = writer.fusion(
        _fast(_HEADS),
        [(table, _SCORES), (heads[2], _fast(_HEADS)), (sums, _ROW_SUMS)],
        [
            (_in_f32(_HEADS), "dot(p0, p1), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, "
             "rhs_contracting_dims={1}"),
            (_in_f32(_HEADS), "broadcast(p2), dimensions={0,1}"),
            (_in_f32(_HEADS), "divide(v0, v1)"),
            (_fast(_HEADS), "convert(v2)"),
        ],
        "attend",
        attention_flops,
    )  # fmt: skip
    joined = writer.add("bitcast", _fast(_ACTIVATION), "bitcast", [mixed])
    residual = [(wide, "convert(p2)"), (wide, "add(v1, v2)")]
    attended = writer.fusion(
        _ACTIVATION,
        [(joined, _fast(_ACTIVATION)), fetched[3], (x, _ACTIVATION)],
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
                (_in_f32(_WIDE), "multiply(v1, v1)"),
                (_in_f32(_WIDE), "tanh(v2)"),
                (_in_f32(_WIDE), "multiply(v3, v1)"),
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


def _backward(
    writer: _Writer, gradient: str, weights: Sequence[str], saved: Sequence[str]
) -> tuple[str, list[str]]:
    """Returns the gradient of a layer's input, and its updated weights."""
    x, attended, up = saved
    down_weight = writer.prefetch(weights[5], _matrix(HIDDEN, WIDTH))
    flops = 2 * TOKENS * WIDTH * HIDDEN
    of_up = writer.fusion(
        _WIDE,
        [(gradient, _ACTIVATION), down_weight, (up, _WIDE)],
        [
            (_in_f32(_WIDE), "convolution(p0, p1), dim_labels=bf_oi->bf"),
            (_in_f32(_WIDE), "convert(p2)"),
            (_in_f32(_WIDE), "tanh(v1)"),
            (_in_f32(_WIDE), "multiply(v2, v0)"),
            (_WIDE, "convert(v3)"),
        ],
        "transpose(jvp())/down",
        flops,
    )
    up_weight = writer.prefetch(weights[4], _matrix(WIDTH, HIDDEN))
    of_attended = writer.fusion(
        _fast(_ACTIVATION),
        [(of_up, _WIDE), up_weight, (gradient, _ACTIVATION)],
        [
            (_in_f32(_ACTIVATION), "convolution(p0, p1), dim_labels=bf_oi->bf"),
            (_in_f32(_ACTIVATION), "convert(p2)"),
            (_in_f32(_ACTIVATION), "add(v0, v1)"),
            (_fast(_ACTIVATION), "convert(v2)"),
        ],
        "transpose(jvp())/up",
        flops,
    )
    output_weight = writer.prefetch(weights[3], _matrix(WIDTH, WIDTH))
    of_x = writer.fusion(
        _ACTIVATION,
        [(of_attended, _fast(_ACTIVATION)), output_weight, (x, _ACTIVATION)],
        [
            (_in_f32(_ACTIVATION), "convolution(p0, p1), dim_labels=bf_oi->bf"),
            (_in_f32(_ACTIVATION), "convert(p2)"),
            (_in_f32(_ACTIVATION), "multiply(v0, v1)"),
            (_ACTIVATION, "convert(v2)"),
        ],
        "transpose(jvp())/attend",
        2 * TOKENS * WIDTH * WIDTH,
    )
    updated = []
    pairs = [(x, _ACTIVATION, of_attended, _fast(_ACTIVATION))] * 4
    pairs += [(attended, _ACTIVATION, of_up, _WIDE), (up, _WIDE, gradient, _ACTIVATION)]
    for weight, (_, size), (left, left_shape, right, right_shape) in zip(weights, _WEIGHTS, pairs, strict=True):
        shape = _matrix(*size)
        lines = [
            (_in_f32(shape), "convolution(p0, p1), dim_labels=fb_io->bf"),
            (_LOSS, "constant(0.001)"),
            (_in_f32(shape), "broadcast(v1), dimensions={}"),
            (_in_f32(shape), "multiply(v0, v2)"),
            (_in_f32(shape), "convert(p2)"),
            (_in_f32(shape), "subtract(v4, v3)"),
            (shape, "convert(v5)"),
        ]
        operands = [(left, left_shape), (right, right_shape), (weight, shape)]
        updated.append(writer.fusion(shape, operands, lines, "update", 2 * TOKENS * size[0] * size[1]))
    return of_x, updated
