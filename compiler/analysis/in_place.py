"""Results that an instruction may write by changing a part of an operand in place.

    dynamic-update-slice(x, …), scatter(x, …)     the result is x, changed
    fusion                                        whose body ends so, starting from a parameter
    X-start of such an X
    custom-call, fusion                           that state `output_to_operand_aliasing`

These are the pairs that XLA calls in-place (hlo_dataflow_analysis.cc, `GetInPlaceInputOutputPairs`). Whether memory can
really be shared depends on who else needs the operand; `aliasing.py` decides that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from memplan.compiler.ir import Computation, Graph, Instruction

_INDEX = r"\{([\s,]*+(?:\d{1,9}\s*+(?:,[\s,]*+|(?=\})))*)\}"
_ALIASING = re.compile(rf"{_INDEX}\s*+:\s*+\(\s*+(\d{{1,9}})\s*+,\s*+{_INDEX}")


@dataclass(frozen=True, slots=True)
class InPlacePair:
    """A result that may take over the memory of an operand.

    Attributes:
      operand: number of the operand.
      operand_index: tuple index into the operand.
      output_index: tuple index into the result.
      bytes: bytes that are touched; -1 where that is not known.
      exclusive: whether nothing but the update reads the operand inside the instruction. Otherwise only the compiler
        that wrote the module can know that updating in place is right.
    """

    operand: int
    operand_index: tuple[int, ...]
    output_index: tuple[int, ...]
    bytes: int
    exclusive: bool = True


class InPlace:
    """The in-place pairs of the instructions of one Graph; the body of a fusion is examined once."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._bodies: dict[str, tuple[InPlacePair, ...]] = {}

    def pairs(self, computation: Computation, instruction: Instruction) -> tuple[InPlacePair, ...]:
        """Returns the in-place pairs of an instruction of `computation`, no result and no operand twice."""
        opcode = instruction.opcode
        if opcode == "fusion":
            found = self.body_pairs(instruction.called[0])
        elif opcode == "dynamic-update-slice":
            found = (InPlacePair(0, (), (), computation.instructions[instruction.operands[1]].shape.bytes),)
        elif opcode == "scatter":
            found = self._scatter(computation, instruction)
        elif opcode == "set-dimension-size":
            found = (InPlacePair(0, (), (), 0),)
        elif opcode == "ragged-all-to-all":
            found = (InPlacePair(1, (), (), computation.instructions[instruction.operands[0]].shape.bytes),)
        elif opcode in ("async-start", "fusion-start") and instruction.called:
            found = tuple(_of_async(pair) for pair in self.body_pairs(instruction.called[0]))
        elif opcode.endswith("-start") and opcode.removesuffix("-start") in ("dynamic-update-slice", "scatter"):
            wrapped = replace(instruction, opcode=opcode.removesuffix("-start"))
            found = tuple(_of_async(pair) for pair in self.pairs(computation, wrapped))
        else:
            found = ()
        stated = instruction.attribute("output_to_operand_aliasing")
        if stated:
            found = (*_stated(stated), *found)
        return _distinct(found)

    def _scatter(self, computation: Computation, instruction: Instruction) -> tuple[InPlacePair, ...]:
        """Each operand is updated where the indices point; unless the update just replaces, it is read there too."""
        count = (len(instruction.operands) - 1) // 2
        moves = 2
        if instruction.called:
            combiner = self._graph.computations[instruction.called[0]]
            if combiner.root_instruction.opcode == "parameter":
                moves = 1
        pairs = []
        for i in range(count):
            updates = computation.instructions[instruction.operands[count + 1 + i]].shape.bytes
            pairs.append(InPlacePair(i, (), (i,) if instruction.shape.is_tuple else (), moves * updates))
        return tuple(pairs)

    def body_pairs(self, name: str) -> tuple[InPlacePair, ...]:
        """Returns the in-place pairs of a fusion whose body has this name; its operands are the parameters."""
        known = self._bodies.get(name)
        if known is None:
            body = self._graph.computations[name]
            found = []
            for path, _ in body.root_instruction.shape.leaves():
                pair = self._from_output(body, path)
                if pair is not None:
                    found.append(pair)
            known = self._bodies[name] = tuple(found)
        return known

    def _from_output(self, body: Computation, path: tuple[int, ...]) -> InPlacePair | None:
        """Follows an output of a fusion's body back through in-place updates to a parameter."""
        at, index, touched = body.root, path, 0
        updated, exclusive = False, True
        while True:
            instruction = body.instructions[at]
            opcode = instruction.opcode
            exclusive = exclusive and (opcode == "tuple" or len(body.users[at]) <= 1)
            if opcode == "parameter":
                if not updated:
                    return None
                return InPlacePair(instruction.parameter_number, index, path, touched, exclusive)
            if opcode == "tuple" and index:
                at, index = instruction.operands[index[0]], index[1:]
            elif opcode == "get-tuple-element":
                at, index = instruction.operands[0], (int(instruction.attribute("index")), *index)
            elif opcode == "bitcast":
                at = instruction.operands[0]
            else:
                pair = next((p for p in self.pairs(body, instruction) if p.output_index == index), None)
                if pair is None:
                    return None
                updated = True
                exclusive = (
                    exclusive and pair.exclusive and instruction.operands.count(instruction.operands[pair.operand]) == 1
                )
                touched = -1 if min(pair.bytes, touched) < 0 else touched + pair.bytes
                at, index = instruction.operands[pair.operand], pair.operand_index


def _of_async(pair: InPlacePair) -> InPlacePair:
    """The result of an asynchronous operation stands in element 1 of what its start gives."""
    return replace(pair, output_index=(1, *pair.output_index))


def _stated(text: str) -> tuple[InPlacePair, ...]:
    """Parses `{{0}: (1, {}), {1}: (2, {0})}`."""
    return tuple(
        InPlacePair(int(operand), _index(operand_index), _index(output_index), -1)
        for output_index, operand, operand_index in _ALIASING.findall(text)
    )


def _index(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.strip())


def _distinct(pairs: tuple[InPlacePair, ...]) -> tuple[InPlacePair, ...]:
    if len(pairs) < 2:
        return pairs
    kept = []
    outputs: set[tuple[int, ...]] = set()
    operands: set[tuple[int, tuple[int, ...]]] = set()
    for pair in pairs:
        if pair.output_index not in outputs and (pair.operand, pair.operand_index) not in operands:
            outputs.add(pair.output_index)
            operands.add((pair.operand, pair.operand_index))
            kept.append(pair)
    return tuple(kept)
