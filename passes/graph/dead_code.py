"""The pass `dead_code`: instructions whose results nobody reads, and that do nothing else, are left out.

Needed instructions are marked in one sweep from the end (Aho, Lam, Sethi and Ullman, Compilers, section 9.1.6), as in
XLA's HloDCE. Instructions with effects, asynchronous copies and unknown opcodes stay.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from memplan.compiler.ir import Computation, Graph, Instruction
from memplan.compiler.ir.opcodes import is_known
from memplan.passes.base import Finding, GraphContext, GraphPass, RewrittenGraph
from memplan.passes.graph_edit import FLOW, executed, where, with_computations

_STAYS = frozenset(
    {
        "parameter", "infeed", "outfeed", "send", "recv", "after-all", "add-dependency", "opt-barrier",
        "optimization-barrier", "domain", "rng-get-and-update-state", "all-reduce", "all-gather", "all-to-all",
        "collective-permute", "collective-broadcast", "reduce-scatter", "ragged-all-to-all", "rng",
        "rng-bit-generator",
    }
)  # fmt: skip


def rewrite(graph: Graph, context: GraphContext) -> RewrittenGraph:
    """Leaves out dead instructions everywhere, also within loops and branches, and computations without callers."""
    del context
    findings: list[Finding] = []
    effects: dict[str, bool] = {}
    changed = []
    for name in executed(graph):
        computation = graph.computations[name]
        kept = _without_dead(computation, effects, findings)
        effects[name] = any(_has_effect(i, effects) and i.opcode != "parameter" for i in computation.instructions)
        if kept is not computation:
            changed.append(kept)
    swept = with_computations(graph, changed)
    if len(swept.computations) == len(graph.computations) and not changed:
        return RewrittenGraph(graph)
    findings += [Finding("computation", name) for name in graph.computations if name not in swept.computations]
    return RewrittenGraph(swept, tuple(findings))


def _has_effect(instruction: Instruction, effects: dict[str, bool]) -> bool:
    """Whether an instruction does more than compute its result; `effects` has the answer for computations so far."""
    opcode = instruction.opcode
    if opcode in _STAYS or not is_known(opcode) or opcode.endswith(("-start", "-update", "-done")):
        return True
    if opcode == "custom-call":
        return instruction.attribute("custom_call_has_side_effect") == "true"
    return opcode in FLOW and any(effects.get(name, True) for name in instruction.called)


def _without_dead(computation: Computation, effects: dict[str, bool], findings: list[Finding]) -> Computation:
    instructions = computation.instructions
    needed = [False] * len(instructions)
    needed[computation.root] = True
    for i in reversed(range(len(instructions))):
        if needed[i] or _has_effect(instructions[i], effects):
            needed[i] = True
            for other in (*instructions[i].operands, *instructions[i].control_predecessors):
                needed[other] = True
    if all(needed):
        return computation
    place = list(accumulate(needed, initial=0))
    kept = []
    for instruction, is_needed in zip(instructions, needed, strict=True):
        if is_needed:
            operands = tuple(place[operand] for operand in instruction.operands)
            predecessors = tuple(place[predecessor] for predecessor in instruction.control_predecessors)
            kept.append(replace(instruction, operands=operands, control_predecessors=predecessors))
        else:
            findings.append(Finding(instruction.opcode, where(instruction)))
    return replace(computation, instructions=tuple(kept), root=place[computation.root])


PASS = GraphPass("dead_code", "Instructions whose results nobody reads.", rewrite)
