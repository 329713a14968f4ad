"""Writes the text of a scheduled TPU module instruction by instruction; `synthetic` decides which."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

# A TPU v5e, roughly: bytes per cycle to HBM, and flops per cycle of bf16 (see the target's file for the sources).
BYTES_PER_CYCLE, FLOPS_PER_CYCLE = 400, 131_072


@dataclass
class ModuleWriter:
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
        signature = ", ".join(f"p{i}.{identity}: {plain(shape)}" for i, shape in enumerate(parameters))
        header = f"{name} ({signature}) -> {plain(lines[-1][0])} {{"
        self.bodies.append("\n".join([header, *("  " + line for line in written), "}"]))
        self.count += len(written)
        return name

    def fusion(
        self, shape: str, operands: Sequence[tuple[str, str]], lines: Sequence[tuple[str, str]], what: str, flops: int
    ) -> str:
        """Adds a fusion over `(name, shape)` operands; returns its name."""
        body = self.body([operand_shape for _, operand_shape in operands], lines)
        touched = sum(bytes_of(operand_shape) for _, operand_shape in operands) + bytes_of(shape)
        cycles = max(touched / BYTES_PER_CYCLE, flops / FLOPS_PER_CYCLE) * self.random.uniform(1.0, 1.4) + 500
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
        copied = fast(shape)
        started = self.add("copy-start", f"({copied}, {shape}, u32[]{{:S(2)}})", "copy-start", [name], _DMA)
        return self.add("copy-done", copied, "copy-done", [started], _DMA), copied

    def sliced_prefetch(self, name: str, rows: int, columns: int) -> tuple[str, str]:
        """Copies a matrix to fast memory in two slices along its rows."""
        whole, half = matrix(rows, columns), matrix(rows // 2, columns)
        started = []
        for begin in (0, rows // 2):
            bounds = f", slice={{[{begin}:{begin + rows // 2}], [0:{columns}]}}"
            shape = f"(({whole}), {fast(half)}, s32[]{{:S(2)}})"
            started.append(self.add("slice-start", shape, "slice-start", [name], bounds + _DMA))
        slices = [self.add("slice-done", fast(half), "slice-done", [start], _DMA) for start in started]
        target = ', custom_call_target="ConcatBitcast", backend_config={"flag_configs":[]}'
        return self.add("custom-call", fast(whole), "custom-call", slices, target), fast(whole)

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
        signature = ", ".join(f"{name[1:]}: {plain(shape)}" for name, shape in self.parameters)
        lines = [f"ENTRY %main ({signature}) -> {plain(shape)} {{", *("  " + line for line in self.entry), "}"]
        lines[-2] = lines[-2].replace("  ", "  ROOT ", 1)
        return "\n\n".join([", ".join(header), _TABLES, *self.bodies, "\n".join(lines)]) + "\n\n"


_DMA = (
    ', backend_config={"flag_configs":[],"scoped_memory_configs":[],"used_scoped_memory_configs":[],"dma_priority":1}'
)
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


def matrix(rows: int, columns: int) -> str:
    return f"bf16[{rows},{columns}]{{1,0:T(8,128)(2,1)}}"


def fast(shape: str) -> str:
    """Returns an array's shape in memory space 1."""
    return shape[:-1] + "S(1)}"


def plain(shape: str) -> str:
    """Returns a shape without its layouts."""
    parts = [part.partition("}")[2] if i else part for i, part in enumerate(shape.split("{"))]
    return "".join(parts)


def bytes_of(shape: str) -> int:
    """Returns the bytes of an array, or of a flat tuple, without padding: enough for an estimate."""
    total = 0
    for array in shape.strip("()").split(", "):
        dtype, _, rest = array.partition("[")
        size = 4 if "32" in dtype else 2
        for dim in rest.partition("]")[0].split(","):
            size *= int(dim or 1)
        total += size
    return total


def in_f32(shape: str) -> str:
    return shape.replace("bf16", "f32").replace("(8,128)(2,1)", "(8,128)").replace("S(1)", "")
