"""The pass `inline`: functions that are called become part of the computation around them.

XLA's CallInliner does the same with `call`. Other passes then see across functions that were jitted on their own.
"""

from __future__ import annotations

from dataclasses import replace

from memplan.compiler.ir import Computation, Graph, Instruction
from memplan.passes.base import Finding, GraphContext, GraphPass, RewrittenGraph
from memplan.passes.graph_edit import Names, executed, moved_to, where, with_computations


def rewrite(graph: Graph, context: GraphContext) -> RewrittenGraph:
    """Inlines calls everywhere, also within loops and branches, the innermost first."""
    del context
    findings: list[Finding] = []
    names = Names(graph)
    done: dict[str, Computation] = {}
    for name in executed(graph):
        computation = graph.computations[name]
        if any(instruction.opcode == "call" for instruction in computation.instructions):
            done[name] = _inlined(computation, {**graph.computations, **done}, names, findings)
    if not findings:
        return RewrittenGraph(graph)
    return RewrittenGraph(with_computations(graph, done.values()), tuple(findings))


def _inlined(
    computation: Computation, computations: dict[str, Computation], names: Names, findings: list[Finding]
) -> Computation:
    instructions: list[Instruction] = []
    place: list[int] = []
    tied = {p for instruction in computation.instructions for p in instruction.control_predecessors}
    for i, instruction in enumerate(computation.instructions):
        moved = moved_to(instruction, place)
        if instruction.opcode != "call" or i in tied or instruction.control_predecessors:
            place.append(len(instructions))
            instructions.append(moved)
            continue
        findings.append(Finding(f"call of {instruction.called[0]}", where(instruction)))
        callee = computations[instruction.called[0]]
        inner: list[int] = []
        for body in callee.instructions:
            if body.opcode == "parameter":
                inner.append(moved.operands[body.parameter_number])
                continue
            inner.append(len(instructions))
            instructions.append(replace(moved_to(body, inner), name=names.fresh(body.name)))
        place.append(inner[callee.root])
    return replace(computation, instructions=tuple(instructions), root=place[computation.root])


PASS = GraphPass("inline", "Functions that are called become part of what is around them.", rewrite)
