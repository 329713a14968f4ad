"""The plain meaning of a Graph that was traced from JAX: a dictionary of values, and no memory.

It is the oracle for the value emulator, and for passes, which must preserve what it computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from memplan.compiler.emulator.arguments import flat_arguments
from memplan.compiler.emulator.value_actions import evaluate
from memplan.compiler.emulator.values import chosen_branch
from memplan.compiler.ir import Computation, Graph, Instruction


def interpret(graph: Graph, *args: Any) -> list[np.ndarray[Any, Any]]:
    """Returns the results of the program, flat, as numpy arrays; random keys as their integers.

    >>> import jax.numpy as jnp
    >>> from memplan.compiler.frontends.jaxpr import trace
    >>> x = np.arange(3.0, dtype=np.float32)
    >>> interpret(trace(lambda x: 2 * x, x), x)
    [array([0., 2., 4.], dtype=float32)]

    Args:
      graph: with an `evaluate` for every instruction but parameters and control flow.
      *args: the arguments that it was traced with, without static ones, or others of the same shapes.

    Raises:
      GraphError: an instruction cannot be evaluated, or the arguments are not those of the program.
    """
    entry = graph.entry_computation
    result = _run(graph, entry, flat_arguments(graph, args))
    results = result if entry.root_instruction.shape.is_tuple else (result,)
    return [np.asarray(array) for array in results]


def _run(graph: Graph, computation: Computation, arguments: Sequence[Any]) -> Any:
    """Returns the value of a computation's root; each value is dropped after its last use."""
    values: dict[int, Any] = {}
    last_use = [max(users, default=i) for i, users in enumerate(computation.users)]
    last_use[computation.root] = len(computation.instructions)
    for i, instruction in enumerate(computation.instructions):
        operands = [values[operand] for operand in instruction.operands]
        values[i] = _value(graph, computation, instruction, operands, arguments)
        for done in {*instruction.operands, i}:
            if last_use[done] <= i:
                del values[done]
    return values[computation.root]


def _value(
    graph: Graph, computation: Computation, instruction: Instruction, operands: list[Any], arguments: Sequence[Any]
) -> Any:
    opcode = instruction.opcode
    if opcode == "parameter":
        return arguments[instruction.parameter_number]
    if opcode == "while":
        condition, body = graph.called(instruction, "condition"), graph.called(instruction, "body")
        (state,) = operands
        while bool(np.asarray(_run(graph, condition, [state]))):
            state = _run(graph, body, [state])
        return state
    if opcode == "conditional":
        shape = computation.instructions[instruction.operands[0]].shape
        branch = chosen_branch(operands[0], shape, len(instruction.called))
        return _run(graph, graph.computations[instruction.called[branch]], [operands[1 + branch]])
    if opcode in ("call", "fusion") and instruction.evaluate is None:
        return _run(graph, graph.computations[instruction.called[0]], operands)
    return evaluate(instruction, operands)
