"""Takeovers: results that may be written over an operand that is not needed any more.

    y = add(x, c)      with x dead afterwards: y may lie where x lay

Unlike an alias, a takeover is a choice. Storages stay apart, so that a planner may put them in different memories; one
that puts both in the same place saves the memory of one while the step runs. XLA makes this choice in its heap
simulator (`may_reuse_operand_buffers`, under `CanShareOperandBufferWithUser`); a module compiled for a TPU lists, as
`aliasing_operands` in the `backend_config`, what the code of an instruction can do in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from memplan.compiler.analysis.elementwise import Elementwise
from memplan.compiler.analysis.program import COPIED, AccessKind, FlatProgram, StorageAccess
from memplan.compiler.ir import Instruction
from memplan.compiler.ir.runtime import is_for_tflite

_LISTS = re.compile(r'"aliasing_operands"\s*:\s*\{\s*"lists"\s*:\s*\[(\s*+(?:\{[^{}]*+\}\s*+(?:,\s*+)?)*)\]')
_LIST = re.compile(r"\[([^\[\]]*)\]")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Takeover:
    """A result that may have the memory of an operand.

    Attributes:
      time: of the step that reads the one for the last time and writes the other for the first time.
      operand: storage that ends.
      result: storage that starts; not larger than the other.
      stated: whether the compiler that wrote the module lists the pair, so that its own plan counts on it.
    """

    time: int
    operand: int
    result: int
    stated: bool


def takeovers(program: FlatProgram) -> tuple[Takeover, ...]:
    """Returns the possible takeovers in order of time; no storage is taken over twice, none takes over two.

    There are none in a program for TensorFlow Lite, whose operators write beside what they read.
    """
    if is_for_tflite(program.graph):
        return ()
    elementwise = Elementwise(program.graph)
    found: list[Takeover] = []
    accesses, position = program.accesses, 0
    for t, step in enumerate(program.steps):
        start = position
        while position < len(accesses) and accesses[position].time == t:
            position += 1
        dying: dict[int, list[StorageAccess]] = {}
        written: list[StorageAccess] = []
        copied = {access.storage for access in accesses[start:position] if access.operand == COPIED}
        for access in accesses[start:position]:
            storage = program.storages[access.storage]
            if access.storage in copied:  # after the step itself
                continue
            if access.kind is AccessKind.READ and storage.end == t + 1 and storage.start < t:
                dying.setdefault(access.storage, []).append(access)
            elif access.kind is AccessKind.WRITE and storage.start == t:
                written.append(access)
        if dying and written:
            found.extend(_of_step(program, elementwise, t, step.instruction, dying, written))
    return tuple(found)


def _of_step(
    program: FlatProgram,
    elementwise: Elementwise,
    t: int,
    instruction: Instruction,
    dying: Mapping[int, list[StorageAccess]],
    written: list[StorageAccess],
) -> Iterator[Takeover]:
    instructions = program.graph.computations[program.steps[t].computation].instructions
    chosen = stated_sharing(instruction)
    leaves = {path: number for number, (path, _) in enumerate(instruction.shape.leaves())}
    taken: set[int] = set()
    pairs: list[tuple[bool, int, int, int]] = []
    for result in written:
        for operand, reads in dying.items():
            # Every read of the operand must allow that it is overwritten.
            source, target = program.storages[operand], program.storages[result.storage]
            if source.memory_space != target.memory_space or source.size < target.size:
                continue
            stated = any((read.operand, leaves[result.tuple_index]) in chosen for read in reads)
            if stated or all(
                elementwise.may_share(
                    instruction,
                    read.operand,
                    instructions[instruction.operands[read.operand]].shape.at(read.tuple_index),
                    result.tuple_index,
                )
                for read in reads
            ):
                pairs.append((not stated, len(pairs), operand, result.storage))
    for not_stated, _, operand, storage in sorted(pairs):
        if operand not in taken and storage not in taken:
            taken |= {operand, storage}
            yield Takeover(t, operand, storage, not not_stated)


def stated_sharing(instruction: Instruction) -> frozenset[tuple[int, int]]:
    """Returns the `(operand, number of the result's leaf)` that may share memory by the module's own word.

    Each list of `aliasing_operands` names what may lie at one place; results are numbered on after the operands.

    >>> from memplan.compiler.ir import Shape
    >>> config = '{"aliasing_operands":{"lists":[{"indices":["0","2"]}]}}'
    >>> add = Instruction("y", "add", Shape("s32"), operands=(0, 1), attributes=(("backend_config", config),))
    >>> stated_sharing(add)
    frozenset({(0, 0)})
    """
    config = instruction.attribute("backend_config")
    if "aliasing_operands" not in config:
        return frozenset()
    pairs: set[tuple[int, int]] = set()
    for indices in aliasing_operands(config):
        results = [i - len(instruction.operands) for i in indices if i >= len(instruction.operands)]
        pairs.update((i, result) for i in indices if i < len(instruction.operands) for result in results)
    return frozenset(pairs)


def aliasing_operands(backend_config: str) -> list[list[int]]:
    """Returns the lists of `aliasing_operands` in a `backend_config`."""
    match = _LISTS.search(backend_config)
    if match is None:
        return []
    return [[int(number) for number in _NUMBER.findall(part)] for part in _LIST.findall(match.group(1))]


_VIEWS = frozenset({"bitcast", "get-tuple-element"})
_SHARED = frozenset({"while", "conditional", "parameter"})


def takeovers_of_xla(program: FlatProgram) -> tuple[Takeover, ...]:
    """Returns the takeovers that XLA makes: those that it states, and those of a storage that holds one value only.

    XLA lets a result take over an operand only if no third value ever lies in their block (heap_simulator.cc). With
    `use_holes`, `liveness.peak_memory` is then what XLA's own assignment on the CPU has in use at its peak.
    """
    opcodes = {step.instruction.name: step.instruction.opcode for step in program.steps}

    def holds_one_value(number: int) -> bool:
        values = program.storages[number].values
        names = [value for value in values if "{" not in value]
        return sum(opcodes.get(name) not in _VIEWS for name in names) <= 1 and not any(
            opcodes.get(value.partition("{")[0]) in _SHARED for value in values
        )

    return tuple(takeover for takeover in takeovers(program) if takeover.stated or holds_one_value(takeover.operand))
