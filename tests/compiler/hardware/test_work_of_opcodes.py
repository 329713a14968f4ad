"""Our count of every opcode beside XLA's, instruction by instruction.

Each instruction of the tests' modules becomes a module of its own, which XLA's HloCostAnalysis counts too. Where the
two differ, `REASONS` says why; an opcode that is not there must agree.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import cache
from typing import Any

import jax
from sample_modules import ALL_TEXTS, readable_by_jaxlib, text_of

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.library_calls import call_target
from memplan.compiler.hardware.work import WorkCounter
from memplan.compiler.ir import Computation, Graph, Instruction
from memplan.compiler.ir.printer import print_graph

# Opcodes to why our count differs from XLA's.
REASONS = {
    "all-reduce-start": "XLA counts a tuple of results by its own rule, we count each element that is sent",
    "async-done": "XLA counts what was begun once more, in some versions",
    "async-update": "XLA counts what was begun once more, in some versions",
    "async-start": "what it begins differs for the reasons here",
    "batch-norm-grad": "XLA counts nothing, we count sums and products of each element",
    "batch-norm-inference": "XLA counts nothing, we count sums and products of each element",
    "batch-norm-training": "XLA counts nothing, we count sums and products of each element",
    "bitcast-convert": "XLA counts an operation for each element, but the bytes stay as they are",
    "call": "its instructions are executed, and counted, one by one",
    "conditional": "its instructions are executed, and counted, one by one",
    "custom-call": "XLA counts -1 for what it does not know, we know some libraries",
    "custom-call-start": "as a custom call",
    "fft": "XLA counts 8 n log2 n, we count 5 n log2 n, and half of it where one side is real",
    "fusion": "what its body holds differs for the reasons here",
    "ragged-dot": "XLA leaves out the rows of a group, or takes all groups for each row",
    "reduce-scatter": "XLA counts nothing, we count each element that is sent",
    "reduce-window": "windows that see a whole dimension share its result",
    "rng-bit-generator": "XLA counts a transcendental operation for each word, we count the rounds of the generator",
    "scan": "XLA counts one step, we count all",
    "sort": "XLA takes the logarithm of all elements, and one operation for the comparator",
    "topk": "XLA counts nothing, we count comparisons",
    "triangular-solve": "XLA counts the whole square, we count the triangle",
    "while": "its instructions are executed, and counted, one by one",
}
# Of complex numbers, a multiply-add is four real ones, and XLA counts one.
COMPLEX = 4

# What the modules of the tests do not hold. XLA takes the attributes, shapes and types as they are here.
MORE = """
HloModule more

add {
  x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT s = f32[] add(x, y)
}

step {
  c = f32[8] parameter(0)
  i = f32[8] parameter(1)
  s = f32[8] add(c, i)
  ROOT t = (f32[8], f32[8]) tuple(s, s)
}

wrapped {
  w = f32[64] parameter(0)
  ROOT e = f32[64] exponential(w)
}

ENTRY main {
  a = f8e4m3fn[64,128] parameter(0)
  b = f8e4m3fn[32,128] parameter(1)
  sa = f8e8m0fnu[64,4] parameter(2)
  sb = f8e8m0fnu[32,4] parameter(3)
  scaled = f32[64,32] scaled-dot(a, b, sa, sb), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  batches = bf16[3,16,32] parameter(4)
  others = bf16[3,24,32] parameter(5)
  scales = bf16[3,16,2] parameter(6)
  other_scales = bf16[3,24,2] parameter(7)
  scaled_batches = f32[3,16,24] scaled-dot(batches, others, scales, other_scales), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_contracting_dims={2}
  v = f32[64] parameter(8)
  images = s8[2,9,9,4,4] parameter(9)
  kernels = s8[3,3,4,4,8] parameter(10)
  spread = f32[256] all-gather(v), dimensions={0}, replica_groups={{0,1,2,3}}
  summed = f32[64] all-reduce(v), replica_groups={{0,1,2,3}}, to_apply=add
  scattered = f32[16] reduce-scatter(v), dimensions={0}, replica_groups={{0,1,2,3}}, to_apply=add
  begun = ((f32[64]), f32[64], u32[]) async-start(v), calls=wrapped
  done = f32[64] async-done(begun), calls=wrapped
  negated = ((f32[64]), f32[64], u32[]) negate-start(v)
  turned = f32[64] negate-done(negated)
  rows = f32[10,8] parameter(11)
  carry = f32[8] parameter(12)
  scanned = (f32[10,8], f32[8]) scan(rows, carry), dimensions={0}, num_carries=1, to_apply=step
  left = f32[64,9] parameter(13)
  right = f32[2,9,8] parameter(14)
  sizes = s32[2] parameter(15)
  ragged = f32[64,8] ragged-dot(left, right, sizes), lhs_contracting_dims={1}, rhs_contracting_dims={1}, lhs_ragged_dims={0}, rhs_group_dims={0}
  powers = f32[64] cosh(v)
  bits = u32[64] bitcast-convert(v)
  square = f32[5,5] parameter(16)
  factor = f32[5,5] cholesky(square), lower=true
  ROOT done_all = () tuple()
}
"""

# A module of a thousand instructions has most of them many times.
MOST_OF_ONE = 40


def alone(graph: Graph, computation: Computation, instruction: Instruction) -> Graph:
    """Returns a module of one instruction, whose operands are parameters."""
    shapes = [computation.instructions[operand].shape for operand in instruction.operands]
    parameters = [Instruction(f"p{k}", "parameter", shape, payload=str(k)) for k, shape in enumerate(shapes)]
    kept = tuple(pair for pair in instruction.attributes if pair[0] not in ("sharding", "backend_config"))
    operands = tuple(range(len(parameters)))
    only = replace(instruction, name="only", operands=operands, attributes=kept, control_predecessors=())
    computations: dict[str, Computation] = {}

    def take(name: str) -> None:
        for inner in graph.computations[name].instructions:
            for called in inner.called:
                take(called)
        computations.setdefault(name, graph.computations[name])

    for called in instruction.called:
        take(called)
    computations["alone"] = Computation("alone", (*parameters, only), len(parameters))
    return Graph("alone", computations, "alone")


@cache
def modules() -> dict[str, list[str]]:
    """Returns the text of each kind of instruction in the tests' modules, once, by opcode."""
    texts: dict[str, dict[str, None]] = defaultdict(dict)
    for text in (MORE, *map(text_of, readable_by_jaxlib(ALL_TEXTS))):
        graph = parse_hlo(text)
        for computation, instruction in graph.instructions():
            known = texts[instruction.opcode]
            if len(known) < MOST_OF_ONE and instruction.opcode != "parameter":
                known[print_graph(alone(graph, computation, instruction))] = None
    return {opcode: list(known) for opcode, known in texts.items() if known}


@cache
def counts(opcode: str) -> list[tuple[str, Instruction, tuple[float, float], tuple[float, float]]]:
    """Returns `(text, instruction, ours, XLA's)` for what XLA takes; counts are operations and transcendental ones."""
    from jaxlib import _hlo, _jax

    client = jax.devices("cpu")[0].client
    found = []
    for text in modules()[opcode]:
        try:
            module: Any = _hlo.hlo_module_from_text(text)
            theirs = _jax.hlo_module_cost_analysis(client, module)
        except (RuntimeError, ValueError):  # an opcode or attribute that is newer or older than this jaxlib
            continue
        graph = parse_hlo(text)
        instruction = graph.entry_computation.root_instruction
        work = WorkCounter(graph).of(graph.entry_computation, instruction)
        ours = work.total_flops, work.transcendentals
        found.append((text, instruction, ours, (theirs.get("flops", 0.0), theirs.get("transcendentals", 0.0))))
    return found


def agree(instruction: Instruction, ours: tuple[float, float], theirs: tuple[float, float]) -> bool:
    factor = COMPLEX if instruction.opcode in ("dot", "convolution") and instruction.shape.dtype[0] == "c" else 1
    # XLA's counts are integers.
    return abs(ours[0] - factor * theirs[0]) < 1.0 and ours[1] == theirs[1]


def test_agrees_with_xla() -> None:
    differ = [
        f"{opcode}: ours {ours}, XLA's {theirs}:\n{text}"
        for opcode in sorted(modules().keys() - REASONS.keys())
        for text, instruction, ours, theirs in counts(opcode)
        if not agree(instruction, ours, theirs)
    ]
    assert not differ, "\n".join(differ)


def test_every_reason_is_needed() -> None:
    differ = {op for op in REASONS if op in modules() and any(not agree(*found[1:]) for found in counts(op))}
    compared = {op for op in REASONS if op in modules() and counts(op)}
    # Fusions, and what they hold, differ in some versions of XLA only.
    assert compared - differ <= {
        "fusion", "async-done", "async-start", "async-update", "all-reduce-start", "reduce-window", "sort",
    }  # fmt: skip


def test_what_xla_counts_is_counted() -> None:
    """Whatever the reason, work is never counted as nothing."""
    flattened = {"call", "conditional", "while"}
    for opcode in sorted(modules().keys() - flattened - {"async-done", "async-update", "bitcast-convert"}):
        for text, instruction, ours, theirs in counts(opcode):
            if max(theirs) > 0:
                assert max(ours) > 0, (call_target(instruction), text)
