"""Tools for passes over Graphs: rebuilding a computation instruction by instruction, and naming sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from memplan.compiler.ir import Computation, Graph, Instruction
from memplan.passes.base import Finding, RewrittenGraph

# Calls whose callees run instruction by instruction.
FLOW = frozenset({"while", "conditional", "call"})

# Attributes that say how a value is called or kept, never what it is.
NAMING = frozenset({"metadata", "frontend_attributes", "sharding", "origin", "primitive"})

Rule = Callable[[Instruction, list[Instruction]], Instruction | int | None]


def where(instruction: Instruction) -> str:
    """Returns the place in the user's program that an instruction came from, or else its name.

    >>> from memplan.compiler.ir import Shape, Source
    >>> where(Instruction("a.1", "add", Shape("f32"), source=Source("jit(f)/add", "model.py", 7)))
    'model.py:7 (jit(f)/add)'
    """
    source = instruction.source
    if source.file:
        return f"{source.file}:{source.line}" + (f" ({source.op_name})" if source.op_name else "")
    return source.op_name or instruction.name


def executed(graph: Graph) -> list[str]:
    """Returns the names of the computations whose instructions run one by one, callees before callers."""
    found: dict[str, None] = {}
    pending = [graph.entry]
    while pending:
        name = pending.pop()
        if name in found or name not in graph.computations:
            continue
        found[name] = None
        for instruction in graph.computations[name].instructions:
            if instruction.opcode in FLOW:
                pending.extend(instruction.called)
    return [name for name in graph.computations if name in found]


def with_computations(graph: Graph, changed: Iterable[Computation]) -> Graph:
    """Returns the Graph with some computations replaced and without those that nothing calls any more."""
    computations = {**graph.computations, **{computation.name: computation for computation in changed}}
    reached: set[str] = set()
    pending = [graph.entry]
    while pending:
        name = pending.pop()
        if name in reached or name not in computations:
            continue
        reached.add(name)
        for instruction in computations[name].instructions:
            pending.extend(instruction.called)
    return replace(graph, computations={name: c for name, c in computations.items() if name in reached})


def rebuilt(computation: Computation, rule: Rule) -> Computation:
    """Returns a computation in which a rule has replaced instructions; the same one if it replaced none.

    Args:
      computation: any.
      rule: called with each instruction in order, its operands already those of the new computation, and the
        instructions of the new computation so far. It returns an instruction to put in its place, the index of one that
        exists already, or None to keep it. Instructions with control dependences are always kept.
    """
    tied = {p for instruction in computation.instructions for p in instruction.control_predecessors}
    instructions: list[Instruction] = []
    place: list[int] = []
    changed = False
    for i, instruction in enumerate(computation.instructions):
        moved = moved_to(instruction, place)
        found = None if i in tied or instruction.control_predecessors else rule(moved, instructions)
        if isinstance(found, int):
            changed = True
            place.append(found)
            continue
        changed = changed or found is not None
        place.append(len(instructions))
        instructions.append(moved if found is None else found)
    if not changed:
        return computation
    return replace(computation, instructions=tuple(instructions), root=place[computation.root])


def rewritten_by(graph: Graph, rule_for: Callable[[], Rule]) -> RewrittenGraph:
    """Returns a Graph rewritten by a rule, also within loops and branches, with a finding for each replacement.

    Args:
      graph: any.
      rule_for: returns the rule for the next computation, see `rebuilt`.
    """
    findings: list[Finding] = []

    def recorded(rule: Rule) -> Rule:
        def record(instruction: Instruction, instructions: list[Instruction]) -> Instruction | int | None:
            found = rule(instruction, instructions)
            if found is not None:
                findings.append(Finding(instruction.opcode, where(instruction)))
            return found

        return record

    changed = []
    for name in executed(graph):
        computation = graph.computations[name]
        new = rebuilt(computation, recorded(rule_for()))
        if new is not computation:
            changed.append(new)
    return RewrittenGraph(with_computations(graph, changed), tuple(findings)) if changed else RewrittenGraph(graph)


def moved_to(instruction: Instruction, place: list[int]) -> Instruction:
    """Returns an instruction with its operands and predecessors at their new places."""
    operands = tuple([place[operand] for operand in instruction.operands])
    predecessors = tuple([place[predecessor] for predecessor in instruction.control_predecessors])
    if operands == instruction.operands and predecessors == instruction.control_predecessors:
        return instruction
    return replace(instruction, operands=operands, control_predecessors=predecessors)


class Names:
    """Makes names that no instruction and no computation of a Graph has."""

    def __init__(self, graph: Graph):
        self._taken = {instruction.name for _, instruction in graph.instructions()} | set(graph.computations)
        self._next: dict[str, int] = {}

    def fresh(self, base: str) -> str:
        """Returns `base` with its number replaced by the first one that is free."""
        head, _, tail = base.rpartition(".")
        base = head if head and tail.isdigit() else base
        number = self._next.get(base, 0)
        name = f"{base}.{number}" if number else base
        while name in self._taken:
            number += 1
            name = f"{base}.{number}"
        self._next[base] = number + 1
        self._taken.add(name)
        return name
