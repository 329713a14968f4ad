"""Runs a FlatProgram on its storages, beside the Graph itself on plain variables: the two must agree at every step.

Values are symbols: what an instruction gives is a new symbol for its name and its operands' symbols; copies keep theirs.
A storage is a cell that holds one symbol. Before each step, the cells of all storages that are not live then are wiped,
so a live range that is too short, like a wrong alias or a missing copy, makes a step read what it should not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memplan.compiler.analysis.program import AccessKind, FlatProgram, ImplicitCopy, StorageAccess
from memplan.compiler.analysis.schedule import CallFrame, Schedule, lay_out
from memplan.compiler.ir import Shape

WIPED = -1

# A symbol, or a tuple of such things for a tuple shape.
Content = Any


class Machine:
    """One run.

    Args:
      program: what is run.
      iterations: says how often a loop runs, each time that it is reached.
      branch: says which branch of a number of them is taken.
    """

    def __init__(self, program: FlatProgram, iterations: Callable[[], int], branch: Callable[[int], int]):
        self.program, self.iterations, self.branch = program, iterations, branch
        self.schedule: Schedule = lay_out(program.graph)
        self.cells = [WIPED] * len(program.storages)
        self.symbols: dict[Any, int] = {}
        self.accesses: dict[int, list[StorageAccess]] = {}
        self.copies: dict[int, list[ImplicitCopy]] = {}
        for copy in program.copies:
            self.copies.setdefault(copy.time, []).append(copy)
        for access in program.accesses:
            self.accesses.setdefault(access.time, []).append(access)
        for time, copies in self.copies.items():  # of a step's accesses, those of its copies come last of their kind
            reads = [access for access in self.accesses[time] if access.operand >= 0]
            writes = [access for access in self.accesses[time] if access.kind is AccessKind.WRITE]
            self.accesses[time] = reads + writes[: -len(copies)]

    def symbol(self, *key: Any) -> int:
        return self.symbols.setdefault(key, len(self.symbols))

    def run(self) -> None:
        frame = self.schedule.frames[0]
        arguments = []
        for number, index in enumerate(frame.computation.parameters):
            shape = frame.computation.instructions[index].shape
            arguments.append(self.fresh(shape, f"argument {number}"))
        kept: list[tuple[int, int]] = []
        donated = {(alias.parameter, alias.parameter_index) for alias in self.program.graph.aliases}
        for storage, content in enumerate(self.program.storages):
            for number, path in content.parameters:
                self.cells[storage] = at(arguments[number], path)
                if (number, path) not in donated:
                    kept.append((storage, self.cells[storage]))
            if content.is_constant:
                self.cells[storage] = self.symbol(content.name)
                kept.append((storage, self.cells[storage]))
        result = self.execute(frame, arguments)

        end = len(self.program.steps)
        self.wipe(end)
        places = []
        for access in self.accesses[end]:
            assert self.cells[access.storage] == at(result, access.tuple_index), "a result is not what it should be"
            places.append(access.storage)
        assert len(set(places)) == len(places), "two results lie in one place"
        for storage, symbol in kept:
            assert self.cells[storage] == symbol, f"{self.program.storages[storage].name} was overwritten"
            assert storage not in places, "a result lies where the caller's own data does"

    def fresh(self, shape: Shape, *key: Any) -> Content:
        if shape.is_tuple:
            return tuple(self.fresh(element, *key, i) for i, element in enumerate(shape.elements))
        return self.symbol(*key)

    def wipe(self, time: int) -> None:
        for i, storage in enumerate(self.program.storages):
            is_live = storage.start <= time < storage.end and not any(a <= time < b for a, b in storage.holes)
            if not is_live:
                self.cells[i] = WIPED

    def execute(self, frame: CallFrame, arguments: list[Content]) -> Content:
        contents: list[Content] = []
        for index, instruction in enumerate(frame.computation.instructions):
            time = frame.times[index]
            operands = [contents[operand] for operand in instruction.operands]
            opcode = instruction.opcode
            if opcode == "parameter":
                content = arguments[instruction.parameter_number]
            elif opcode == "constant":
                content = self.symbol(instruction.name)
            elif opcode == "while":
                condition, body = (self.schedule.frames[callee] for callee in frame.callees[time])
                content = operands[0]
                self.execute(condition, [content])
                for _ in range(self.iterations()):
                    content = self.execute(body, [content])
                    self.execute(condition, [content])
            elif opcode == "conditional":
                taken = self.branch(len(operands) - 1)
                callee = self.schedule.frames[frame.callees[time][taken]]
                content = self.execute(callee, [operands[taken + 1]])
            elif opcode == "call":
                content = self.execute(self.schedule.frames[frame.callees[time][0]], operands)
            elif opcode == "tuple":
                content = tuple(operands)
            elif opcode == "get-tuple-element":
                content = operands[0][int(instruction.attribute("index"))]
            elif opcode in ("bitcast", "copy", "opt-barrier"):
                content = operands[0]
            else:
                content = self.fresh(instruction.shape, instruction.name, *operands)
            self.step(time, operands, content)
            contents.append(content)
        return contents[frame.computation.root]

    def step(self, time: int, operands: list[Content], content: Content) -> None:
        self.wipe(time)
        accesses = self.accesses.get(time, [])
        name = self.program.steps[time].instruction.name
        for access in accesses:
            if access.kind is not AccessKind.WRITE:
                expected = at(operands[access.operand], access.tuple_index)
                assert self.cells[access.storage] == expected, f"{name} does not read its operand {access.operand}"
        written = {access.tuple_index: access.storage for access in accesses if access.kind is AccessKind.WRITE}
        updated = [access.storage for access in accesses if access.kind is AccessKind.UPDATE]
        if updated:
            (path,) = [path for path, _ in self.program.steps[time].instruction.shape.leaves() if path not in written]
            written[path] = updated[0]
        assert len(set(written.values())) == len(written), f"{name} writes two results to one place"
        self.check_overwriting(time, accesses)
        for path, storage in written.items():
            self.cells[storage] = at(content, path)
        moved = [(copy.destination, self.cells[copy.source]) for copy in self.copies.get(time, [])]
        for destination, symbol in moved:
            assert symbol != WIPED, f"a copy at {name} reads what is gone"
            self.cells[destination] = symbol

    def check_overwriting(self, time: int, accesses: list[StorageAccess]) -> None:
        """What a step reads it may overwrite element by element, or by an update that is the only reader."""
        instruction = self.program.steps[time].instruction
        opcodes = {instruction.opcode}
        if instruction.called:
            body = self.program.graph.computations[instruction.called[0]]
            opcodes = {i.opcode for i in body.instructions} - {"parameter", "bitcast"}
        read = [access.storage for access in accesses if access.kind is not AccessKind.WRITE]
        for access in accesses:
            if access.kind is AccessKind.WRITE and access.storage in read:
                assert opcodes <= {"add", "copy"}, f"{instruction.name} overwrites what it still reads"
            if access.kind is AccessKind.UPDATE:
                assert opcodes == {"dynamic-update-slice"}, f"{instruction.name} updates what it reads besides"
                assert read.count(access.storage) == 1, (
                    f"{instruction.name} updates one operand and reads it as another"
                )


def at(content: Content, path: tuple[int, ...]) -> int:
    for i in path:
        content = content[i]
    assert isinstance(content, int)
    return content
