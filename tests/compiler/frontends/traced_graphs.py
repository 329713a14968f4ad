"""What the tests of the jaxpr frontend trace functions with, and how they look at the Graphs."""

from __future__ import annotations

from typing import Any

import jax

from memplan.compiler.ir import Computation, Graph, Instruction


def shaped(*dims: int, dtype: Any = "float32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)


def opcodes(graph: Graph) -> list[str]:
    return [instruction.opcode for instruction in graph.entry_computation.instructions]


def only(graph: Graph, opcode: str) -> Instruction:
    (found,) = (instruction for _, instruction in graph.instructions() if instruction.opcode == opcode)
    return found


def described(computation: Computation) -> list[str]:
    """Returns each instruction in one line: `name = opcode(operands)`."""
    names = [instruction.name for instruction in computation.instructions]
    return [
        f"{i.name} = {i.opcode}({', '.join(names[operand] for operand in i.operands) or i.payload})"
        for i in computation.instructions
    ]
