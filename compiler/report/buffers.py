"""What a person may know of a buffer: size, shape, source line, what it is for, and which group it belongs to.

`describe_buffers(built)` describes the buffers of a problem, `describe_storages(program)` those of a program as its
compiler laid it out; a report has the former as `Report.buffers`, in the order of `problem.buffers`:

    BufferDescription(
        name="fusion.12", size=6291456, padding=0, shape="bf16[8,512,768]", kind=BufferKind.TEMPORARY,
        op_name="jit(step)/jvp(Model)/layer_3/mlp/up/dot_general", file="model.py", line=84,
        producer="fusion.12", last_use="fusion.90", aliases=("bitcast.4",), is_carried=False,
        group="Model/layer_*/mlp/up",
    )

All strings come from the program, so they are data: escape them where they are shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from memplan.compiler.analysis.program import AccessKind, FlatProgram, Storage, StorageAccess
from memplan.compiler.ir import Computation, Graph, Instruction, Shape, Source
from memplan.compiler.mapping.build import BuiltProblem
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.grouping import argument_of, fold, holder_of, scope_of
from memplan.compiler.report.usage import buffer_kind

# So many instructions back, the operands of one that states no source are asked for theirs.
_OPERANDS_BACK = 8

_COPYING = frozenset({"copy-start", "copy-done", "slice-start", "slice-done"})

# The operation of what a compiler copied, unchanged or in another layout, from an argument.
_COPY = "copy of "


class BufferKind(StrEnum):
    """What a buffer is to the caller. UPDATED is a donated argument: a result takes its memory."""

    ARGUMENT = "argument"
    CONSTANT = "constant"
    TEMPORARY = "temporary"
    RESULT = "result"
    UPDATED = "updated"


class GroupBy(StrEnum):
    """What the buffers of a group have in common."""

    LINE = "line"
    OP = "op"
    SHAPE = "shape"
    LAYER = "layer"


@dataclass(frozen=True, slots=True)
class BufferDescription:
    """A buffer, for a person.

    Attributes:
      name: of its first value.
      size: bytes, padded.
      padding: bytes of `size` that hold no element, because the layout has tiles.
      shape: of its largest value, without layout; "" if it is not known.
      kind: what it is to the caller.
      op_name: JAX's path of the operation that makes it, or the name of an argument, such as `params['w']`; "" if it is
        not known.
      file, line: of the user's program, 1-based; "" and 0 where unknown, as of all arguments.
      producer: instruction that writes it first; "" if the caller does.
      last_use: last instruction that reads it; "" if none does.
      aliases: names of other values in it.
      is_carried: whether it is updated in place, by a loop or by instructions one after another.
      group: the layer that it belongs to, with layers that repeat as one; see `labels_of`.
    """

    name: str
    size: int
    padding: int
    shape: str
    kind: BufferKind
    op_name: str
    file: str
    line: int
    producer: str
    last_use: str
    aliases: tuple[str, ...]
    is_carried: bool
    group: str = ""

    @property
    def source(self) -> str:
        """`file:line`; "" where it is not known."""
        return f"{self.file}:{self.line}" if self.file else ""

    @property
    def is_argument(self) -> bool:
        return self.kind in (BufferKind.ARGUMENT, BufferKind.UPDATED)

    @property
    def why_alive(self) -> str:
        """What keeps it in memory, in a few words."""
        if self.kind is BufferKind.CONSTANT:
            return "constant"
        if self.kind is BufferKind.ARGUMENT:
            return f"argument, not donated; last read by {self.last_use}" if self.last_use else "argument, never read"
        if self.kind is BufferKind.UPDATED:
            return "donated: a result takes its memory"
        made = f"made by {self.producer}" if self.producer else "never written"
        if self.kind is BufferKind.RESULT:
            return f"result, {made}"
        until = f", last read by {self.last_use}" if self.last_use else ", never read"
        return f"{made}{', updated in place' if self.is_carried else ''}{until}"


def labels_of(descriptions: Sequence[BufferDescription], by: GroupBy) -> list[str]:
    """Returns the name of each buffer's group, `[num_buffers]`, never "".

    Args:
      descriptions: of all buffers of a program: which numbers repeat is told by their names together.
      by: LINE for the line of the user's program, and for arguments the argument that they belong to; OP for the
        operation; SHAPE; LAYER for the named scopes around the operation, or its line where there are none, and for
        arguments what holds them.
    """
    if by is GroupBy.SHAPE:
        return [description.shape or "(no shape)" for description in descriptions]
    lines = [_line(description) for description in descriptions]
    if by is GroupBy.LINE:
        return lines
    named = fold([_operation(description) if by is GroupBy.OP else _layer(description) for description in descriptions])
    return [name or line for name, line in zip(named, lines, strict=True)]


def _line(description: BufferDescription) -> str:
    if description.is_argument:
        return f"argument {argument_of(_operation(description))}"
    if description.op_name.startswith(_COPY):
        return f"{_COPY}argument {argument_of(description.op_name.removeprefix(_COPY))}"
    return description.source or ("constants" if description.kind is BufferKind.CONSTANT else _operation(description))


def _operation(description: BufferDescription) -> str:
    return description.op_name or description.producer or description.name


def _layer(description: BufferDescription) -> str:
    """Returns the layer of a buffer; "" where only its line is known."""
    if description.is_argument or description.op_name.startswith(_COPY):
        return holder_of(_operation(description))
    return scope_of(description.op_name)


def describe_storages(program: FlatProgram, buffer_of: Sequence[int] | None = None) -> tuple[BufferDescription, ...]:
    """Returns what is known of each storage of a program, `[num_storages]`.

    Args:
      program: the flattened program.
      buffer_of: `[num_storages]` the buffer of each storage, as of `BuiltProblem`. What makes and what last reads a
        buffer is told of its copies in all memories, in place of the instructions that copy it.
    """
    described = _Describer(program)
    found = [described.of((number,)) for number in range(len(program.storages))]
    copies: dict[int, list[int]] = defaultdict(list)
    for number, buffer in enumerate(buffer_of or ()):
        if buffer >= 0:
            copies[buffer].append(number)
    for numbers in copies.values():
        if len(numbers) > 1:
            whole = described.of(numbers)
            for number in numbers:
                producer = whole.producer or found[number].producer
                found[number] = replace(found[number], producer=producer, last_use=whole.last_use)
    return _with_groups(found)


def describe_buffers(built: BuiltProblem) -> tuple[BufferDescription, ...]:
    """Returns what is known of each buffer of a problem, `[num_buffers]`."""
    described = _Describer(built.program)
    storages: dict[int, list[int]] = defaultdict(list)
    for number, buffer in enumerate(built.buffer_of_storage):
        storages[buffer].append(number)
    return _with_groups(
        replace(described.of(storages[number]), name=buffer.name) for number, buffer in enumerate(built.problem.buffers)
    )


def describe_bare(problem: MappingProblem) -> tuple[BufferDescription, ...]:
    """Returns what a problem alone tells of its buffers, `[num_buffers]`: no shapes and no lines."""
    described = []
    for number, buffer in enumerate(problem.buffers):
        accesses = [problem.accesses[i] for i in problem.accesses_of[number]]
        writes = [t for t, access in accesses if access.kind is not AccessKind.READ]
        reads = [t for t, access in accesses if access.kind is not AccessKind.WRITE]
        kind = BufferKind(buffer_kind(problem, number))
        given = buffer.initial_space is not None
        described.append(
            BufferDescription(
                name=buffer.name,
                size=buffer.size,
                padding=0,
                shape="",
                kind=kind,
                op_name="",
                file="",
                line=0,
                producer="" if given or not writes else problem.operations[min(writes)].name,
                last_use=problem.operations[max(reads)].name if reads else "",
                aliases=buffer.values[1:],
                is_carried=any(access.kind is AccessKind.UPDATE for _, access in accesses),
            )
        )
    return _with_groups(described)


def _with_groups(descriptions: Iterable[BufferDescription]) -> tuple[BufferDescription, ...]:
    found = tuple(descriptions)
    labels = labels_of(found, GroupBy.LAYER)
    return tuple(replace(each, group=label) for each, label in zip(found, labels, strict=True))


class _Describer:
    """Finds out about the storages of a program."""

    def __init__(self, program: FlatProgram):
        self.program = program
        self.sources = Sources(program.graph)
        self.writes: dict[int, list[StorageAccess]] = defaultdict(list)
        self.last_read: dict[tuple[int, bool], int] = {}
        end = len(program.steps)
        for access in program.accesses:
            if access.kind is not AccessKind.READ:
                self.writes[access.storage].append(access)
            if access.kind is not AccessKind.WRITE and access.time < end:
                # A copy to another memory is no use, unless nothing else is.
                is_copy = program.steps[access.time].instruction.opcode in _COPYING
                self.last_read[access.storage, is_copy] = access.time
        self.time_of = {step.instruction.name: t for t, step in reversed(list(enumerate(program.steps)))}

    def of(self, numbers: Sequence[int]) -> BufferDescription:
        """Describes storages that are one buffer, the first of them leading."""
        storages = [self.program.storages[number] for number in numbers]
        first = min(storages, key=lambda storage: storage.start)
        given = next((storage for storage in storages if storage.parameters or storage.is_constant), None)
        size = max(storage.size for storage in storages)
        writes = sorted((w for number in numbers for w in self.writes[number]), key=lambda write: write.time)
        of_kind = ([self.last_read.get((number, copy), -1) for number in numbers] for copy in (False, True))
        last_read = next((last for last in map(max, of_kind) if last >= 0), -1)
        shape, source = self._given(given) if given is not None else self._made(writes, size)
        if shape is None:
            shape, source = self._named(first.name)
        if shape is None or shape.bytes < size:
            # Such as the whole that is copied in slices.
            shapes = (self._named(value)[0] for storage in storages for value in storage.values)
            shape = next((each for each in shapes if each is not None and each.bytes == size), shape)
        steps = self.program.steps
        return BufferDescription(
            name=first.name,
            size=size,
            padding=size - shape.unpadded_bytes if shape is not None and shape.bytes == size else 0,
            shape=str(shape.without_layout()) if shape is not None else "",
            kind=_kind(storages),
            op_name=source.op_name,
            file=source.file,
            line=source.line,
            producer=steps[writes[0].time].instruction.name if writes and given is None else "",
            last_use=steps[last_read].instruction.name if last_read >= 0 else "",
            aliases=tuple(value for storage in storages for value in storage.values if value != first.name),
            is_carried=any(write.kind is AccessKind.UPDATE for write in writes),
        )

    def _given(self, storage: Storage) -> tuple[Shape | None, Source]:
        """Returns shape and source of an argument or a constant."""
        if not storage.parameters:
            return self._named(storage.name)
        entry = self.program.graph.entry_computation
        number, path = storage.parameters[0]
        parameter = entry.instructions[entry.parameters[number]]
        return parameter.shape.at(path), Source(parameter.source.op_name or parameter.name)

    def _made(self, writes: Sequence[StorageAccess], size: int) -> tuple[Shape | None, Source]:
        """Returns shape and source of what the program writes: an update tells more than the zeros that it updates."""
        shape, source = None, Source()
        for write in sorted(writes, key=lambda write: write.kind is not AccessKind.UPDATE):
            step = self.program.steps[write.time]
            if write.operand < 0 and write.kind is AccessKind.UPDATE:
                continue
            if not source.op_name and not source.file:
                source = self.sources.of(self.program.graph.computations[step.computation], step.index)
            written = self._written(write)
            if written is not None and (shape is None or shape.bytes < written.bytes <= size):
                shape = written
            if shape is not None and shape.bytes == size and source.op_name:
                break
        return shape, source

    def _written(self, write: StorageAccess) -> Shape | None:
        """Returns the shape of what an access writes; None if it is an implicit copy."""
        instruction = self.program.steps[write.time].instruction
        if write.kind is AccessKind.WRITE:
            return None if write.operand < -1 else instruction.shape.at(write.tuple_index)
        instructions = self.program.graph.computations[self.program.steps[write.time].computation].instructions
        return instructions[instruction.operands[write.operand]].shape.at(write.tuple_index)

    def _named(self, value: str) -> tuple[Shape | None, Source]:
        """Returns shape and source of a value, by its name."""
        name, _, index = value.partition("{")
        t = self.time_of.get(name)
        if t is None:
            return None, Source()
        step = self.program.steps[t]
        path = tuple(int(part) for part in index.rstrip("}").split(",") if part)
        shape = step.instruction.shape.at(path)
        source = self.sources.of(self.program.graph.computations[step.computation], step.index)
        return (shape if shape.is_array else None), source


def _kind(storages: Sequence[Storage]) -> BufferKind:
    is_result = any(storage.result_indices for storage in storages)
    if any(storage.parameters for storage in storages):
        return BufferKind.UPDATED if is_result else BufferKind.ARGUMENT
    if any(storage.is_constant for storage in storages):
        return BufferKind.CONSTANT
    return BufferKind.RESULT if is_result else BufferKind.TEMPORARY


class Sources:
    """Finds where instructions come from, also where a compiler made them and left that out."""

    def __init__(self, graph: Graph):
        self.graph = graph

    def of(self, computation: Computation, index: int) -> Source:
        """Returns the source of an instruction, else that of what it computes, else that of what it copies."""
        is_copying = False
        for _ in range(_OPERANDS_BACK):
            instruction = computation.instructions[index]
            source = self._own(instruction)
            if source.op_name or source.file:
                if is_copying and instruction.opcode == "parameter":
                    return Source(_COPY + source.op_name)
                return source
            if not instruction.operands:
                break
            is_copying = True
            index = instruction.operands[0]
        return Source()

    def _own(self, instruction: Instruction) -> Source:
        source = instruction.source
        if source.file or not instruction.called or instruction.opcode in ("while", "conditional", "call"):
            return source
        callee = self.graph.computations[instruction.called[0]]
        root = callee.root_instruction.source
        if root.file:
            return root
        stated = (each.source for each in reversed(callee.instructions) if each.source.file)
        return next(stated, source if source.op_name else root)
