"""Orders of execution: legal ones, and one that keeps little memory alive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memplan.compiler.ir.graph import Computation, Instruction
from memplan.compiler.ir.validate import InstructionError


def topological_order(instructions: Sequence[Instruction], computation: str = "") -> tuple[int, ...]:
    """Returns the legal order that is closest to the given one: of what may run, always the earliest.

    Raises:
      InstructionError: there is a cycle; the message names the instructions on it, the earliest first.
    """
    # Dumps are in a legal order nearly always, so that reading one does not wait for this import.
    import networkx as nx

    dependences = nx.DiGraph()
    dependences.add_nodes_from(range(len(instructions)))
    for i, instruction in enumerate(instructions):
        dependences.add_edges_from((p, i) for p in (*instruction.operands, *instruction.control_predecessors))
    try:
        return tuple(nx.lexicographical_topological_sort(dependences))
    except nx.NetworkXUnfeasible:
        cycle = [i for i, _ in nx.find_cycle(dependences)]
    start = cycle.index(min(cycle))
    names = [instructions[i].name for i in (*cycle[start:], *cycle[: start + 1])]
    raise InstructionError(f"instructions wait for each other in a circle: {' -> '.join(names)}", computation, names[0])


def reordered(computation: Computation, order: Sequence[int]) -> Computation:
    """Returns the computation with instruction `order[k]` at place `k`.

    >>> from memplan.compiler.ir import Shape
    >>> a, b = (Instruction(name, "iota", Shape("f32", (8,))) for name in "ab")
    >>> reordered(Computation("c", (a, b), root=1), (1, 0)).root
    0
    """
    if sorted(order) != list(range(len(computation.instructions))):
        raise InstructionError("an order must name every instruction once", computation.name)
    place = [0] * len(order)
    for k, i in enumerate(order):
        place[i] = k
    instructions = []
    for i in order:
        instruction = computation.instructions[i]
        operands = tuple([place[o] for o in instruction.operands])
        predecessors = tuple([place[p] for p in instruction.control_predecessors])
        if operands == instruction.operands and predecessors == instruction.control_predecessors:
            instructions.append(instruction)
        else:
            instructions.append(replace(instruction, operands=operands, control_predecessors=predecessors))
    return replace(computation, instructions=tuple(instructions), root=place[computation.root])
