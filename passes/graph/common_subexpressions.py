"""The pass `common_subexpressions`: what is computed twice from the same values is computed once.

This is global value numbering by hashing (Aho, Lam, Sethi and Ullman, Compilers, section 8.5.1; XLA's HloCSE). Only
opcodes whose results follow from the Graph take part. Random numbers do not, nor opcodes for which a Graph traced from
JAX says less than JAX knows, such as what a gather does beyond the end of its operand.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from memplan.compiler.hardware.work import ELEMENTWISE, TRANSCENDENTAL
from memplan.compiler.ir import Graph, Instruction
from memplan.passes.base import GraphContext, GraphPass, RewrittenGraph
from memplan.passes.graph_edit import NAMING, Rule, rewritten_by

_PURE = (ELEMENTWISE | TRANSCENDENTAL - {"stochastic-convert"}) | {
    "bitcast", "bitcast-convert", "broadcast", "concatenate", "constant", "convolution", "dot", "dynamic-slice",
    "get-tuple-element", "iota", "pad", "reduce", "reduce-window", "reshape", "reverse", "slice", "transpose",
}  # fmt: skip


def rewrite(graph: Graph, context: GraphContext) -> RewrittenGraph:
    """Merges equal instructions everywhere; one inside a loop and one outside it count as different."""
    del context
    bodies: dict[str, Hashable] = {}
    return rewritten_by(graph, lambda: _sharing(graph, bodies))


def _sharing(graph: Graph, bodies: dict[str, Hashable]) -> Rule:
    """Returns the rule for one computation; `bodies` has the keys of the computations so far."""
    seen: dict[Hashable, int] = {}

    def rule(instruction: Instruction, instructions: list[Instruction]) -> int | None:
        key = _key(graph, instruction, bodies)
        if key is None:
            return None
        first = seen.setdefault(key, len(instructions))
        return None if first == len(instructions) else first

    return rule


def _key(graph: Graph, instruction: Instruction, bodies: dict[str, Hashable]) -> Hashable:
    """Returns a key that equal instructions share; None for an instruction that never equals another."""
    if instruction.opcode not in _PURE:
        return None
    payload: Any = instruction.payload
    if instruction.opcode == "constant":
        if instruction.evaluate is not None:
            payload = instruction.evaluate().tobytes()
        elif "..." in payload:
            return None
    attributes = tuple((key, value) for key, value in instruction.attributes if key not in NAMING and key != "to_apply")
    called = tuple(_body_key(graph, name, bodies) for name in instruction.called)
    return instruction.opcode, instruction.shape, instruction.operands, attributes, payload, called


def _body_key(graph: Graph, name: str, bodies: dict[str, Hashable]) -> Hashable:
    """Returns a key that equal computations share; the name alone for a computation that calls others."""
    if name not in bodies:
        computation = graph.computations[name]
        is_leaf = not any(i.called or i.opcode not in _PURE | {"parameter"} for i in computation.instructions)
        bodies[name] = (
            (
                computation.root,
                tuple(
                    (i.opcode, i.shape, i.operands, i.payload, tuple(a for a in i.attributes if a[0] not in NAMING))
                    for i in computation.instructions
                ),
            )
            if is_leaf
            else name
        )
    return bodies[name]


PASS = GraphPass("common_subexpressions", "What is computed twice from the same values.", rewrite)
