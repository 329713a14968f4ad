"""Orders of execution: legal ones, and one that keeps little memory alive."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

from memplan.compiler.ir.graph import Computation, Instruction
from memplan.compiler.ir.validate import InstructionError


def topological_order(instructions: Sequence[Instruction], computation: str = "") -> tuple[int, ...]:
    """Returns the legal order that is closest to the given one: of what may run, always the earliest.

    Raises InstructionError, with the names of the instructions on it, if there is a cycle.
    """
    successors: list[list[int]] = [[] for _ in instructions]
    missing = [0] * len(instructions)
    for i, instruction in enumerate(instructions):
        for predecessor in {*instruction.operands, *instruction.control_predecessors}:
            successors[predecessor].append(i)
            missing[i] += 1
    ready = [i for i, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for successor in successors[i]:
            missing[successor] -= 1
            if missing[successor] == 0:
                heapq.heappush(ready, successor)
    if len(order) < len(instructions):
        cycle = _find_cycle(instructions, missing)
        names = " -> ".join(instructions[i].name for i in cycle)
        reason = f"instructions wait for each other in a circle: {names}"
        raise InstructionError(reason, computation, instructions[cycle[0]].name)
    return tuple(order)


def _find_cycle(instructions: Sequence[Instruction], missing: Sequence[int]) -> list[int]:
    """Returns a cycle among the instructions that still wait; each waits for the one named before it.

    It begins, and ends, with its earliest instruction.
    """
    i = next(i for i, count in enumerate(missing) if count)
    path: list[int] = []
    position: dict[int, int] = {}
    while i not in position:
        position[i] = len(path)
        path.append(i)
        predecessors = (*instructions[i].operands, *instructions[i].control_predecessors)
        i = next(p for p in predecessors if missing[p])
    cycle = path[position[i] :][::-1]
    start = cycle.index(min(cycle))
    return [*cycle[start:], *cycle[: start + 1]]


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
