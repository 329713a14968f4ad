"""Rewrites a computation by a partition: each group becomes one `fusion` instruction that calls its own computation.

    x ──► dot ──► add ──► tanh ──► y          x, w, b ──► fusion, calls=fused ──► y
           ▲       ▲                           fused: parameters, dot, broadcast, add, tanh
           w    broadcast ◄── b

Free instructions are computed again in each group that reads them. Views at the end of a group stay outside. The fast
memory that a group keeps is stated in the way in which XLA states scoped memory, so that no plan uses it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memplan.compiler.hardware.target import Target
from memplan.compiler.ir import Computation, Graph, Instruction, Shape
from memplan.passes.base import Finding
from memplan.passes.fusion.line import FREE, ONE_TILE, OUTSIDE
from memplan.passes.fusion.partition import Group, Partition
from memplan.passes.graph_edit import Names, where

_VIEWS = frozenset({"reshape", "bitcast"})


@dataclass(frozen=True)
class Fused:
    """A computation with its groups as fusions.

    Attributes:
      computation: that calls them.
      bodies: the computations that it calls.
      findings: one for each group.
    """

    computation: Computation
    bodies: tuple[Computation, ...]
    findings: tuple[Finding, ...]


def with_fusions(partition: Partition, names: Names, target: Target, fast: int, is_stated: bool) -> Fused:
    """Returns the computation of a partition with a fusion for each of its groups.

    Args:
      partition: of the computation.
      names: of the Graph.
      target: that it was made for.
      fast: index of the memory that groups keep their tiles in.
      is_stated: whether the fusions state what they keep.
    """
    rewriting = _FusionWriter(partition, names, target, fast, is_stated)
    for part in partition.order:
        if isinstance(part, Group):
            rewriting.add_group(part)
        else:
            rewriting.add(part)
    return rewriting.finished()


def with_stated_memory(graph: Graph, target: Target, fast: int) -> Graph:
    """Returns the Graph with the compiler's usual scoped memory stated for all instructions that state none.

    This is needed as soon as one instruction states what it keeps: from then on, no statement means that nothing is
    kept.
    """
    limit = target.spaces[fast].scoped_limit
    if not limit:
        return graph
    config = ("backend_config", _scoped(target, fast, limit))
    fusions = {name for _, i in graph.instructions() if i.opcode == "fusion" for name in i.called}
    computations = {}
    for name, computation in graph.computations.items():
        instructions = list(computation.instructions)
        for number, instruction in enumerate(instructions):
            size = sum(instructions[o].shape.bytes for o in instruction.operands) + instruction.shape.bytes
            is_still = size <= ONE_TILE or instruction.opcode in ("parameter", "constant", "get-tuple-element")
            if name not in fusions and not is_still and not instruction.attribute("backend_config"):
                instructions[number] = replace(instruction, attributes=(*instruction.attributes, config))
        computations[name] = replace(computation, instructions=tuple(instructions))
    return replace(graph, computations=computations)


def _scoped(target: Target, fast: int, size: int, **more: Any) -> str:
    space = target.spaces[fast]
    entry = {"memory_space": str(space.xla_number), "offset": "0", "size": str(size)}
    return json.dumps({**more, "used_scoped_memory_configs": [entry]}, separators=(",", ":"))


class _FusionWriter:
    """Builds the new computation; `_place` says where each instruction of the old one is."""

    def __init__(self, partition: Partition, names: Names, target: Target, fast: int, is_stated: bool):
        self._names, self._target, self._fast, self._is_stated = names, target, fast, is_stated
        self._old = partition.line.computation
        self._kind = partition.line.kind
        self._new: list[Instruction] = []
        self._place: dict[int, int] = {}
        self._bodies: list[Computation] = []
        self._findings: list[Finding] = []
        self._inside: set[int] = set()
        for parameter in self._old.parameters:
            self.add(parameter)

    def finished(self) -> Fused:
        """Adds what was not needed so far, and returns the result."""
        for i in range(len(self._old.instructions)):
            # Free instructions without readers are left out.
            if i == self._old.root or (self._kind[i] != FREE and i not in self._inside):
                self.add(i)
        computation = replace(self._old, instructions=tuple(self._new), root=self._place[self._old.root])
        return Fused(computation, tuple(self._bodies), tuple(self._findings))

    def add(self, i: int) -> int:
        """Appends an unchanged instruction after its operands, unless it was added already; returns its place."""
        pending = [i]
        while pending:
            at = pending[-1]
            instruction = self._old.instructions[at]
            needed = [o for o in (*instruction.operands, *instruction.control_predecessors) if o not in self._place]
            if at in self._place or not needed:
                pending.pop()
                if at not in self._place:
                    self._append(at, instruction)
                continue
            pending.extend(needed)
        return self._place[i]

    def _append(self, i: int, instruction: Instruction) -> None:
        self._place[i] = len(self._new)
        self._new.append(
            replace(
                instruction,
                operands=tuple(self._place[operand] for operand in instruction.operands),
                control_predecessors=tuple(self._place[p] for p in instruction.control_predecessors),
            )
        )

    def add_group(self, group: Group) -> None:
        """Appends a group as a fusion, or its members unchanged if there is nothing to fuse."""
        members = set(group.members)
        instructions = self._old.instructions
        read_outside = {i for i in group.members if self._is_read_outside(i, members)}
        views = set()  # of which what they show is a result instead
        results: set[int] = set()
        for i in read_outside:
            while i in members and instructions[i].opcode in _VIEWS:
                views.add(i)
                i = instructions[i].operands[0]
            if i in members:
                results.add(i)
        body = _Body(self._old, self._kind, members)
        ordered = [i for i in group.members if i in results]
        for i in ordered:
            body.add(i)
        if body.size < 2:
            for i in group.members:
                self.add(i)
            return
        self._fuse(group, ordered, body)
        for i in group.members:
            if i in views:
                self.add(i)

    def _fuse(self, group: Group, results: Sequence[int], body: _Body) -> None:
        instructions = self._old.instructions
        self._inside.update(group.members)
        representative = instructions[max(group.members, key=lambda i: (_weight(instructions[i]), i))]
        computation = body.finished(self._names, results)
        self._bodies.append(computation)
        made = [i for i in group.members if instructions[i].opcode not in (*_VIEWS, "get-tuple-element")]
        saved = sum(instructions[i].shape.bytes for i in made) - group.written
        self._findings.append(Finding(_described(group, instructions, saved), where(representative)))
        operands = tuple(self.add(value) for value in body.read)
        loops = [
            {"tiles": loop.tiles, "of": loop.size, "axis": f"{instructions[loop.value].name}/{loop.dimension}"}
            for loop in group.loops
        ]
        tiling = {"loops": loops, "kept_bytes": group.kept}
        config = json.dumps({"tiling": tiling}, separators=(",", ":"))
        if self._is_stated:
            kept = max(group.kept, self._target.spaces[self._fast].scoped_limit)
            config = _scoped(self._target, self._fast, kept, tiling=tiling)
        attributes = [("kind", _kind(body.opcodes)), ("calls", f"%{computation.name}")]
        attributes += [pair for pair in representative.attributes if pair[0] == "metadata"]
        place = len(self._new)
        self._new.append(
            Instruction(
                name=self._names.fresh("fusion"),
                opcode="fusion",
                shape=computation.root_instruction.shape,
                operands=operands,
                called=(computation.name,),
                attributes=(*attributes, ("backend_config", config)),
                source=representative.source,
                evaluate=_evaluator(computation),
            )
        )
        if len(results) == 1:
            self._place[results[0]] = place
            return
        for number, i in enumerate(results):
            self._place[i] = len(self._new)
            self._new.append(
                Instruction(
                    name=self._names.fresh("get-tuple-element"),
                    opcode="get-tuple-element",
                    shape=instructions[i].shape,
                    operands=(place,),
                    attributes=(("index", str(number)),),
                    evaluate=_element(number),
                )
            )

    def _is_read_outside(self, i: int, members: set[int]) -> bool:
        """Whether a member is read outside the group, directly or through free instructions."""
        pending = [i]
        while pending:
            at = pending.pop()
            if at == self._old.root:
                return True
            for user in self._old.users[at]:
                if self._kind[user] == FREE:
                    pending.append(user)
                elif self._kind[user] == OUTSIDE or user not in members:
                    return True
        return False


class _Body:
    """Builds the computation of a fusion.

    Attributes:
      read: values from outside, in the order of its parameters.
    """

    def __init__(self, old: Computation, kind: Sequence[int], members: set[int]):
        self._old, self._kind, self._members = old, kind, members
        self._needed: set[int] = set()
        self.read: list[int] = []

    @property
    def size(self) -> int:
        """The number of instructions without parameters and scalar constants."""
        instructions = self._old.instructions
        return sum(1 for i in self._needed if instructions[i].opcode != "constant")

    @property
    def opcodes(self) -> set[str]:
        return {self._old.instructions[i].opcode for i in self._needed}

    def add(self, i: int) -> None:
        """Adds a result with everything that the group computes for it."""
        pending = [i]
        while pending:
            at = pending.pop()
            if at in self._needed:
                continue
            if at not in self._members and self._kind[at] != FREE:
                if at not in self.read:
                    self.read.append(at)
                continue
            self._needed.add(at)
            pending.extend(reversed(self._old.instructions[at].operands))

    def finished(self, names: Names, results: Sequence[int]) -> Computation:
        """Returns the computation, whose result is that of the group, or a tuple if there are several."""
        place: dict[int, int] = {}
        new: list[Instruction] = []
        for number, value in enumerate(self.read):
            place[value] = len(new)
            shape = self._old.instructions[value].shape
            new.append(Instruction(names.fresh("param"), "parameter", shape, payload=str(number)))
        for i in sorted(self._needed):
            place[i] = len(new)
            old = self._old.instructions[i]
            operands = tuple(place[operand] for operand in old.operands)
            name = names.fresh(old.name)
            new.append(replace(old, name=name, operands=operands))
        if len(results) == 1:
            return Computation(names.fresh("fused_computation"), tuple(new), place[results[0]])
        shape = Shape("tuple", elements=tuple(self._old.instructions[i].shape for i in results))
        operands = tuple(place[i] for i in results)
        new.append(Instruction(names.fresh("tuple"), "tuple", shape, operands, evaluate=lambda *values: values))
        return Computation(names.fresh("fused_computation"), tuple(new), len(new) - 1)


def _evaluator(body: Computation) -> Callable[..., Any] | None:
    """Returns a function that computes a body's result; None if not all of its instructions can be evaluated."""
    if any(i.evaluate is None for i in body.instructions if i.opcode != "parameter"):
        return None

    def evaluate(*operands: Any) -> Any:
        values: list[Any] = []
        for instruction in body.instructions:
            if instruction.evaluate is None:
                values.append(operands[instruction.parameter_number])
            else:
                values.append(instruction.evaluate(*[values[operand] for operand in instruction.operands]))
        return values[body.root]

    return evaluate


def _element(number: int) -> Callable[[Any], Any]:
    return lambda values: values[number]


def _kind(opcodes: set[str]) -> str:
    """Returns XLA's name for the kind of a fusion."""
    if opcodes & {"dot", "convolution"}:
        return "kOutput"
    return "kInput" if "reduce" in opcodes else "kLoop"


def _weight(instruction: Instruction) -> int:
    return 2 if instruction.opcode in ("dot", "convolution") else 1 if instruction.opcode == "reduce" else 0


def _described(group: Group, instructions: Sequence[Instruction], saved: int) -> str:
    opcodes = Counter(instructions[i].opcode for i in group.members if instructions[i].opcode not in _VIEWS)
    listed = ", ".join(f"{count} {opcode}" if count > 1 else opcode for opcode, count in opcodes.most_common(4))
    more = ", …" if len(opcodes) > 4 else ""
    tiles = " x ".join(f"{loop.tiles} tiles of {loop.size}" for loop in group.loops) or "at once"
    return f"{sum(opcodes.values())} instructions ({listed}{more}), {tiles}, {max(saved, 0) / 1e6:,.1f} MB not written"
