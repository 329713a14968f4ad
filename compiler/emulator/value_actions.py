"""What each step of a flattened program does to the memories under a plan, made ready to be done many times.

A step reads arrays from places, computes, and writes arrays to places. After it, values may be handed over by copies
that no instruction states (`ImplicitCopy`). A place is a residency of the plan, or memory of its own for a storage that
the problem leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memplan.compiler.analysis.in_place import InPlace
from memplan.compiler.analysis.program import COPIED, AccessKind, ImplicitCopy, StorageAccess
from memplan.compiler.errors import GraphError, PlanError
from memplan.compiler.frontends.jaxpr_arrays import numpy_dtype
from memplan.compiler.ir import Instruction, Shape
from memplan.compiler.mapping.build import BuiltProblem
from memplan.compiler.mapping.plan import Plan

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Path = tuple[int, ...]

# Control flow is followed by the emulator itself; nothing is computed at the step that owns the regions.
_CONTROL_FLOW = frozenset({"while", "conditional", "call"})


@dataclass(frozen=True, slots=True)
class ArrayPlace:
    """Where an array is: a residency, or a storage that the problem leaves out (the other one is -1)."""

    residency: int
    storage: int


@dataclass(frozen=True, slots=True)
class ValueCopy:
    """A copy that no instruction states: the places that it connects, and its bytes."""

    source: ArrayPlace
    destination: ArrayPlace
    bytes: int


@dataclass(frozen=True, slots=True)
class Action:
    """What a step does.

    Attributes:
      instruction: of the step.
      operands: shape of each operand.
      reads: place of every array in the operands, by number of the operand and tuple index.
      writes: shape and place of every array in the result, by tuple index.
      computes: whether the instruction computes anything.
    """

    instruction: Instruction
    operands: tuple[Shape, ...]
    reads: dict[tuple[int, Path], ArrayPlace]
    writes: dict[Path, tuple[Shape, ArrayPlace]]
    computes: bool


class Actions:
    """The actions of all steps, each worked out when it is first asked for.

    Args:
      built: the problem.
      plan: for it; `served` must be known to be sound (see `check_plan`).
    """

    def __init__(self, built: BuiltProblem, plan: Plan):
        self._built, self._plan = built, plan
        program = built.program
        self._accesses: list[list[StorageAccess]] = [[] for _ in range(len(program.steps) + 1)]
        self._copied: dict[int, list[StorageAccess]] = {}
        for access in program.accesses:
            if access.operand == COPIED:
                self._copied.setdefault(access.time, []).append(access)
            else:
                self._accesses[access.time].append(access)
        self._copies: dict[int, list[ImplicitCopy]] = {}
        for copy in program.copies:
            self._copies.setdefault(copy.time, []).append(copy)
        self._in_place = InPlace(program.graph)
        self._left_out = {step for copy in built.given_copies for step in copy.steps}
        self._known: dict[int, Action | None] = {}

    def of(self, step: int) -> Action | None:
        """Returns what a step does, or None if that is nothing."""
        if step not in self._known:
            self._known[step] = self._work_out(step)
        return self._known[step]

    def copies(self, step: int) -> tuple[ValueCopy, ...]:
        """Returns the copies that are made at the end of a step."""
        accesses = self._copied[step]
        places = self._places(self._built.times.copying_of.get(step), accesses)
        count = len(self._copies[step])
        # As many places are read as are written, in the order of the copies.
        rows = zip(places[:count], places[count:], self._copies[step], strict=True)
        return tuple(ValueCopy(source, destination, copy.bytes) for source, destination, copy in rows)

    def operand_storage(self, step: int, operand: int) -> int:
        """Returns the storage of an operand that is one array."""
        for access in self._accesses[step]:
            if access.kind is AccessKind.READ and access.operand == operand:
                return access.storage
        raise GraphError(f"{self._built.program.steps[step].instruction.name} does not read operand {operand}")

    def _work_out(self, step: int) -> Action | None:
        accesses = self._accesses[step]
        if step in self._left_out or not accesses:
            return None
        program = self._built.program
        places = self._places(self._built.times.operation_of.get(step), accesses)
        computation = program.graph.computations[program.steps[step].computation]
        instruction = program.steps[step].instruction
        reads: dict[tuple[int, Path], ArrayPlace] = {}
        updated: dict[tuple[int, Path], ArrayPlace] = {}
        written: list[tuple[Path, ArrayPlace]] = []
        for access, place in zip(accesses, places, strict=True):
            key = (access.operand, access.tuple_index)
            if access.kind is AccessKind.WRITE:
                written.append((access.tuple_index, place))
            else:
                reads[key] = place
                if access.kind is AccessKind.UPDATE:
                    updated[key] = place
        writes = {path: (instruction.shape.at(path), place) for path, place in written}
        for pair in self._in_place.pairs(computation, instruction) if updated else ():
            target = updated.get((pair.operand, pair.operand_index))
            if target is not None:
                writes[pair.output_index] = (instruction.shape.at(pair.output_index), target)
        return Action(
            instruction=instruction,
            operands=tuple(computation.instructions[operand].shape for operand in instruction.operands),
            reads=reads,
            writes=writes,
            computes=instruction.opcode not in _CONTROL_FLOW and bool(reads or writes),
        )

    def _places(self, operation: int | None, accesses: Sequence[StorageAccess]) -> list[ArrayPlace]:
        """Returns the place of each access; an operation's accesses are those of storages that have a buffer."""
        number = 0
        if operation is not None:
            number = self._built.problem.access_start[operation]
        places = []
        for access in accesses:
            if self._built.buffer_of_storage[access.storage] < 0:
                places.append(ArrayPlace(-1, access.storage))
            else:
                places.append(ArrayPlace(self._plan.served[number], -1))
                number += 1
        return places


def check_plan(built: BuiltProblem, plan: Plan) -> None:
    """Raises PlanError if a plan names what does not exist, so that there are no bytes to look at."""
    problem = built.problem
    for number, r in enumerate(plan.residencies):
        if not 0 <= r.buffer < len(problem.buffers) or not 0 <= r.space < len(problem.spaces):
            raise PlanError(f"residency {number} names buffer {r.buffer} in space {r.space}, which does not exist")
        if r.offset < 0:
            raise PlanError(f"residency {number} of {problem.buffers[r.buffer].name} has no offset")
    if len(plan.served) != len(problem.accesses):
        raise PlanError(f"{len(plan.served)} accesses are served, but the program makes {len(problem.accesses)}")
    for (time, access), residency in zip(problem.accesses, plan.served, strict=True):
        if not 0 <= residency < len(plan.residencies) or plan.residencies[residency].buffer != access.buffer:
            raise PlanError(
                f"{problem.operations[time].name} at {time} is served by residency {residency}, which is not one of "
                f"{problem.buffers[access.buffer].name}"
            )
    for number, copy in enumerate(plan.copies):
        if not all(0 <= r < len(plan.residencies) for r in (copy.source, copy.destination)):
            raise PlanError(f"copy {number} names a residency that does not exist")


def evaluate(instruction: Instruction, operands: Sequence[Any]) -> Any:
    """Returns the value of an instruction without control flow.

    Raises:
      GraphError: the Graph does not say how to compute it, or JAX cannot compute it here (a kernel for hardware that
        this machine does not have).
    """
    if instruction.evaluate is None:
        raise GraphError(f"{_named(instruction)} cannot be executed; only programs that memplan.trace made can be")
    try:
        return instruction.evaluate(*operands)
    except Exception as error:
        raise GraphError(f"{_named(instruction)} cannot be executed here: {error}") from error


def _named(instruction: Instruction) -> str:
    """Returns the name of an instruction, its opcode, and its place in the user's program where it is known."""
    source = instruction.source
    place = f"{source.file}:{source.line}: " if source.file else ""
    return f"{place}{instruction.name}: {instruction.opcode}"


def array_of(data: Bytes, shape: Shape) -> np.ndarray[Any, Any]:
    """Returns the array whose bytes begin `data`, in memory of its own."""
    dtype = numpy_dtype(shape.dtype)
    taken = data[: shape.num_elements * dtype.itemsize].copy()
    if dtype == np.bool_:
        return (taken != 0).reshape(shape.dims)
    return taken.view(dtype).reshape(shape.dims)


def bytes_of(value: Any, shape: Shape) -> Bytes:
    """Returns the bytes of an array; GraphError if it does not have the shape that the program says."""
    array = np.asarray(value)
    if array.shape != shape.dims or array.dtype != numpy_dtype(shape.dtype):
        raise GraphError(f"expected {shape}, an instruction gave {array.dtype}{list(array.shape)}")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def compute(action: Action, read: Callable[[ArrayPlace], Bytes], write: Callable[[ArrayPlace, Bytes], None]) -> None:
    """Does what a step does: reads its operands and writes its results."""
    if not action.computes:
        return
    operands = [_operand(action, number, shape, read) for number, shape in enumerate(action.operands)]
    results = evaluate(action.instruction, operands)
    for path, (shape, place) in action.writes.items():
        result = results
        for index in path:
            result = result[index]
        write(place, bytes_of(result, shape))


def make_copies(
    copies: Sequence[ValueCopy], read: Callable[[ArrayPlace], Bytes], write: Callable[[ArrayPlace, Bytes], None]
) -> None:
    """Makes copies: all are read before any is written."""
    arrived = [read(copy.source)[: copy.bytes].copy() for copy in copies]
    for copy, data in zip(copies, arrived, strict=True):
        write(copy.destination, data)


def _operand(action: Action, number: int, shape: Shape, read: Callable[[ArrayPlace], Bytes], path: Path = ()) -> Any:
    """Returns the value of an operand, or of its part at a tuple index, from its arrays; tokens have none."""
    if shape.is_tuple:
        return tuple(_operand(action, number, part, read, (*path, i)) for i, part in enumerate(shape.elements))
    return array_of(read(action.reads[number, path]), shape) if shape.is_array else None
