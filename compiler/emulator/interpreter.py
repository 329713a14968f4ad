"""The plain meaning of a Graph that was traced from JAX: a dictionary of values, and no memory.

It is the oracle for the value emulator (`values.py`), and what a pass must preserve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from memplan.compiler.errors import GraphError
from memplan.compiler.frontends.jaxpr_arrays import numpy_dtype, physical
from memplan.compiler.ir import Computation, Graph, Instruction, Shape


def interpret(graph: Graph, *args: Any) -> list[np.ndarray[Any, Any]]:
    """Returns the results of the program, flat, as numpy arrays; random keys as their integers.

    >>> import jax.numpy as jnp
    >>> from memplan.compiler.frontends.jaxpr import trace
    >>> x = np.arange(3.0, dtype=np.float32)
    >>> interpret(trace(lambda x: 2 * x, x), x)
    [array([0., 2., 4.], dtype=float32)]

    Args:
      graph: with an `evaluate` for every instruction but parameters and control flow.
      *args: the arguments that it was traced with (without static ones), or others of the same shapes.

    Raises:
      GraphError: an instruction cannot be evaluated, or the arguments are not those of the program.
    """
    entry = graph.entry_computation
    result = _run(graph, entry, flat_arguments(graph, args))
    results = result if entry.root_instruction.shape.is_tuple else (result,)
    return [np.asarray(array) for array in results]


def flat_arguments(graph: Graph, args: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    """Returns the program's arguments as numpy arrays, one per parameter; GraphError if they do not fit it."""
    entry = graph.entry_computation
    leaves = jax.tree.leaves(args)
    parameters = [entry.instructions[i] for i in entry.parameters]
    if len(leaves) != len(parameters):
        raise GraphError(f"{graph.name} takes {len(parameters)} arrays, found {len(leaves)} in the arguments")
    arrays = []
    for leaf, parameter in zip(leaves, parameters, strict=True):
        array = np.asarray(physical(leaf))
        dtype = numpy_dtype(parameter.shape.dtype)
        if not array.shape and isinstance(leaf, bool | int | float | complex):
            array = array.astype(dtype)
        if array.shape != parameter.shape.dims or array.dtype != dtype:
            raise GraphError(
                f"argument {parameter.name} of {graph.name} must be {parameter.shape}, found {array.dtype}"
                f"[{','.join(map(str, array.shape))}]"
            )
        arrays.append(array)
    return arrays


def chosen_branch(index: Any, shape: Shape, num_branches: int) -> int:
    """Returns the number of the branch that a conditional takes: the first for true, the last for an index outside."""
    value = int(np.asarray(index))
    if shape.dtype == "pred":
        return 0 if value else 1
    return value if 0 <= value < num_branches else num_branches - 1


def evaluate(instruction: Instruction, operands: Sequence[Any]) -> Any:
    """Returns the value of an instruction without control flow; GraphError if the Graph does not say how."""
    if instruction.evaluate is None:
        raise GraphError(
            f"{instruction.name}: {instruction.opcode} cannot be evaluated; only programs traced from JAX can be run"
        )
    return instruction.evaluate(*operands)


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
